#ifndef SHMRPC_RUNTIME_SRC_ANSWERED_CALL_H_
#define SHMRPC_RUNTIME_SRC_ANSWERED_CALL_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "shmrpc/mutex.h"
#include "shmrpc/transport.h"

namespace shmrpc::internal {

class AnsweredCall;

// What an interceptor has answered a streaming call with.
struct CallAnswer {
  std::vector<std::string> replies;  // encoded messages, in their order
  absl::Status status;               // after them
};

// Stands for the server of one call that an interceptor has answered: so streams of all styles read the answer as they
// read a server's. Messages that the client sends are taken and thrown away. The replies of a method that streams them
// come as they are asked for; the reply of one that does not comes when the client half-closes.
//
// Thread-safe. Its end ends the call.
class AnsweredConnection final : public Connection {
 public:
  explicit AnsweredConnection(CallAnswer answer) : answer_(std::move(answer)) {}
  ~AnsweredConnection() override;

  // Once.
  void StartCall(const CallSpec& spec, const OutgoingMessage* request, CallEvents* events,
                 std::atomic<Call*>* call) override;
  const TransportChoice& choice() const override { return choice_; }
  const Peer& peer() const override { return peer_; }
  bool IsOver() override { return false; }
  absl::Status reason_over() const override { return absl::OkStatus(); }

 private:
  const TransportChoice choice_ = {"none", "an interceptor answered"};
  const Peer peer_;
  CallAnswer answer_;
  Mutex mutex_;
  std::weak_ptr<AnsweredCall> call_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_ANSWERED_CALL_H_
