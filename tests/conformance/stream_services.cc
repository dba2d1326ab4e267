#include "stream_services.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "echo_service.h"

namespace shmrpc::conformance {
namespace {

void AddMetadata(const CountRequest& request, ServerContext* context) {
  for (const MetadataEntry& entry : request.initial_metadata()) context->AddInitialMetadata(entry.key(), entry.value());
  for (const MetadataEntry& entry : request.trailing_metadata()) {
    context->AddTrailingMetadata(entry.key(), entry.value());
  }
}

Item CountedItem(const CountRequest& request, uint64_t number) {
  Item item;
  item.set_number(number);
  item.set_payload(std::string(request.payload_bytes(), 'c'));
  return item;
}

// Counts a handler's life.
class Life {
 public:
  explicit Life(StreamCounters* counters) : counters_(counters) { counters_->started.Increment(); }
  ~Life() { counters_->ended.Increment(); }
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

 private:
  StreamCounters* const counters_;
};

absl::Status NoteCancelled(const ServerContext& context, StreamCounters* counters) {
  if (context.IsCancelled()) counters->cancelled.Increment();
  return absl::CancelledError("the handler saw the call cancelled");
}

class SynchronousStreams final : public Streams::Service {
 public:
  explicit SynchronousStreams(StreamCounters* counters) : counters_(counters) {}

  absl::Status Count(ServerContext* context, const CountRequest* request, ServerWriter<Item>* writer) override {
    const Life life(counters_);
    AddMetadata(*request, context);
    writer->SendInitialMetadata();
    for (uint64_t i = 0; i < request->count(); ++i) {
      if (!writer->Write(CountedItem(*request, i))) return NoteCancelled(*context, counters_);
      counters_->items_sent.Increment();
    }
    while (request->wait_for_cancellation()) {
      if (context->IsCancelled()) return NoteCancelled(*context, counters_);
      absl::SleepFor(absl::Milliseconds(1));
    }
    return ToAbsl(request->end());
  }

  absl::Status Sum(ServerContext* context, ServerReader<Item>* reader, SumReply* reply) override {
    const Life life(counters_);
    Item item;
    while (reader->Read(&item)) {
      counters_->items_read.Increment();
      if (item.has_end()) return ToAbsl(item.end());
      reply->set_count(reply->count() + 1);
      reply->set_sum(reply->sum() + item.number());
    }
    if (context->IsCancelled()) return NoteCancelled(*context, counters_);
    return absl::OkStatus();
  }

  absl::Status Chat(ServerContext* context, ServerReaderWriter<Item, Item>* stream) override {
    const Life life(counters_);
    Item item;
    while (stream->Read(&item)) {
      counters_->items_read.Increment();
      if (item.has_end()) return ToAbsl(item.end());
      if (!stream->Write(item)) break;
      counters_->items_sent.Increment();
    }
    if (context->IsCancelled()) return NoteCancelled(*context, counters_);
    return absl::OkStatus();
  }

 private:
  StreamCounters* const counters_;
};

class CountReactor final : public ServerWriteReactor<Item> {
 public:
  CountReactor(ServerContext* context, const CountRequest* request, StreamCounters* counters)
      : life_(counters), context_(context), request_(*request), counters_(counters) {
    AddMetadata(request_, context_);
    StartSendInitialMetadata();
    Next();
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return FinishCancelled();
    counters_->items_sent.Increment();
    Next();
  }
  void OnCancel() override {
    if (waits_) FinishCancelled();
  }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (next_ < request_.count()) {
      item_ = CountedItem(request_, next_++);
      return StartWrite(&item_);
    }
    if (!request_.wait_for_cancellation()) return Finish(ToAbsl(request_.end()));
    waits_ = true;
    if (context_->IsCancelled()) FinishCancelled();
  }
  void FinishCancelled() {
    if (std::exchange(finished_, true)) return;
    Finish(NoteCancelled(*context_, counters_));
  }

