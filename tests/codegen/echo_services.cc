#include "tests/codegen/echo_services.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace behaviour {
namespace {

absl::Status AnswerSay(const Request& request, Reply* reply) {
  if (request.text().empty()) return absl::InvalidArgumentError("nothing to say");
  reply->set_text(absl::StrCat("say ", request.text()));
  return absl::OkStatus();
}

class SpellReactor final : public shmrpc::ServerWriteReactor<Reply> {
 public:
  explicit SpellReactor(const Request& request) : text_(request.text()) { Next(); }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(absl::UnknownError("cannot write"));
    Next();
  }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (position_ == text_.size()) return Finish(absl::OkStatus());
    reply_ = MakeReply(text_.substr(position_++, 1));
    StartWrite(&reply_);
  }

  const std::string text_;
  size_t position_ = 0;
  Reply reply_;
};

class JoinReactor final : public shmrpc::ServerReadReactor<Request> {
 public:
  explicit JoinReactor(Reply* reply) : reply_(reply) { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(absl::OkStatus());
    reply_->mutable_text()->append(request_.text());
    StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  Reply* const reply_;
  Request request_;
};

class TalkReactor final : public shmrpc::ServerBidiReactor<Request, Reply> {
 public:
  TalkReactor() { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(absl::OkStatus());
    reply_.set_text(request_.text());
    StartWrite(&reply_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(absl::UnknownError("cannot write"));
    StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  Request request_;
  Reply reply_;
};

}  // namespace

Request MakeRequest(const std::string& text) {
  Request request;
  request.set_text(text);
  return request;
}

Reply MakeReply(const std::string& text) {
  Reply reply;
  reply.set_text(text);
  return reply;
}

absl::Status SyncEcho::Say(shmrpc::ServerContext* context, const Request* request, Reply* reply) {
  return AnswerSay(*request, reply);
}

absl::Status SyncEcho::class_(shmrpc::ServerContext* context, const Request* request, Reply* reply) {
  reply->set_text(absl::StrCat("class ", request->text()));
  return absl::OkStatus();
}

absl::Status SyncEcho::Spell(shmrpc::ServerContext* context, const Request* request,
                             shmrpc::ServerWriter<Reply>* stream) {
  for (const char letter : request->text()) {
    if (!stream->Write(MakeReply(std::string(1, letter)))) return absl::UnknownError("cannot write");
  }
  return absl::OkStatus();
}

absl::Status SyncEcho::Join(shmrpc::ServerContext* context, shmrpc::ServerReader<Request>* stream, Reply* reply) {
  Request request;
  while (stream->Read(&request)) reply->mutable_text()->append(request.text());
  return absl::OkStatus();
}

absl::Status SyncEcho::Talk(shmrpc::ServerContext* context, shmrpc::ServerReaderWriter<Reply, Request>* stream) {
  Request request;
  while (stream->Read(&request)) {
    if (!stream->Write(MakeReply(request.text()))) return absl::UnknownError("cannot write");
  }
  return absl::OkStatus();
}

shmrpc::ServerUnaryReactor* CallbackEcho::Say(shmrpc::ServerContext* context, const Request* request, Reply* reply) {
  return new shmrpc::FinishingReactor<shmrpc::ServerUnaryReactor>(AnswerSay(*request, reply));
}

shmrpc::ServerUnaryReactor* CallbackEcho::class_(shmrpc::ServerContext* context, const Request* request, Reply* reply) {
  reply->set_text(absl::StrCat("class ", request->text()));
  shmrpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(absl::OkStatus());
  return reactor;
}

shmrpc::ServerWriteReactor<Reply>* CallbackEcho::Spell(shmrpc::ServerContext* context, const Request* request) {
  return new SpellReactor(*request);
}

shmrpc::ServerReadReactor<Request>* CallbackEcho::Join(shmrpc::ServerContext* context, Reply* reply) {
  return new JoinReactor(reply);
}

shmrpc::ServerBidiReactor<Request, Reply>* CallbackEcho::Talk(shmrpc::ServerContext* context) {
  return new TalkReactor();
}

shmrpc::Task<absl::Status> CoEcho::Say(shmrpc::ServerContext* context, const Request* request, Reply* reply) {
  co_return AnswerSay(*request, reply);
}

shmrpc::Task<absl::Status> CoEcho::class_(shmrpc::ServerContext* context, const Request* request, Reply* reply) {
  reply->set_text(absl::StrCat("class ", request->text()));
  co_return absl::OkStatus();
}

shmrpc::Task<absl::Status> CoEcho::Spell(shmrpc::ServerContext* context, const Request* request,
                                         shmrpc::CoServerWriter<Reply>* stream) {
  for (const char letter : request->text()) {
    const Reply reply = MakeReply(std::string(1, letter));
    const bool ok = co_await stream->Write(reply);
    if (!ok) co_return absl::UnknownError("cannot write");
  }
  co_return absl::OkStatus();
}

shmrpc::Task<absl::Status> CoEcho::Join(shmrpc::ServerContext* context, shmrpc::CoServerReader<Request>* stream,
                                        Reply* reply) {
  while (std::optional<Request> request = co_await stream->Read()) {
    reply->mutable_text()->append(request->text());
  }
  co_return absl::OkStatus();
}

shmrpc::Task<absl::Status> CoEcho::Talk(shmrpc::ServerContext* context,
                                        shmrpc::CoServerReaderWriter<Reply, Request>* stream) {
  while (std::optional<Request> request = co_await stream->Read()) {
    const Reply reply = MakeReply(request->text());
    const bool ok = co_await stream->Write(reply);
    if (!ok) co_return absl::UnknownError("cannot write");
  }
  co_return absl::OkStatus();
}

}  // namespace behaviour
