#include "absl/time/clock.h"
#include "tests/soak/services.h"

namespace shmrpc::soak {
namespace {

class BlockingService final : public Soak::Service {
 public:
  explicit BlockingService(const ServerEnvironment& environment) : environment_(environment) {}

  absl::Status Unary(ServerContext* context, const Request* request, Reply* reply) override {
    HandlerCall call(environment_, context, request);
    absl::SleepFor(call.work());
    call.MakeReply(reply);
    return call.End(/*all=*/true);
  }

  absl::Status Upload(ServerContext* context, ServerReader<Item>* reader, Reply* reply) override {
    HandlerCall call(environment_, context, nullptr);
    absl::SleepFor(call.work());
    Item item;
    while (reader->Read(&item)) call.TakeItem(item);
    call.MakeReply(reply);
    return call.EndOfItems();
  }

  absl::Status Download(ServerContext* context, const Request* request, ServerWriter<Item>* writer) override {
    HandlerCall call(environment_, context, request);
    absl::SleepFor(call.work());
    Item item;
    while (call.HasMoreItems()) {
      call.MakeItem(&item);
      if (!writer->Write(item)) return call.End(/*all=*/false);
    }
    return call.End(/*all=*/true);
  }

  absl::Status Chat(ServerContext* context, ServerReaderWriter<Item, Item>* stream) override {
    HandlerCall call(environment_, context, nullptr);
    absl::SleepFor(call.work());
    Item item;
    while (stream->Read(&item)) {
      call.TakeItem(item);
      call.MakeItem(&item);
      if (!stream->Write(item)) return call.End(/*all=*/false);
    }
    return call.EndOfItems();
  }

 private:
  const ServerEnvironment& environment_;
};

}  // namespace

std::unique_ptr<Service> MakeBlockingService(const ServerEnvironment& environment) {
  return std::make_unique<BlockingService>(environment);
}

}  // namespace shmrpc::soak
