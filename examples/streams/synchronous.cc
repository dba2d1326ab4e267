// Streams in the synchronous style: handlers and callers block until there is a message, or room for one. Each handler
// and each caller occupies a thread meanwhile.

#include <iostream>
#include <memory>

#include "numbers.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"

using numbers::Number;
using numbers::Numbers;

namespace {

class NumbersImpl final : public Numbers::Service {
 public:
  absl::Status CountTo(shmrpc::ServerContext*, const Number* request, shmrpc::ServerWriter<Number>* writer) override {
    Number number;
    while (number.value() < request->value()) {
      number.set_value(number.value() + 1);
      if (!writer->Write(number)) return absl::CancelledError("nobody is listening any more");
    }
    return absl::OkStatus();
  }

  absl::Status Sum(shmrpc::ServerContext*, shmrpc::ServerReader<Number>* reader, Number* reply) override {
    Number number;
    while (reader->Read(&number)) reply->set_value(reply->value() + number.value());
    return absl::OkStatus();
  }

  absl::Status Square(shmrpc::ServerContext*, shmrpc::ServerReaderWriter<Number, Number>* stream) override {
    Number number;
    while (stream->Read(&number)) {
      number.set_value(number.value() * number.value());
      if (!stream->Write(number)) break;
    }
    return absl::OkStatus();
  }
};

absl::Status Call(Numbers::Stub& stub) {
  Number limit;
  limit.set_value(10);
  shmrpc::ClientContext count_context;
  const auto reader = stub.CountTo(&count_context, limit);

  Number sum;
  shmrpc::ClientContext sum_context;
  const auto writer = stub.Sum(&sum_context, &sum);

  shmrpc::ClientContext square_context;
  const auto squares = stub.Square(&square_context);

  Number number;
  while (reader->Read(&number)) {
    writer->Write(number);  // false: the call is over, and Finish tells why
    squares->Write(number);
    if (squares->Read(&number)) std::cout << number.value() << " ";
  }
  squares->WritesDone();
  absl::Status status = reader->Finish();
  status.Update(squares->Finish());
  status.Update(writer->Finish());
  if (status.ok()) std::cout << "are squares; the sum of the numbers is " << sum.value() << std::endl;
  return status;
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
  const absl::Status status = Call(stub);
  if (!status.ok()) std::cerr << status << std::endl;
  return status.ok() ? 0 : 1;
}
