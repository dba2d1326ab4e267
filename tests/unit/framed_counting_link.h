#ifndef SHMRPC_TESTS_UNIT_FRAMED_COUNTING_LINK_H_
#define SHMRPC_TESTS_UNIT_FRAMED_COUNTING_LINK_H_

// What the tests of sessions that send much at once share: how much that is, and how often they may send for it.

#include <atomic>
#include <cstddef>

#include "tests/sanitizers.h"
#include "tests/unit/framed_forwarding_link.h"

namespace shmrpc::framed {

inline constexpr int kInFlight = 64;
// The most sends for so many calls. Where tasks are slow, batches end because they are old.
inline constexpr int kFewSends = kInFlight / (SHMRPC_TSAN || SHMRPC_ASAN ? 2 : 16);
// A round in which a thread loses its CPU needs more; but not all of them do.
inline constexpr int kRounds = 1000;

// Counts what is sent. The sender's methods are called with its lock.
class CountingLink final : public ForwardingLink {
 public:
  using ForwardingLink::ForwardingLink;

  void Commit(size_t size) override {
    ForwardingLink::Commit(size);
    ++unflushed;
  }
  void Flush(bool always_ring) override {
    if (unflushed.exchange(0) > 0) ++flushes;
    ForwardingLink::Flush(always_ring);
  }
  bool CheapToPoll() const override { return cheap_to_poll; }

  std::atomic<bool> cheap_to_poll{false};
  std::atomic<int> flushes{0};
  std::atomic<int> unflushed{0};  // frames
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TESTS_UNIT_FRAMED_COUNTING_LINK_H_
