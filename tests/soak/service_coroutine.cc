#include "tests/soak/services.h"

namespace shmrpc::soak {
namespace {

class CoroutineService final : public Soak::CoService {
 public:
  explicit CoroutineService(const ServerEnvironment& environment) : environment_(environment) {}

  Task<absl::Status> Unary(ServerContext* context, const Request* request, Reply* reply) override {
    HandlerCall call(environment_, context, request);
    co_await Sleep(call.work());
    call.MakeReply(reply);
    co_return call.End(/*all=*/true);
  }

  Task<absl::Status> Upload(ServerContext* context, CoServerReader<Item>* reader, Reply* reply) override {
    HandlerCall call(environment_, context, nullptr);
    co_await Sleep(call.work());
    for (;;) {
      const std::optional<Item> item = co_await reader->Read();
      if (!item.has_value()) break;
      call.TakeItem(*item);
    }
    call.MakeReply(reply);
    co_return call.EndOfItems();
  }

  Task<absl::Status> Download(ServerContext* context, const Request* request, CoServerWriter<Item>* writer) override {
    HandlerCall call(environment_, context, request);
    co_await Sleep(call.work());
    Item item;
    while (call.HasMoreItems()) {
      call.MakeItem(&item);
      if (!co_await writer->Write(item)) co_return call.End(/*all=*/false);
    }
    co_return call.End(/*all=*/true);
  }

  Task<absl::Status> Chat(ServerContext* context, CoServerReaderWriter<Item, Item>* stream) override {
    HandlerCall call(environment_, context, nullptr);
    co_await Sleep(call.work());
    Item written;
    for (;;) {
      const std::optional<Item> item = co_await stream->Read();
      if (!item.has_value()) break;
      call.TakeItem(*item);
      call.MakeItem(&written);
      if (!co_await stream->Write(written)) co_return call.End(/*all=*/false);
    }
    co_return call.EndOfItems();
  }

 private:
  const ServerEnvironment& environment_;
};

}  // namespace

std::unique_ptr<Service> MakeCoroutineService(const ServerEnvironment& environment) {
  return std::make_unique<CoroutineService>(environment);
}

}  // namespace shmrpc::soak
