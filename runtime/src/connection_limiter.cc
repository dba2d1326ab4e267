#include "runtime/src/connection_limiter.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace shmrpc::internal {
namespace {

constexpr int kMostConnectionsByDefault = 10'000;

// The rest is for what else the process opens.
int DefaultMaxConnections() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kMostConnectionsByDefault;
  const rlim_t most = limit.rlim_cur - limit.rlim_cur / 4;
  return static_cast<int>(std::clamp<rlim_t>(most, 1, kMostConnectionsByDefault));
}

template <typename Map, typename Key>
int Count(const Map& map, const Key& key) {
  const auto found = map.find(key);
  return found == map.end() ? 0 : found->second;
}

template <typename Map, typename Key>
void CountDown(Map* map, const Key& key) {
  const auto found = map->find(key);
  if (found != map->end() && --found->second == 0) map->erase(found);
}

}  // namespace

ConnectionLimiter::ConnectionLimiter(const ConnectionLimits& limits)
    : max_connections_(limits.max_connections.has_value() ? *limits.max_connections : DefaultMaxConnections()),
      max_per_user_(limits.max_connections_per_user.value_or(max_connections_ - max_connections_ / 2)),
      max_per_address_(limits.max_connections_per_address.value_or(max_connections_ - max_connections_ / 2)),
      max_shared_memory_bytes_(limits.max_shared_memory_bytes) {}

absl::Status ConnectionLimiter::CheckRoom(const Origin& origin) const {
  constexpr char kWhatToDo[] = " allows: close some, or raise the limit with the option connection_limits";
  if (connections_ >= (origin.second ? int64_t{2} * max_connections_ : max_connections_)) {
    return absl::ResourceExhaustedError(absl::StrCat("the server has ", connections_,
                                                     " connections, as many as the option max_connections (",
                                                     max_connections_, ")", kWhatToDo));
  }
  if (origin.user.has_value() && Count(users_, *origin.user) >= max_per_user_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the server has ", Count(users_, *origin.user), " connections of uid ", *origin.user,
                     ", as many as the option max_connections_per_user (", max_per_user_, ")", kWhatToDo));
  }
  if (!origin.address.empty() && Count(addresses_, origin.address) >= max_per_address_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the server has ", Count(addresses_, origin.address), " connections from ", origin.address,
                     ", as many as the option max_connections_per_address (", max_per_address_, ")", kWhatToDo));
  }
  return absl::OkStatus();
}

absl::StatusOr<ConnectionLimiter::PlacePtr> ConnectionLimiter::Admit(Origin origin) {
  {
    MutexLock lock(&mutex_);
    absl::Status status = CheckRoom(origin);
    if (!status.ok() && !kept_.empty()) {
      ForgetClosed();
      status = CheckRoom(origin);
    }
    if (!status.ok()) return status;
    ++connections_;
    if (origin.user.has_value()) ++users_[*origin.user];
    if (!origin.address.empty()) ++addresses_[origin.address];
  }
  return std::make_shared<Place>(shared_from_this(), std::move(origin));
}

void ConnectionLimiter::Leave(const Origin& origin, size_t shared_memory_bytes) {
  MutexLock lock(&mutex_);
  LeaveLocked(origin);
  shared_memory_bytes_ -= shared_memory_bytes;
}

void ConnectionLimiter::LeaveLocked(const Origin& origin) {
  --connections_;
  if (origin.user.has_value()) CountDown(&users_, *origin.user);
  if (!origin.address.empty()) CountDown(&addresses_, origin.address);
}

void ConnectionLimiter::KeepUntilClosed(int socket, const Origin& origin) {
  struct stat now = {};
  const bool is_open = fstat(socket, &now) == 0;
  MutexLock lock(&mutex_);
  if (!is_open) return LeaveLocked(origin);
  kept_.push_back({.socket = socket, .device = now.st_dev, .inode = now.st_ino, .origin = origin});
}

void ConnectionLimiter::ForgetClosed() {
  const SteadyTime begin = SteadyTime::Now();
  if (begin < next_look_) return;
  const auto is_closed = [this](const Kept& kept) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    struct stat now = {};
    if (fstat(kept.socket, &now) == 0 && now.st_dev == kept.device && now.st_ino == kept.inode) return false;
    LeaveLocked(kept.origin);
    return true;
  };
  kept_.erase(std::remove_if(kept_.begin(), kept_.end(), is_closed), kept_.end());
  // Whoever knocks without pause when there is no place does not get more than a tenth of the time for this.
  const SteadyTime end = SteadyTime::Now();
  next_look_ = end + 9 * (end - begin);
}

absl::Status ConnectionLimiter::TakeSharedMemory(size_t bytes) {
  MutexLock lock(&mutex_);
  if (bytes > max_shared_memory_bytes_ || shared_memory_bytes_ > max_shared_memory_bytes_ - bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the server has ", shared_memory_bytes_, " bytes of shared memory in use, and ", bytes,
                     " more are beyond the option max_shared_memory_bytes (", max_shared_memory_bytes_,
                     "): close some connections, or raise the limit with the option connection_limits"));
  }
  shared_memory_bytes_ += bytes;
  return absl::OkStatus();
}

absl::Status ConnectionLimiter::Place::TakeSharedMemory(size_t bytes) {
  absl::Status status = limiter_->TakeSharedMemory(bytes);
  if (status.ok()) shared_memory_bytes_ += bytes;
  return status;
}

void ConnectionLimiter::Place::KeepUntilClosed(int socket) {
  kept_ = true;
  limiter_->KeepUntilClosed(socket, origin_);
}

int ConnectionLimiter::connections() const {
  MutexLock lock(&mutex_);
  return connections_;
}

}  // namespace shmrpc::internal
