#ifndef SHMRPC_TESTS_SOAK_HANDLER_CALL_H_
#define SHMRPC_TESTS_SOAK_HANDLER_CALL_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shmrpc/shmrpc.h"
#include "tests/soak/board.h"
#include "tests/soak/soak.shmrpc.pb.h"

namespace shmrpc::soak {

// What the handlers of one server process share.
struct ServerEnvironment {
  Board* board;
  int server;
  uint32_t incarnation;
  uint32_t kills;  // of processes before this one
};

// One call as its handler sees it, in whatever style: checks what is received, makes what is sent. For one thread, or
// reaction, at a time.
class HandlerCall {
 public:
  // Notes that the call's handler runs. `request` is null if the client streams. Both, and the context, outlive it.
  HandlerCall(const ServerEnvironment& environment, ServerContext* context, const Request* request);

  const Job& job() const { return job_; }
  absl::Duration work() const { return absl::Microseconds(job_.work_us()); }

  void TakeItem(const Item& item);
  bool HasMoreItems() const { return items_made_ < job_.items(); }
  void MakeItem(Item* item);
  void MakeReply(Reply* reply) const;

  // What the handler returns. `all`: it has received and sent everything; otherwise a read or a write has failed.
  absl::Status End(bool all) const;
  // The same for a handler whose reads have come to an end.
  absl::Status EndOfItems() const;

 private:
  void Answer(Answerer* answerer) const;
  void Fail(absl::string_view what) const;

  const ServerEnvironment& environment_;
  ServerContext* const context_;
  Job job_;
  uint32_t items_taken_ = 0;
  uint32_t items_made_ = 0;
};

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_HANDLER_CALL_H_
