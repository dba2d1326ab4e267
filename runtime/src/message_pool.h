#ifndef SHMRPC_RUNTIME_SRC_MESSAGE_POOL_H_
#define SHMRPC_RUNTIME_SRC_MESSAGE_POOL_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

#include "google/protobuf/message_lite.h"
#include "shmrpc/service.h"

namespace shmrpc::internal {

// The messages of a method's calls, kept from one call to the next: a message that was cleared still has the memory of
// its strings and repeated fields, and to make and destroy an arena for each call costs more than the allocations of a
// small message.
//
// What is kept is bounded: one request and one reply for each of a few slots, none that was large, and none for ever,
// because a cleared message has the memory of all that has ever been in it.
//
// Thread-safe, without locks. A slot is a pointer.
//  1. A thread that exchanges it for null owns what it pointed to, alone, until it exchanges it back.
//  2. A thread that finds null makes new messages; one that finds other messages when it gives its own back deletes
//     those. So nothing is lost, and a slot never has more than one.
// The exchange that takes is an acquire and the one that gives a release (and an acquire, for what it may delete): the
// uses of one set of messages come one after the other.
class MessagePool {
 public:
  // `method` is static data.
  explicit MessagePool(const ServiceMethod* method) : method_(method) {}
  ~MessagePool() {
    for (Slot& slot : slots_) delete slot.kept.load(std::memory_order_acquire);
  }
  MessagePool(const MessagePool&) = delete;
  MessagePool& operator=(const MessagePool&) = delete;

  struct Messages {
    std::unique_ptr<google::protobuf::MessageLite> request;
    std::unique_ptr<google::protobuf::MessageLite> reply;
    int uses = 0;
  };

  // The messages of one call, empty at first; they go back to the pool with this object.
  class Lease {
   public:
    explicit Lease(MessagePool* pool) : pool_(pool), messages_(pool->Take()) {}
    ~Lease() { pool_->Give(std::move(messages_), largest_); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    google::protobuf::MessageLite* request() { return messages_->request.get(); }
    google::protobuf::MessageLite* reply() { return messages_->reply.get(); }

    // To be told of the encoded size of whatever was put into one of the messages.
    void NoteSize(size_t bytes) { largest_ = bytes > largest_ ? bytes : largest_; }

   private:
    MessagePool* const pool_;
    std::unique_ptr<Messages> messages_;
    size_t largest_ = 0;
  };

 private:
  static constexpr size_t kSlots = 4;
  static constexpr size_t kLargestKept = 16 * 1024;
  static constexpr int kMostUses = 10'000;

  struct alignas(64) Slot {
    std::atomic<Messages*> kept{nullptr};
  };
  // Threads that run at the same time mostly have different ones.
  Slot& OfThisThread() {
    static std::atomic<size_t> threads{0};
    static thread_local const size_t index = threads.fetch_add(1, std::memory_order_relaxed) % kSlots;
    return slots_[index];
  }

  std::unique_ptr<Messages> Take() {
    std::unique_ptr<Messages> messages(OfThisThread().kept.exchange(nullptr, std::memory_order_acquire));
    if (messages == nullptr) messages = MakeMessages();
    return messages;
  }
  void Give(std::unique_ptr<Messages> messages, size_t largest) {
    if (largest > kLargestKept || ++messages->uses >= kMostUses) return;
    messages->request->Clear();
    messages->reply->Clear();
    delete OfThisThread().kept.exchange(messages.release(), std::memory_order_acq_rel);
  }
  std::unique_ptr<Messages> MakeMessages() const;

  const ServiceMethod* const method_;
  std::array<Slot, kSlots> slots_;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_MESSAGE_POOL_H_
