#ifndef SHMRPC_TRANSPORTS_AUTO_SERVER_HANDSHAKE_H_
#define SHMRPC_TRANSPORTS_AUTO_SERVER_HANDSHAKE_H_

#include <memory>
#include <string>
#include <vector>

#include "runtime/src/deadline_timer.h"
#include "transports/auto/auto_listener.h"
#include "transports/auto/hello.h"
#include "transports/framed/poller.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::autoselect {

// A connection whose client has not said yet who it is. Ends as a session, or closed: after the time-out, or when what
// the client says is not a hello. A client of HTTP/1 is answered in its protocol; the connection is then kept until it
// hangs up, or the time-out, because to close it with unread bytes would take the answer back.
class ServerHandshake final : public framed::Pollable {
 public:
  // `listener` outlives it.
  ServerHandshake(AutoListener* listener, framed::UniqueFd socket, AutoListener::Door door, Peer peer,
                  internal::ConnectionLimiter::PlacePtr place);
  ~ServerHandshake() override;

  absl::Status Start();
  // Hangs up, which ends the handshake soon.
  void Abort();

  int fd() const override { return fd_; }
  void OnEvents(uint32_t) override {}
  Outcome Poll(bool scanning, framed::Task** task) override;
  bool Park() override { return true; }  // everything there was has been read, and epoll reports what comes

 private:
  enum class Progress { kMore, kOver };
  Progress ReadHello();
  // Has the connection served of a client that speaks HTTP/2.
  Progress HandOverHttp2();
  // Tells the client in its own protocol, and goes on to throw away what it sends until it hangs up.
  Progress SayFarewell(const std::string& answer);
  Progress Discard();
  void Answer(const wire::ClientHello& client);
  // The answer to a client whose calls cannot come over shared memory where the server takes no others.
  void RefuseWithoutShm(wire::ServerHello* answer, std::string_view reason);
  // Why a client over TCP cannot go on to shared memory; empty: it can.
  std::string WhyNoRendezvous(const wire::ClientHello& client, bool near, const absl::StatusOr<std::string>& host_id);
  std::unique_ptr<framed::Link> AcceptShm(const wire::ClientHello& client, wire::ServerHello* answer);
  void RefuseFor(const absl::Status& reason);
  void Finish();

  AutoListener* const listener_;
  const AutoListener::Door door_;
  const int fd_;
  framed::PollRight right_;
  bool over_ = false;        // with right_
  bool discarding_ = false;  // with right_: the client has been told that it is not served
  size_t discarded_ = 0;     // with right_
  HelloReader reader_;
  std::vector<framed::UniqueFd> received_fds_;
  Peer peer_;
  internal::ConnectionLimiter::PlacePtr place_;  // with right_; until it is the session's

  Mutex mutex_;
  bool answering_ ABSL_GUARDED_BY(mutex_) = false;   // the hello has come, and Abort is too late
  framed::UniqueFd socket_ ABSL_GUARDED_BY(mutex_);  // until it is a link's
  internal::DeadlineTimer::Handle timeout_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::autoselect

#endif  // SHMRPC_TRANSPORTS_AUTO_SERVER_HANDSHAKE_H_
