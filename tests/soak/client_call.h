#ifndef SHMRPC_TESTS_SOAK_CLIENT_CALL_H_
#define SHMRPC_TESTS_SOAK_CLIENT_CALL_H_

// One call of a client, whatever its kind and style: makes what is sent, checks what is received, and judges the end.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "shmrpc/shmrpc.h"
#include "tests/soak/board.h"
#include "tests/soak/plan.h"
#include "tests/soak/soak.shmrpc.pb.h"
#include "tests/soak/verdict.h"

namespace shmrpc::soak {

// What the calls of one client process share.
struct ClientEnvironment {
  Board* board;
  ClientState* state;
  bool proves_not_processed;
};

// A channel to one of the servers, and what calls have found out about it. Thread-safe, but for Drop.
class SoakChannel {
 public:
  SoakChannel(std::shared_ptr<Channel> channel, int server, const ClientEnvironment& environment)
      : server_(server), created_(SteadyTime::Now()), channel_(std::move(channel)), stub_(channel_) {
    environment.state->channels.fetch_add(1);
  }

  int server() const { return server_; }
  SteadyTime created() const { return created_; }
  Soak::Stub& stub() { return *stub_; }

  // Lets go of the channel while calls are in progress on it. Nobody begins another one.
  void Drop() {
    stub_.reset();
    channel_.reset();
  }

  Confirmed confirmed() const {
    MutexLock lock(&mutex_);
    return confirmed_;
  }
  // A server process has answered.
  void Confirm(const Confirmed& confirmed) {
    MutexLock lock(&mutex_);
    if (confirmed.incarnation >= confirmed_.incarnation) confirmed_ = confirmed;
  }

 private:
  const int server_;
  const SteadyTime created_;
  std::shared_ptr<Channel> channel_;
  std::optional<Soak::Stub> stub_;
  mutable Mutex mutex_;
  Confirmed confirmed_ ABSL_GUARDED_BY(mutex_);
};

// The call must be over when this object goes. What is not said to be thread-safe is for the call's own thread,
// callback or coroutine; items may be written and read at the same time.
class ClientCall {
 public:
  // The environment and the channel outlive it.
  ClientCall(const Plan& plan, SoakChannel* channel, const ClientEnvironment& environment);
  ClientCall(const ClientCall&) = delete;
  ClientCall& operator=(const ClientCall&) = delete;

  const Plan& plan() const { return facts_.plan; }
  SoakChannel& channel() { return *channel_; }
  ClientContext* context() { return &context_; }

  // Of calls whose client does not stream: the one request, made once.
  const Request& request();
  // Makes the client's item number `number`, for Write.
  void MakeItem(uint32_t number, Item* item);
  // Checks the server's next item.
  void TakeItem(const Item& item);
  // Whether to go on reading.
  bool WantsItems() const { return !plan().read_items.has_value() || items_taken_ < *plan().read_items; }
  Reply* reply() { return &reply_; }

  // Somebody is about to destroy the call's channel or stream. Thread-safe.
  void NoteCancelled() { cancelled_.store(true); }
  // Thread-safe, also before the call begins and after its end.
  void Cancel() {
    NoteCancelled();
    context_.TryCancel();
  }

  // The call has ended, and the reply, if there is one, is in reply(). Judges it. Exactly once.
  void End(const absl::Status& status);
  // The same of a stream that was destroyed before its end.
  void Abandon();

 private:
  void FillJob(Job* job) const;
  void CheckReply();
  void CheckMetadata();
  void Confirm(const Answerer& answerer);
  void Count(int outcome);
  void Fail(absl::string_view what);

  const ClientEnvironment& environment_;
  SoakChannel* const channel_;
  CallFacts facts_;
  ClientContext context_;
  std::unique_ptr<Request> request_;
  Reply reply_;
  std::atomic<bool> cancelled_{false};
  std::atomic<int> ends_{0};
  uint32_t items_taken_ = 0;
};

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_CLIENT_CALL_H_
