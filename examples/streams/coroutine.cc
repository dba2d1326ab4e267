// Streams as coroutines: code that reads like the synchronous style, and keeps no thread while it waits.

#include <iostream>
#include <memory>

#include "numbers.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"

using numbers::Number;
using numbers::Numbers;

namespace {

class NumbersImpl final : public Numbers::CoService {
 public:
  shmrpc::Task<absl::Status> CountTo(shmrpc::ServerContext*, const Number* request,
                                     shmrpc::CoServerWriter<Number>* writer) override {
    Number number;
    while (number.value() < request->value()) {
      number.set_value(number.value() + 1);
      if (!co_await writer->Write(number)) co_return absl::CancelledError("nobody is listening any more");
    }
    co_return absl::OkStatus();
  }

  shmrpc::Task<absl::Status> Sum(shmrpc::ServerContext*, shmrpc::CoServerReader<Number>* reader,
                                 Number* reply) override {
    while (std::optional<Number> number = co_await reader->Read()) reply->set_value(reply->value() + number->value());
    co_return absl::OkStatus();
  }

  shmrpc::Task<absl::Status> Square(shmrpc::ServerContext*,
                                    shmrpc::CoServerReaderWriter<Number, Number>* stream) override {
    while (std::optional<Number> number = co_await stream->Read()) {
      number->set_value(number->value() * number->value());
      if (!co_await stream->Write(*number)) break;
    }
    co_return absl::OkStatus();
  }
};

shmrpc::Task<absl::Status> Call(Numbers::Stub& stub) {
  Number limit;
  limit.set_value(10);
  shmrpc::ClientContext count_context;
  auto reader = stub.co().CountTo(&count_context, limit);
  shmrpc::ClientContext sum_context;
  auto writer = stub.co().Sum(&sum_context);
  shmrpc::ClientContext square_context;
  auto squares = stub.co().Square(&square_context);

  while (std::optional<Number> number = co_await reader.Read()) {
    co_await writer.Write(*number);  // false: the call is over, and Finish tells why
    co_await squares.Write(*number);
    const std::optional<Number> square = co_await squares.Read();
    if (square.has_value()) std::cout << square->value() << " ";
  }
  absl::Status status = co_await reader.Finish();
  status.Update(co_await squares.Finish());
  const absl::StatusOr<Number> sum = co_await writer.Finish();
  status.Update(sum.status());
  if (status.ok()) std::cout << "are squares; the sum of the numbers is " << sum->value() << std::endl;
  co_return status;
}

}  // namespace

int main() {
  NumbersImpl service;
  const auto server = shmrpc::ServerBuilder().Listen("127.0.0.1:0").Register(&service).Start();
  if (!server.ok()) {
    std::cerr << server.status() << std::endl;
    return 1;
  }
  Numbers::Stub stub(shmrpc::Channel::Create((*server)->addresses().front().ToString()));
  const absl::Status status = shmrpc::SyncWait(Call(stub));
  if (!status.ok()) std::cerr << status << std::endl;
  return status.ok() ? 0 : 1;
}