  const Life life_;
  ServerContext* const context_;
  const CountRequest request_;
  StreamCounters* const counters_;
  uint64_t next_ = 0;
  bool waits_ = false;
  bool finished_ = false;
  Item item_;
};

class SumReactor final : public ServerReadReactor<Item> {
 public:
  SumReactor(ServerContext* context, SumReply* reply, StreamCounters* counters)
      : life_(counters), context_(context), reply_(reply), counters_(counters) {
    StartRead(&item_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(context_->IsCancelled() ? NoteCancelled(*context_, counters_) : absl::OkStatus());
    counters_->items_read.Increment();
    if (item_.has_end()) return Finish(ToAbsl(item_.end()));
    reply_->set_count(reply_->count() + 1);
    reply_->set_sum(reply_->sum() + item_.number());
    StartRead(&item_);
  }
  void OnDone() override { delete this; }

 private:
  const Life life_;
  ServerContext* const context_;
  SumReply* const reply_;
  StreamCounters* const counters_;
  Item item_;
};

class ChatReactor final : public ServerBidiReactor<Item, Item> {
 public:
  ChatReactor(ServerContext* context, StreamCounters* counters)
      : life_(counters), context_(context), counters_(counters) {
    StartRead(&item_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(context_->IsCancelled() ? NoteCancelled(*context_, counters_) : absl::OkStatus());
    counters_->items_read.Increment();
    if (item_.has_end()) return Finish(ToAbsl(item_.end()));
    StartWrite(&item_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(NoteCancelled(*context_, counters_));
    counters_->items_sent.Increment();
    StartRead(&item_);
  }
  void OnDone() override { delete this; }

 private:
  const Life life_;
  ServerContext* const context_;
  StreamCounters* const counters_;
  Item item_;
};

class CallbackStreams final : public Streams::CallbackService {
 public:
  explicit CallbackStreams(StreamCounters* counters) : counters_(counters) {}

  ServerWriteReactor<Item>* Count(ServerContext* context, const CountRequest* request) override {
    return new CountReactor(context, request, counters_);
  }
  ServerReadReactor<Item>* Sum(ServerContext* context, SumReply* reply) override {
    return new SumReactor(context, reply, counters_);
  }
  ServerBidiReactor<Item, Item>* Chat(ServerContext* context) override { return new ChatReactor(context, counters_); }

 private:
  StreamCounters* const counters_;
};

class CoroutineStreams final : public Streams::CoService {
 public:
  explicit CoroutineStreams(StreamCounters* counters) : counters_(counters) {}

  Task<absl::Status> Count(ServerContext* context, const CountRequest* request, CoServerWriter<Item>* writer) override {
    const Life life(counters_);
    AddMetadata(*request, context);
    writer->SendInitialMetadata();
    for (uint64_t i = 0; i < request->count(); ++i) {
      const Item item = CountedItem(*request, i);
      if (!co_await writer->Write(item)) co_return NoteCancelled(*context, counters_);
      counters_->items_sent.Increment();
    }
    while (request->wait_for_cancellation()) {
      if (context->IsCancelled()) co_return NoteCancelled(*context, counters_);
      co_await Sleep(absl::Milliseconds(1));
    }
    co_return ToAbsl(request->end());
  }

  Task<absl::Status> Sum(ServerContext* context, CoServerReader<Item>* reader, SumReply* reply) override {
    const Life life(counters_);
    for (;;) {
      const std::optional<Item> item = co_await reader->Read();
      if (!item.has_value()) break;
      counters_->items_read.Increment();
      if (item->has_end()) co_return ToAbsl(item->end());
      reply->set_count(reply->count() + 1);
      reply->set_sum(reply->sum() + item->number());
    }
    if (context->IsCancelled()) co_return NoteCancelled(*context, counters_);
    co_return absl::OkStatus();
  }

  Task<absl::Status> Chat(ServerContext* context, CoServerReaderWriter<Item, Item>* stream) override {
    const Life life(counters_);
    for (;;) {
      const std::optional<Item> item = co_await stream->Read();
      if (!item.has_value()) break;
      counters_->items_read.Increment();
      if (item->has_end()) co_return ToAbsl(item->end());
      if (!co_await stream->Write(*item)) break;
      counters_->items_sent.Increment();
    }
    if (context->IsCancelled()) co_return NoteCancelled(*context, counters_);
    co_return absl::OkStatus();
  }

 private:
  StreamCounters* const counters_;
};

}  // namespace

std::string StyleName(ServerStyle style) {
  switch (style) {
    case ServerStyle::kSynchronous:
      return "synchronous";
    case ServerStyle::kCallback:
      return "callback";
    case ServerStyle::kCoroutine:
      break;
  }
  return "coroutine";
}

std::unique_ptr<shmrpc::Service> MakeStreamService(ServerStyle style, StreamCounters* counters) {
  switch (style) {
    case ServerStyle::kSynchronous:
      return std::make_unique<SynchronousStreams>(counters);
    case ServerStyle::kCallback:
      return std::make_unique<CallbackStreams>(counters);
    case ServerStyle::kCoroutine:
      break;
  }
  return std::make_unique<CoroutineStreams>(counters);
}

}  // namespace shmrpc::conformance
