#ifndef SHMRPC_TRANSPORTS_AUTO_ACCEPTOR_H_
#define SHMRPC_TRANSPORTS_AUTO_ACCEPTOR_H_

#include <functional>
#include <utility>

#include "runtime/src/deadline_timer.h"
#include "transports/framed/poller.h"
#include "transports/framed/unique_fd.h"
#include "transports/tcp/listening_socket.h"

namespace shmrpc::autoselect {

// Takes the connections that come to one listening socket. When the process has no descriptors left it pauses instead
// of spinning, and goes on when there are some again.
class Acceptor final : public framed::Pollable {
 public:
  // `accepted` is called with each connection, by one thread at a time. It and `poller` outlive the acceptor's use by
  // the poller.
  Acceptor(tcp::ListeningSocket socket, framed::Poller* poller, std::function<void(framed::UniqueFd)> accepted);
  ~Acceptor() override;

  // Stops accepting; the socket stays open until the destructor.
  void Stop();

  int fd() const override { return socket_.fd(); }
  void OnEvents(uint32_t) override {}
  Outcome Poll(framed::Visit* visit, framed::Task** task) override;
  bool Park() override { return true; }  // epoll reports each new connection

 private:
  const tcp::ListeningSocket socket_;
  framed::Poller* const poller_;
  const std::function<void(framed::UniqueFd)> accepted_;
  framed::PollRight right_;
  std::atomic<bool> stopped_{false};
  Mutex mutex_;
  internal::DeadlineTimer::Handle retry_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::autoselect

#endif  // SHMRPC_TRANSPORTS_AUTO_ACCEPTOR_H_
