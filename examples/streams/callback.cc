// Streams in the callback style: operations are started, and answered by a method of a reactor when they are complete.
// No thread is kept while anything waits.

#include <condition_variable>
#include <iostream>
#include <memory>
#include <mutex>

#include "numbers.shmrpc.pb.h"
#include "shmrpc/shmrpc.h"

using numbers::Number;
using numbers::Numbers;

namespace {

class CountReactor final : public shmrpc::ServerWriteReactor<Number> {
 public:
  explicit CountReactor(int64_t limit) : limit_(limit) { OnWriteDone(true); }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(absl::CancelledError("nobody is listening any more"));
    if (number_.value() == limit_) return Finish(absl::OkStatus());
    number_.set_value(number_.value() + 1);
    StartWrite(&number_);
  }
  void OnDone() override { delete this; }

 private:
  const int64_t limit_;
  Number number_;
};

class SumReactor final : public shmrpc::ServerReadReactor<Number> {
 public:
  explicit SumReactor(Number* reply) : reply_(reply) { StartRead(&number_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(absl::OkStatus());
    reply_->set_value(reply_->value() + number_.value());
    StartRead(&number_);
  }
  void OnDone() override { delete this; }

 private:
  Number* const reply_;
  Number number_;
};

class SquareReactor final : public shmrpc::ServerBidiReactor<Number, Number> {
 public:
  SquareReactor() { StartRead(&number_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(absl::OkStatus());
    number_.set_value(number_.value() * number_.value());
    StartWrite(&number_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(absl::CancelledError("nobody is listening any more"));
    StartRead(&number_);
  }
  void OnDone() override { delete this; }

 private:
  Number number_;
};

class NumbersImpl final : public Numbers::CallbackService {
 public:
  shmrpc::ServerWriteReactor<Number>* CountTo(shmrpc::ServerContext*, const Number* request) override {
    return new CountReactor(request->value());
  }
  shmrpc::ServerReadReactor<Number>* Sum(shmrpc::ServerContext*, Number* reply) override {
    return new SumReactor(reply);
  }
  shmrpc::ServerBidiReactor<Number, Number>* Square(shmrpc::ServerContext*) override { return new SquareReactor; }
};

// Sends the numbers up to a limit, and prints the squares that come back.
class SquarePrinter final : public shmrpc::ClientBidiReactor<Number, Number> {
 public:
  SquarePrinter(Numbers::Stub& stub, int64_t limit) : limit_(limit) {
    stub.async().Square(&context_, this);
    Next();
    StartRead(&square_);
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    if (ok) Next();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    std::cout << square_.value() << " ";
    StartRead(&square_);
  }
  void OnDone(const absl::Status& status) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    status_ = status;
    done_ = true;
    changed_.notify_all();
  }

  absl::Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    return status_;
  }

 private:
  void Next() {
    if (number_.value() == limit_) return StartWritesDone();
    number_.set_value(number_.value() + 1);
    StartWrite(&number_);
  }

  const int64_t limit_;
  shmrpc::ClientContext context_;
  Number number_;
  Number square_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  absl::Status status_;
};

}  // namespace

int main() {
  NumbersImpl service;
  const auto server = shmrpc::ServerBuilder().Listen("127.0.0.1:0").Register(&service).Start();
  if (!server.ok()) {
    std::cerr << server.status() << std::endl;
    return 1;
  }
  Numbers::Stub stub(shmrpc::Channel::Create((*server)->addresses().front().ToString()));
  SquarePrinter printer(stub, 10);
  const absl::Status status = printer.Wait();
  if (!status.ok()) {
    std::cerr << status << std::endl;
    return 1;
  }
  // The styles of the two sides need not be the same: this client waits for a server that does not.
  Number sum;
  shmrpc::ClientContext context;
  const auto writer = stub.Sum(&context, &sum);
  Number number;
  for (int64_t i = 1; i <= 10; ++i) {
    number.set_value(i);
    writer->Write(number);
  }
  if (!writer->Finish().ok()) return 1;
  std::cout << "are squares; the sum of the numbers is " << sum.value() << std::endl;
  return 0;
}
