#ifndef SHMRPC_TRANSPORTS_FRAMED_CALL_TABLE_H_
#define SHMRPC_TRANSPORTS_FRAMED_CALL_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/src/random.h"

namespace shmrpc::framed {

// Calls by id, for the side that does not choose the ids. A hash table whose chains run through the calls themselves:
// `Call` has members `uint64_t id`, constant while the call is in the table, and `Call* next_in_table`, which is the
// table's. To insert and to erase a call allocates nothing and touches little beside the call.
//
// Ids come from the peer, who may choose them so that they collide. So they are multiplied with an odd number that only
// this process knows, and the upper bits of the product are the bucket: then any two ids meet with a probability of two
// by the number of buckets at most, whatever they are. The number of buckets grows with the most calls there ever were.
//
// Does not own the calls. Not synchronised.
template <typename Call>
class CallTable {
 public:
  CallTable() : buckets_(size_t{1} << kSmallestBits) {}
  CallTable(const CallTable&) = delete;
  CallTable& operator=(const CallTable&) = delete;

  bool empty() const { return size_ == 0; }

  // Null when there is none.
  Call* Find(uint64_t id) const {
    Call* call = buckets_[BucketOf(id)];
    while (call != nullptr && call->id != id) call = call->next_in_table;
    return call;
  }

  // False, and nothing has happened: there is one with this id.
  bool Insert(Call* call) {
    if (Find(call->id) != nullptr) return false;
    if (size_ == buckets_.size()) Grow();
    ++size_;
    Link(call);
    return true;
  }

  // Harmless when the call is not in the table.
  void Erase(const Call* call) {
    for (Call** link = &buckets_[BucketOf(call->id)]; *link != nullptr; link = &(*link)->next_in_table) {
      if (*link != call) continue;
      *link = call->next_in_table;
      --size_;
      return;
    }
  }

  // `function` must not change the table.
  template <typename Function>
  void ForEach(Function&& function) const {
    for (Call* call : buckets_) {
      for (; call != nullptr; call = call->next_in_table) function(call);
    }
  }

 private:
  static constexpr int kSmallestBits = 4;

  size_t BucketOf(uint64_t id) const { return static_cast<size_t>((id * factor_) >> shift_); }
  void Link(Call* call) {
    Call*& bucket = buckets_[BucketOf(call->id)];
    call->next_in_table = bucket;
    bucket = call;
  }
  void Grow() {
    std::vector<Call*> old(2 * buckets_.size());
    old.swap(buckets_);
    --shift_;
    for (Call* call : old) {
      while (call != nullptr) {
        Call* const next = call->next_in_table;
        Link(call);
        call = next;
      }
    }
  }

  const uint64_t factor_ = internal::RandomBits() | 1;
  int shift_ = 64 - kSmallestBits;
  size_t size_ = 0;
  std::vector<Call*> buckets_;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_CALL_TABLE_H_
