#ifndef SHMRPC_TESTS_FAULT_KILL_PHASES_H_
#define SHMRPC_TESTS_FAULT_KILL_PHASES_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "shmrpc/shmrpc.h"

namespace shmrpc::conformance {

// What a client does while it, or its server, is killed. All over shared memory that a TCP address led to.
inline constexpr const char* kKillPhases[] = {
    "attach",  // connects
    "call",    // a synchronous call with a small message
    "large",   // one whose message comes in pieces
    "async",   // an asynchronous call
    "stream",  // opens a stream, sends and reads three items, ends it
    "detach",  // lets go of the channel
};

// The phase, in two steps: Prepare brings about what has to be there before. Used by one thread.
class KillPhase {
 public:
  explicit KillPhase(std::string name) : name_(std::move(name)) {}

  // Uses `channel`, if it is not null and the phase is one that needs a connection, or else makes one to `address`.
  absl::Status Prepare(const std::string& address, std::shared_ptr<Channel> channel);

  // OK, with replies that are what they ought to be; DATA_LOSS if they are not; or what came of the call.
  absl::Status Run();

  // Whether it begins and ends with a connection.
  bool KeepsItsConnection() const { return name_ != "attach" && name_ != "detach"; }

  const std::shared_ptr<Channel>& channel() const { return channel_; }

  static ChannelOptions Options();

 private:
  absl::Status CallAsynchronously();
  absl::Status Chat();

  const std::string name_;
  std::string address_;
  std::shared_ptr<Channel> channel_;
  std::string payload_;
};

}  // namespace shmrpc::conformance

#endif  // SHMRPC_TESTS_FAULT_KILL_PHASES_H_
