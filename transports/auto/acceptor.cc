#include "transports/auto/acceptor.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/src/log.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::autoselect {
namespace {

constexpr absl::Duration kPause = absl::Milliseconds(100);

}  // namespace

Acceptor::Acceptor(tcp::ListeningSocket socket, framed::Poller* poller, std::function<void(framed::UniqueFd)> accepted)
    : socket_(std::move(socket)), poller_(poller), accepted_(std::move(accepted)) {}

Acceptor::~Acceptor() { Stop(); }

void Acceptor::Stop() {
  stopped_ = true;
  internal::DeadlineTimer::Handle retry;
  {
    MutexLock lock(&mutex_);
    retry = std::exchange(retry_, {});
  }
  internal::DeadlineTimer::Get().Cancel(retry);
}

framed::Pollable::Outcome Acceptor::Poll(framed::Visit* visit, framed::Task**) {
  do {
    if (!right_.TryAcquire()) return Outcome::kElsewhere;
    while (!stopped_) {
      absl::StatusOr<std::optional<framed::UniqueFd>> socket = tcp::AcceptSocket(socket_.fd());
      if (socket.ok()) {
        if (!socket->has_value()) break;
        accepted_(**std::move(socket));
        if (visit->Spend(framed::Visit::kSlowUnits)) continue;
        (void)right_.Release();
        return Outcome::kMore;
      }
      static internal::LogLimiter limiter;
      internal::LogWarningLimited(limiter, absl::StrCat("cannot accept connections on ", socket_.bound().ToString(),
                                                        ": ", socket.status().message()));
      if (!absl::IsResourceExhausted(socket.status())) {
        stopped_ = true;
        break;
      }
      MutexLock lock(&mutex_);
      if (stopped_) break;
      retry_ = internal::DeadlineTimer::Get().Schedule(SteadyTime::Now() + kPause, [this, weak = weak_from_this()] {
        if (auto self = weak.lock()) poller_->Kick(self);
      });
      break;
    }
  } while (right_.Release());
  return stopped_ ? Outcome::kOver : Outcome::kEmpty;
}

}  // namespace shmrpc::autoselect
