#ifndef SHMRPC_RUNTIME_SRC_MESSAGE_POOL_H_
#define SHMRPC_RUNTIME_SRC_MESSAGE_POOL_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>

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
// Thread-safe, without locks. A slot has messages and a flag.
//  1. A thread that changes the flag from false to true has the slot's messages, alone, until it sets it to false.
//  2. A thread that finds it true already makes messages of its own, and deletes them afterwards.
// The change to true is an acquire and the change to false a release: the uses of a slot's messages come one after the
// other.
class MessagePool {
 public:
  // `method` is static data.
  explicit MessagePool(const ServiceMethod* method) : method_(method) {}
  MessagePool(const MessagePool&) = delete;
  MessagePool& operator=(const MessagePool&) = delete;

  struct Messages {
    std::unique_ptr<google::protobuf::MessageLite> request;
    std::unique_ptr<google::protobuf::MessageLite> reply;
    int uses = 0;
  };

 private:
  struct alignas(64) Slot {
    std::atomic<bool> taken{false};
    Messages messages;  // null at first
  };

 public:
  // The messages of one call, empty at first; they go back to the pool with this object.
  class Lease {
   public:
    explicit Lease(MessagePool* pool) : slot_(&pool->OfThisThread()) {
      if (slot_->taken.exchange(true, std::memory_order_acquire)) slot_ = nullptr;
      messages_ = slot_ != nullptr ? &slot_->messages : &own_;
      if (messages_->request == nullptr) pool->MakeMessages(messages_);
    }
    ~Lease() {
      if (slot_ == nullptr) return;
      if (largest_ > kLargestKept || ++messages_->uses >= kMostUses) {
        *messages_ = Messages();
      } else {
        messages_->request->Clear();
        messages_->reply->Clear();
      }
      slot_->taken.store(false, std::memory_order_release);
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    google::protobuf::MessageLite* request() { return messages_->request.get(); }
    google::protobuf::MessageLite* reply() { return messages_->reply.get(); }

    // To be told of the encoded size of whatever was put into one of the messages.
    void NoteSize(size_t bytes) { largest_ = bytes > largest_ ? bytes : largest_; }

   private:
    Slot* slot_;  // null: another thread has it
    Messages* messages_;
    Messages own_;
    size_t largest_ = 0;
  };

 private:
  static constexpr size_t kSlots = 4;
  static constexpr size_t kLargestKept = 16 * 1024;
  static constexpr int kMostUses = 10'000;

  // Threads that run at the same time mostly have different ones.
  Slot& OfThisThread() {
    static std::atomic<size_t> threads{0};
    static thread_local const size_t index = threads.fetch_add(1, std::memory_order_relaxed) % kSlots;
    return slots_[index];
  }

  void MakeMessages(Messages* messages) const;

  const ServiceMethod* const method_;
  std::array<Slot, kSlots> slots_;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_MESSAGE_POOL_H_
