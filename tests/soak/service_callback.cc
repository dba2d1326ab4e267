#include <utility>

#include "tests/soak/services.h"

namespace shmrpc::soak {
namespace {

// The reactors delete themselves. They do not take time for work: reactions are to be short.
class UploadReactor final : public ServerReadReactor<Item> {
 public:
  UploadReactor(const ServerEnvironment& environment, ServerContext* context, Reply* reply)
      : call_(environment, context, nullptr), reply_(reply) {
    StartRead(&item_);
  }
  void OnReadDone(bool ok) override {
    if (ok) {
      call_.TakeItem(item_);
      return StartRead(&item_);
    }
    call_.MakeReply(reply_);
    Finish(call_.EndOfItems());
  }
  void OnDone() override { delete this; }

 private:
  HandlerCall call_;
  Reply* const reply_;
  Item item_;
};

class DownloadReactor final : public ServerWriteReactor<Item> {
 public:
  DownloadReactor(const ServerEnvironment& environment, ServerContext* context, const Request* request)
      : call_(environment, context, request) {
    OnWriteDone(true);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(call_.End(/*all=*/false));
    if (!call_.HasMoreItems()) return Finish(call_.End(/*all=*/true));
    call_.MakeItem(&item_);
    // An error ends the call without what is being written.
    absl::Status end = call_.End(/*all=*/true);
    if (call_.HasMoreItems() || !end.ok()) return StartWrite(&item_);
    StartWriteAndFinish(&item_, std::move(end));
  }
  void OnDone() override { delete this; }

 private:
  HandlerCall call_;
  Item item_;
};

class ChatReactor final : public ServerBidiReactor<Item, Item> {
 public:
  ChatReactor(const ServerEnvironment& environment, ServerContext* context) : call_(environment, context, nullptr) {
    StartRead(&read_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(call_.EndOfItems());
    call_.TakeItem(read_);
    call_.MakeItem(&written_);
    StartWrite(&written_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(call_.End(/*all=*/false));
    StartRead(&read_);
  }
  void OnDone() override { delete this; }

 private:
  HandlerCall call_;
  Item read_;
  Item written_;
};

class CallbackService final : public Soak::CallbackService {
 public:
  explicit CallbackService(const ServerEnvironment& environment) : environment_(environment) {}

  ServerUnaryReactor* Unary(ServerContext* context, const Request* request, Reply* reply) override {
    HandlerCall call(environment_, context, request);
    call.MakeReply(reply);
    ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(call.End(/*all=*/true));
    return reactor;
  }
  ServerReadReactor<Item>* Upload(ServerContext* context, Reply* reply) override {
    return new UploadReactor(environment_, context, reply);
  }
  ServerWriteReactor<Item>* Download(ServerContext* context, const Request* request) override {
    return new DownloadReactor(environment_, context, request);
  }
  ServerBidiReactor<Item, Item>* Chat(ServerContext* context) override {
    return new ChatReactor(environment_, context);
  }

 private:
  const ServerEnvironment& environment_;
};

}  // namespace

std::unique_ptr<Service> MakeCallbackService(const ServerEnvironment& environment) {
  return std::make_unique<CallbackService>(environment);
}

}  // namespace shmrpc::soak
