#ifndef SHMRPC_RUNTIME_SRC_MEMORY_BUDGET_H_
#define SHMRPC_RUNTIME_SRC_MEMORY_BUDGET_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {

class MemoryAccount;

// The private memory that one server keeps for its clients: ConnectionLimits::max_memory_bytes. Each limit of a
// connection or a call bounds what that one can make the server keep; this one bounds the sum.
//
// Who keeps something for a client takes it from the client's MemoryAccount, mostly by way of a MemoryCharge. Taking
// never fails: what grows is what has begun. Instead the budget says when no more may begin, and ends the connections
// that hold most:
//
//                    limit × 3/4                                      limit × 7/8
//      all may begin     connections that hold their share may not       nobody may (IsFull)
//      nobody is ended   whoever holds most and has not moved ends       whoever holds most ends
//
// A connection has moved when its client has taken something that was kept for it, or sent on what it had begun, within
// kStill. The looks are made by a timer's thread, and only while the budget is under pressure. When that is over, the
// memory that was freed is given back to the system, which the allocator would not do by itself.
//
// Thread-safe. Held by shared pointers: of the server's listeners, and of the accounts, which outlive those.
class MemoryBudget final : public std::enable_shared_from_this<MemoryBudget> {
 public:
  static constexpr size_t kLeast = size_t{1} << 20;

  // nullopt: see ConnectionLimits::max_memory_bytes. `timed`: it looks by itself; otherwise who calls Look does.
  explicit MemoryBudget(absl::optional<size_t> limit, bool timed = true);
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  size_t limit() const { return limit_; }
  size_t used() const { return used_.load(std::memory_order_relaxed); }

  // Whether no call may begin and no connection come. Cheap.
  bool IsFull() const { return pressure_.load(std::memory_order_relaxed) >= kFull; }
  // RESOURCE_EXHAUSTED, with the option and its value.
  absl::Status Full() const;

  void Take(size_t bytes) {
    const size_t before = used_.fetch_add(bytes, std::memory_order_relaxed);
    if (before + bytes >= tight_) OnTight(before + bytes);
  }
  void Return(size_t bytes) {
    const size_t before = used_.fetch_sub(bytes, std::memory_order_relaxed);
    if (before >= tight_) OnReturned(before - bytes);
  }

  // For who has freed much that nobody counts: has it given back to the system, in a moment.
  void TrimSoon();

  // Looks at who holds what, with the clock at `now`. One at a time.
  void Look(SteadyTime now) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class MemoryAccount;

  // How long a client may let nothing move before it goes first; the time between two looks; how much has to have been
  // freed to be worth the search for it.
  static constexpr absl::Duration kStill = absl::Milliseconds(500);
  static constexpr absl::Duration kLookEvery = absl::Milliseconds(50);
  static constexpr size_t kWorthTrimming = size_t{8} << 20;

  enum Pressure : int { kNone, kTight, kFull };
  void OnTight(size_t used);
  void OnReturned(size_t used);
  void ScheduleLook(SteadyTime when);
  void OnTimer() ABSL_LOCKS_EXCLUDED(mutex_);

  void Add(MemoryAccount* account) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(MemoryAccount* account) ABSL_LOCKS_EXCLUDED(mutex_);
  // What a connection may hold and yet begin calls when the budget is tight.
  size_t Share() const;

  const size_t limit_;
  const bool timed_;
  const size_t tight_;
  const size_t full_;

  // Threads on all CPUs write it, a little; what each call reads is apart.
  alignas(64) std::atomic<size_t> used_{0};
  std::atomic<size_t> most_used_{0};  // since memory was last given back
  std::atomic<bool> looking_{false};  // a look is scheduled
  std::atomic<bool> trimming_{false};
  alignas(64) std::atomic<int> pressure_{kNone};
  std::atomic<int> accounts_count_{0};

  Mutex mutex_;
  absl::flat_hash_set<MemoryAccount*> accounts_ ABSL_GUARDED_BY(mutex_);
};

