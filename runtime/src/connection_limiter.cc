#include "runtime/src/connection_limiter.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace shmrpc::internal {
namespace {

constexpr int kMostConnectionsByDefault = 10'000;

// Whoever knocks without pause when there is no place does not get more than a tenth of the time for looks at all that
// have one.
constexpr int kPauseAfterLook = 9;
// How many connections of the gRPC library are looked at meanwhile.
constexpr size_t kShortLook = 64;

// A connection that was used a moment ago does not give way.
constexpr absl::Duration kLeastIdle = absl::Seconds(3);

// How many more may come that are about to replace another one.
int SecondOnes(int max_connections) { return std::max(2, max_connections / 16); }

// Each connection takes a descriptor, and in its handshake perhaps another one: the client's, that it passes. A quarter
// is for what else the process opens.
constexpr rlim_t kDescriptorsOfAConnection = 2;

int DefaultMaxConnections() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kMostConnectionsByDefault;
  const rlim_t most = (limit.rlim_cur - limit.rlim_cur / 4) / kDescriptorsOfAConnection;
  const int all = static_cast<int>(std::clamp<rlim_t>(most, 1, 2 * kMostConnectionsByDefault));
  return std::clamp(all - SecondOnes(all), 1, kMostConnectionsByDefault);
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
      max_shared_memory_bytes_(limits.max_shared_memory_bytes),
      memory_(std::make_shared<MemoryBudget>(limits.max_memory_bytes)) {}

// Of IPv6 nobody has a single address: a site gets 48 bits, a home 56, and what is in them shares what the site may
// have.
int ConnectionLimiter::MostFrom(const Origin& origin, size_t network) const {
  const size_t narrower = origin.wider.size() - network;  // than the widest
  return std::max<int>(1, max_per_address_ - static_cast<int>(narrower) * (max_per_address_ / 4));
}

// The widest limit that is met is told; whoever gives way is to be one of the narrowest that are too many.
absl::Status ConnectionLimiter::CheckRoom(const Origin& origin, Whose* whose) const {
  if (memory_->IsFull()) return memory_->Full();
  constexpr char kWhatToDo[] = " allows: close some, or raise the limit with the option connection_limits";
  absl::Status status;
  if (connections_ >= (origin.second ? max_connections_ + SecondOnes(max_connections_) : max_connections_)) {
    status.Update(absl::ResourceExhaustedError(absl::StrCat("the server has ", connections_,
                                                            " connections, as many as the option max_connections (",
                                                            max_connections_, ")", kWhatToDo)));
  }
  if (origin.user.has_value() && Count(users_, *origin.user) >= max_per_user_) {
    whose->user = origin.user;
    status.Update(absl::ResourceExhaustedError(
        absl::StrCat("the server has ", Count(users_, *origin.user), " connections of uid ", *origin.user,
                     ", as many as the option max_connections_per_user (", max_per_user_, ")", kWhatToDo)));
  }
  for (size_t i = origin.address.empty() ? 0 : origin.wider.size() + 1; i > 0; --i) {
    const std::string& network = i == 1 ? origin.address : origin.wider[i - 2];
    const int count = Count(addresses_, network);
    const int most = MostFrom(origin, i - 1);
    if (count < most) continue;
    whose->network = network;
    const std::string share = most == max_per_address_ ? "" : absl::StrCat(most, " for this network, of ");
    status.Update(absl::ResourceExhaustedError(absl::StrCat("the server has ", count, " connections from ", network,
                                                            ", as many as the option max_connections_per_address (",
                                                            share, max_per_address_, ")", kWhatToDo)));
  }
  return status;
}

bool ConnectionLimiter::Whose::Includes(const Origin& origin) const {
  if (user.has_value() && origin.user != user) return false;
  return network.empty() || origin.address == network ||
         std::find(origin.wider.begin(), origin.wider.end(), network) != origin.wider.end();
}

absl::StatusOr<ConnectionLimiter::PlacePtr> ConnectionLimiter::Admit(Origin origin) {
  std::vector<std::shared_ptr<Tenant>> seen;
  Tenant* tenant = nullptr;
  absl::Status status;
  for (bool again = false;; again = true) {
    {
      MutexLock lock(&mutex_);
      Whose whose;
      status = CheckRoom(origin, &whose);
      if (!status.ok() && !kept_.empty()) {
        ForgetClosed();
        whose = {};
        status = CheckRoom(origin, &whose);
      }
      if (status.ok()) {
        ++connections_;
        if (origin.user.has_value()) ++users_[*origin.user];
        if (!origin.address.empty()) ++addresses_[origin.address];
        for (const std::string& network : origin.wider) ++addresses_[network];
        break;
      }
      if (again || memory_->IsFull()) return status;
      tenant = LongestIdle(whose, &seen);
    }
    if (tenant == nullptr) return status;
    tenant->GiveWay();
  }
  memory_->Take(kConnectionBytes);
  return std::make_shared<Place>(shared_from_this(), std::move(origin));
}

void ConnectionLimiter::SetTenant(const Place* place, std::weak_ptr<Tenant> tenant) {
  MutexLock lock(&mutex_);
  if (tenant.expired()) {
    tenants_.erase(place);
  } else {
    tenants_[place] = std::move(tenant);
  }
}

ConnectionLimiter::Tenant* ConnectionLimiter::LongestIdle(const Whose& whose,
                                                          std::vector<std::shared_ptr<Tenant>>* seen) {
  const SteadyTime begin = SteadyTime::Now();
  if (begin < next_look_at_tenants_) return nullptr;
  Tenant* longest = nullptr;
  SteadyTime since = begin - kLeastIdle;
  for (const auto& [place, weak] : tenants_) {
    if (!whose.Includes(place->origin_)) continue;
    std::shared_ptr<Tenant> tenant = weak.lock();
    if (tenant == nullptr) continue;
    const absl::optional<SteadyTime> idle_since = tenant->IdleSince(begin);
    if (idle_since.has_value() && *idle_since <= since) {
      since = *idle_since;
      longest = tenant.get();
    }
    seen->push_back(std::move(tenant));
  }
  const SteadyTime end = SteadyTime::Now();
  next_look_at_tenants_ = end + kPauseAfterLook * (end - begin);
  return longest;
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
  for (const std::string& network : origin.wider) CountDown(&addresses_, network);
}

void ConnectionLimiter::KeepUntilClosed(int socket, const Origin& origin) {
  struct stat now = {};
  const bool is_open = fstat(socket, &now) == 0;
  MutexLock lock(&mutex_);
  if (!is_open) return LeaveLocked(origin);
  kept_.push_back({.socket = socket, .device = now.st_dev, .inode = now.st_ino, .origin = origin});
}

void ConnectionLimiter::ForgetClosed() {
  const auto is_closed = [this](const Kept& kept) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    struct stat now = {};
    if (fstat(kept.socket, &now) == 0 && now.st_dev == kept.device && now.st_ino == kept.inode) return false;
    LeaveLocked(kept.origin);
    return true;
  };
  const SteadyTime begin = SteadyTime::Now();
  if (begin < next_look_) {
    // Too soon to look at all of them again; but somebody knocks, and some may have been closed meanwhile.
    for (size_t i = 0; i < kShortLook && !kept_.empty(); ++i) {
      if (next_kept_ >= kept_.size()) next_kept_ = 0;
      if (!is_closed(kept_[next_kept_])) {
        ++next_kept_;
        continue;
      }
      std::swap(kept_[next_kept_], kept_.back());
      kept_.pop_back();
    }
    return;
  }
  kept_.erase(std::remove_if(kept_.begin(), kept_.end(), is_closed), kept_.end());
  const SteadyTime end = SteadyTime::Now();
  next_look_ = end + kPauseAfterLook * (end - begin);
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
  limiter_->memory_->Return(kConnectionBytes);  // what the gRPC library keeps is counted there
  limiter_->KeepUntilClosed(socket, origin_);
}

int ConnectionLimiter::connections() const {
  MutexLock lock(&mutex_);
  return connections_;
}

}  // namespace shmrpc::internal
