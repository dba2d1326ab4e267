#ifndef SHMRPC_TESTS_UNIT_RUNTIME_TEST_REACTORS_H_
#define SHMRPC_TESTS_UNIT_RUNTIME_TEST_REACTORS_H_

// Reactors for tests. They note what is done to them, and that it is done one at a time.

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "shmrpc/server_reactor.h"
#include "tests/unit/runtime_fake_server_call.h"
#include "tests/unit/runtime_sync.h"

namespace shmrpc::testing {

// What the reactors of a test did. Reactors delete themselves; this stays.
struct Log {
  std::atomic<int> cancels{0};
  std::atomic<int> dones{0};
  std::atomic<int> reactions_at_once{0};
  Event done;
};

// Marks that a reaction runs, and that no other does.
class Reaction {
 public:
  explicit Reaction(Log* log) : log_(log) { EXPECT_EQ(log_->reactions_at_once.fetch_add(1), 0); }
  ~Reaction() { log_->reactions_at_once.fetch_sub(1); }

 private:
  Log* const log_;
};

// Notes the end.
template <typename Base>
class Logged : public Base {
 public:
  explicit Logged(Log* log) : log_(log) {}
  void OnCancel() override {
    Reaction reaction(log_);
    ++log_->cancels;
    EXPECT_EQ(log_->dones, 0);
    Cancelled();
  }
  void OnDone() override {
    Log* const log = log_;
    {
      Reaction reaction(log);
      EXPECT_EQ(++log->dones, 1);
      delete this;
    }
    log->done.Set();
  }

 protected:
  virtual void Cancelled() { this->Finish(absl::CancelledError("seen")); }
  Log* log() { return log_; }

 private:
  Log* const log_;
};

// Writes the letters of the request, one message each.
class Letters final : public Logged<ServerWriteReactor<StringValue>> {
 public:
  Letters(Log* log, std::string letters) : Logged(log), letters_(std::move(letters)) { Next(); }
  void OnWriteDone(bool ok) override {
    Reaction reaction(log());
    if (!ok) return Finish(absl::AbortedError("a write failed"));
    Next();
  }

 private:
  void Cancelled() override {}  // the write that fails finishes
  void Next() {
    message_.set_value(letters_.substr(next_, 1));
    if (next_ + 1 >= letters_.size()) return StartWriteAndFinish(&message_, absl::OkStatus());
    ++next_;
    StartWrite(&message_);
  }

  const std::string letters_;
  size_t next_ = 0;
  StringValue message_;
};

// Replies with all texts.
class Concatenation final : public Logged<ServerReadReactor<StringValue>> {
 public:
  Concatenation(Log* log, StringValue* reply) : Logged(log), reply_(reply) { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    Reaction reaction(log());
    if (!ok) return Finish(absl::OkStatus());
    reply_->set_value(reply_->value() + message_.value());
    StartRead(&message_);
  }

 private:
  void Cancelled() override {}

  StringValue* const reply_;
  StringValue message_;
};

class EchoReactor final : public Logged<ServerBidiReactor<StringValue, StringValue>> {
 public:
  explicit EchoReactor(Log* log) : Logged(log) { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    Reaction reaction(log());
    if (!ok) return Finish(absl::OkStatus());
    StartWrite(&message_);
  }
  void OnWriteDone(bool ok) override {
    Reaction reaction(log());
    if (!ok) return Finish(absl::AbortedError("a write failed"));
    StartRead(&message_);
  }

 private:
  void Cancelled() override {}

  StringValue message_;
};

inline KindsService::React AllKinds(Log* log) {
  return [log](ServerContext* context, const StringValue* request, StringValue* reply) -> ServerReactor* {
    if (request != nullptr && reply != nullptr) {
      reply->set_value(request->value());
      ServerUnaryReactor* const reactor = context->DefaultReactor();
      reactor->Finish(absl::OkStatus());
      return reactor;
    }
    if (request != nullptr) return new Letters(log, request->value());
    if (reply != nullptr) return new Concatenation(log, reply);
    return new EchoReactor(log);
  };
}

// A reactor that another thread works with.
class Foreign final : public Logged<ServerBidiReactor<StringValue, StringValue>> {
 public:
  explicit Foreign(Log* log) : Logged(log) {}
  void OnReadDone(bool ok) override {
    Reaction reaction(log());
    MutexLock lock(&mutex);
    read_done.Set();
  }
  void OnWriteDone(bool ok) override {
    Reaction reaction(log());
    MutexLock lock(&mutex);
    write_ok = ok;
    write_done.Set();
  }

  Mutex mutex;
  Event read_done;
  Event write_done;
  std::atomic<bool> write_ok{false};
};

// Creates Foreign reactors and shows them to the test.
class ForeignService {
 public:
  explicit ForeignService(Log* log)
      : service([this, log](ServerContext*, const StringValue*, StringValue*) -> ServerReactor* {
          reactor_ = new Foreign(log);
          made_.Set();
          return reactor_;
        }) {}
  Foreign* WaitForReactor() {
    EXPECT_TRUE(made_.Wait());
    return reactor_;
  }

 private:
  Foreign* reactor_ = nullptr;
  Event made_;

 public:
  KindsService service;
};

}  // namespace shmrpc::testing

#endif  // SHMRPC_TESTS_UNIT_RUNTIME_TEST_REACTORS_H_
