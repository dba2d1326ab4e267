#ifndef SHMRPC_TRANSPORTS_FRAMED_WAKE_EVENT_H_
#define SHMRPC_TRANSPORTS_FRAMED_WAKE_EVENT_H_

#include "transports/framed/unique_fd.h"

namespace shmrpc::framed {

// By what a thread that sleeps on a descriptor is woken by another thread: an eventfd, for as long as the sleep lasts.
// So a program has as many as threads sleep at the same time, at most one for each connection, however many threads
// have ever slept. A few unused ones are kept for the process, because a sleep is not worth two system calls more. The
// child of a fork() shares none with its parent.
class WakeEvent {
 public:
  WakeEvent();
  ~WakeEvent();
  WakeEvent(const WakeEvent&) = delete;
  WakeEvent& operator=(const WakeEvent&) = delete;

  // To be polled for POLLIN; -1 when the process has no descriptor left.
  int fd() const { return fd_.get(); }

  // Makes `fd` readable until the end of the WakeEvent, which is to be kept from ending meanwhile.
  static void Signal(int fd);

 private:
  UniqueFd fd_;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_WAKE_EVENT_H_