// What one connection takes of its server's budget. Thread-safe, but for construction and destruction. Outlives all
// that was taken by it.
class MemoryAccount final {
 public:
  // Without a budget it only counts.
  explicit MemoryAccount(std::shared_ptr<MemoryBudget> budget) : budget_(std::move(budget)) {}
  ~MemoryAccount();
  MemoryAccount(const MemoryAccount&) = delete;
  MemoryAccount& operator=(const MemoryAccount&) = delete;

  // From now on until the destruction, `end` may be called to end the connection: on the budget's thread, maybe more
  // than once; with the budget's lock held, so it only makes a reference and gives back what ends the connection, or an
  // empty function when that is over. At most once.
  using End = std::function<void(const absl::Status& why)>;
  void SetEnd(std::function<End()> end);

  void Take(size_t bytes) {
    used_.fetch_add(bytes, std::memory_order_relaxed);
    if (budget_ != nullptr) budget_->Take(bytes);
  }
  void Return(size_t bytes) {
    used_.fetch_sub(bytes, std::memory_order_relaxed);
    if (budget_ != nullptr) budget_->Return(bytes);
  }
  size_t used() const { return used_.load(std::memory_order_relaxed); }

  // The client has taken something that is kept for it, or sent more of what it has begun. Cheap.
  void NoteMoved() { moved_.store(moved_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
  // Changes with it. A hint: of two at the same moment one may count.
  uint64_t moved() const { return moved_.load(std::memory_order_relaxed); }

  // Whether a call may begin on the connection. Cheap.
  bool MayBegin() const {
    return budget_ == nullptr || budget_->pressure_.load(std::memory_order_relaxed) == MemoryBudget::kNone ||
           MayBeginUnderPressure();
  }
  // Why not: RESOURCE_EXHAUSTED.
  absl::Status WhyNot() const;

 private:
  friend class MemoryBudget;
  bool MayBeginUnderPressure() const;

  const std::shared_ptr<MemoryBudget> budget_;
  std::function<End()> end_;  // guarded by the budget's mutex
  std::atomic<size_t> used_{0};
  std::atomic<uint64_t> moved_{0};

  // Of the budget's looks.
  uint64_t moved_before_ = 0;
  SteadyTime still_since_ = SteadyTime::InfiniteFuture();
};

// What one part of a connection, guarded by one lock, takes of the account: in steps, so that what comes and goes in
// small amounts costs an addition and a comparison. The first kFree bytes are in the price of the connection. Not
// synchronised. Gives back the rest in the end.
class MemoryCharge {
 public:
  static constexpr size_t kFree = 2048;
  static constexpr size_t kStep = 8192;

  // `account` may be null: then nothing is counted. It outlives this object.
  explicit MemoryCharge(MemoryAccount* account = nullptr) : account_(account) {}
  ~MemoryCharge() {
    if (taken_ > 0) account_->Return(taken_);
  }
  MemoryCharge(const MemoryCharge&) = delete;
  MemoryCharge& operator=(const MemoryCharge&) = delete;

  void Add(size_t bytes) {
    used_ += bytes;
    if (used_ > taken_ + kFree) Adjust();
  }
  void Remove(size_t bytes) {
    used_ -= bytes;
    if (taken_ > 0 && (used_ <= kFree || taken_ - used_ >= 2 * kStep)) Adjust();
  }
  void Clear() { Remove(used_); }
  // As if the whole of it were `bytes`.
  void Set(size_t bytes) { bytes > used_ ? Add(bytes - used_) : Remove(used_ - bytes); }
  // From now on; what is there already is taken from it. Only when it had none.
  void SetAccount(MemoryAccount* account) {
    account_ = account;
    Adjust();
  }

 private:
  void Adjust();

  MemoryAccount* account_;
  size_t used_ = 0;
  size_t taken_ = 0;  // at least used_ - kFree
};

// What a connection takes that is there, whatever it does.
inline constexpr size_t kConnectionBytes = 8192;

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_MEMORY_BUDGET_H_
