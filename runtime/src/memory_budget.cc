#include "runtime/src/memory_budget.h"

#include <malloc.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/src/deadline_timer.h"
#include "runtime/src/fork.h"
#include "runtime/src/log.h"
#include "runtime/src/memory_left.h"

namespace shmrpc::internal {
namespace {

constexpr size_t kLeastByDefault = size_t{64} << 20;
// No share is smaller: a connection that holds little can begin a call until the budget is full.
constexpr size_t kLeastShare = size_t{16} << 10;

constexpr absl::Duration kTrimAfter = absl::Seconds(1);

constexpr char kWhatToDo[] =
    ": wait until some of it is free, or raise the limit with "
    "the option connection_limits";

size_t DefaultLimit() { return static_cast<size_t>(std::max<uint64_t>(MemoryForThisProcess() / 4, kLeastByDefault)); }

// A timer of its own: to give memory back may take long.
constinit PerProcess<DeadlineTimer> memory_timer;

}  // namespace

MemoryBudget::MemoryBudget(absl::optional<size_t> limit, bool timed)
    : limit_(limit.has_value() ? *limit : DefaultLimit()),
      timed_(timed),
      tight_(limit_ / 4 * 3),
      full_(limit_ / 8 * 7) {}

absl::Status MemoryBudget::Full() const {
  return absl::ResourceExhaustedError(absl::StrCat("the server keeps ", used(),
                                                   " bytes for its clients, nearly as many as "
                                                   "the option max_memory_bytes (",
                                                   limit_, ") allows", kWhatToDo));
}

void MemoryBudget::OnTight(size_t used) {
  size_t most = most_used_.load(std::memory_order_relaxed);
  while (used > most && !most_used_.compare_exchange_weak(most, used, std::memory_order_relaxed)) {
  }
  const int pressure = used >= full_ ? kFull : kTight;
  if (pressure_.load(std::memory_order_relaxed) < pressure) pressure_.store(pressure, std::memory_order_relaxed);
  if (!looking_.load(std::memory_order_relaxed) && !looking_.exchange(true)) ScheduleLook(SteadyTime::Now());
}

// The next look finds out the rest; that calls may begin again need not wait for it.
void MemoryBudget::OnReturned(size_t used) {
  if (used < full_ && IsFull()) pressure_.store(kTight, std::memory_order_relaxed);
}

void MemoryBudget::ScheduleLook(SteadyTime when) {
  if (!timed_) return;
  memory_timer.Get().Schedule(when, [weak = weak_from_this()] {
    if (const std::shared_ptr<MemoryBudget> self = weak.lock()) self->OnTimer();
  });
}

void MemoryBudget::OnTimer() {
  const SteadyTime now = SteadyTime::Now();
  Look(now);
  if (used() >= tight_ / 2) return ScheduleLook(now + kLookEvery);
  looking_.store(false);
  if (used() >= tight_ && !looking_.exchange(true)) ScheduleLook(now + kLookEvery);  // it has grown meanwhile
}

void MemoryBudget::Look(SteadyTime now) {
  size_t used = this->used();
  pressure_.store(used >= full_ ? kFull : used >= tight_ ? kTight : kNone, std::memory_order_relaxed);
  struct Candidate {
    bool still;
    size_t bytes;
    MemoryAccount::End end;
  };
  std::vector<Candidate> candidates;
  const size_t share = Share();
  {
    MutexLock lock(&mutex_);
    for (MemoryAccount* account : accounts_) {
      const uint64_t moved = account->moved();
      if (moved != account->moved_before_ || account->still_since_ == SteadyTime::InfiniteFuture()) {
        account->moved_before_ = moved;
        account->still_since_ = now;
      }
      const size_t bytes = account->used();
      const bool still = now - account->still_since_ >= kStill;
      if (used < (still ? tight_ : full_) || bytes <= (still ? kLeastShare : share)) continue;
      if (MemoryAccount::End end = account->end_()) candidates.push_back({still, bytes, std::move(end)});
    }
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.still != b.still ? a.still : a.bytes > b.bytes; });
  // What they hold is free soon, not now. So much is ended that there is room for a while: an eighth.
  const size_t enough = tight_ - limit_ / 8;
  for (const Candidate& candidate : candidates) {
    if (used < (candidate.still ? enough : full_)) break;
    used -= std::min(used, candidate.bytes);
    candidate.end(absl::ResourceExhaustedError(absl::StrCat(
        "the server keeps ", this->used(), " bytes for its clients, too many for the option max_memory_bytes (", limit_,
        "), and ", candidate.bytes, " of them for this connection, ",
        candidate.still ? "whose client lets nothing move" : "more than for others")));
  }
  candidates.clear();
  const size_t now_used = this->used();
  const size_t most = most_used_.load(std::memory_order_relaxed);
  if (most > now_used && most - now_used >= kWorthTrimming && now_used < tight_) {
    most_used_.store(now_used, std::memory_order_relaxed);
    malloc_trim(0);
  }
}

void MemoryBudget::TrimSoon() {
  if (!timed_ || trimming_.exchange(true)) return;
  memory_timer.Get().Schedule(SteadyTime::Now() + kTrimAfter, [weak = weak_from_this()] {
    const std::shared_ptr<MemoryBudget> self = weak.lock();
    if (self != nullptr) self->trimming_ = false;
    malloc_trim(0);
  });
}

void MemoryBudget::Add(MemoryAccount* account) {
  MutexLock lock(&mutex_);
  accounts_.insert(account);
  accounts_count_.store(static_cast<int>(accounts_.size()), std::memory_order_relaxed);
}

void MemoryBudget::Remove(MemoryAccount* account) {
  MutexLock lock(&mutex_);
  accounts_.erase(account);
  accounts_count_.store(static_cast<int>(accounts_.size()), std::memory_order_relaxed);
}

size_t MemoryBudget::Share() const {
  const int count = std::max(1, accounts_count_.load(std::memory_order_relaxed));
  return std::max(tight_ / static_cast<size_t>(count), kLeastShare);
}

MemoryAccount::~MemoryAccount() {
  if (budget_ == nullptr) return;
  if (end_ != nullptr) budget_->Remove(this);
  budget_->Return(used_.load(std::memory_order_relaxed));
}

void MemoryAccount::SetEnd(std::function<End()> end) {
  if (budget_ == nullptr) return;
  end_ = std::move(end);
  budget_->Add(this);
}

bool MemoryAccount::MayBeginUnderPressure() const { return !budget_->IsFull() && used() <= budget_->Share(); }

absl::Status MemoryAccount::WhyNot() const {
  if (budget_->IsFull()) return budget_->Full();
  return absl::ResourceExhaustedError(
      absl::StrCat("the server keeps ", budget_->used(), " bytes for its clients, of the ", budget_->limit(),
                   " that the option max_memory_bytes allows, and ", used(),
                   " of them for this connection, which is more than its share", kWhatToDo));
}

void MemoryCharge::Adjust() {
  const size_t wanted = used_ <= kFree ? 0 : (used_ + kStep - 1) / kStep * kStep;
  if (account_ != nullptr && wanted > taken_) account_->Take(wanted - taken_);
  if (account_ != nullptr && wanted < taken_) account_->Return(taken_ - wanted);
  taken_ = account_ == nullptr ? 0 : wanted;
}

}  // namespace shmrpc::internal
