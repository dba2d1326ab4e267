#ifndef SHMRPC_MESSAGE_H_
#define SHMRPC_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "google/protobuf/io/zero_copy_stream.h"
#include "google/protobuf/message_lite.h"

namespace shmrpc {

namespace internal {
class LargeMessage;
}

// A message on its way out. It writes itself into memory that the transport provides (a ring slot, a socket buffer):
// there is no staging copy. Not synchronised; lives on the caller's stack for the length of one StartCall or Finish.
class OutgoingMessage {
 public:
  virtual ~OutgoingMessage() = default;

  // The exact number of bytes that either Serialize writes. Constant for the life of this object.
  virtual size_t size() const = 0;

  // Writes exactly size() bytes to `target`.
  virtual void SerializeToArray(uint8_t* target) const = 0;

  // Writes exactly size() bytes to `stream`, which hands out the transport's memory piece by piece. False when the
  // stream ended early (the call is over).
  virtual bool SerializeToStream(google::protobuf::io::ZeroCopyOutputStream* stream) const = 0;
};

// A message that has arrived, whole: a view of one or several pieces in order, valid only during the event that
// brings it. The bytes are the transport's private copy, which the peer cannot change any more.
class IncomingMessage {
 public:
  // `pieces` and what they point to outlive this object. No piece is empty.
  explicit IncomingMessage(std::span<const std::string_view> pieces);
  // A message that has been taken apart while it came.
  explicit IncomingMessage(internal::LargeMessage& large);

  size_t size() const { return size_; }
  std::span<const std::string_view> pieces() const { return pieces_; }

  // Replaces `message` by what the bytes say. False when they are not an encoding of that message type. Once at most,
  // and pieces() is of no use afterwards: what is large is moved into the message.
  bool ParseTo(google::protobuf::MessageLite* message) const;

 private:
  std::span<const std::string_view> pieces_;
  size_t size_ = 0;
  internal::LargeMessage* large_ = nullptr;
};

// The OutgoingMessage of a protobuf message, which must outlive it and stay unchanged.
class OutgoingProto final : public OutgoingMessage {
 public:
  explicit OutgoingProto(const google::protobuf::MessageLite& message)
      : message_(message), size_(message.ByteSizeLong()) {}

  size_t size() const override { return size_; }
  void SerializeToArray(uint8_t* target) const override;
  bool SerializeToStream(google::protobuf::io::ZeroCopyOutputStream* stream) const override;

 private:
  const google::protobuf::MessageLite& message_;
  const size_t size_;
};

}  // namespace shmrpc

#endif  // SHMRPC_MESSAGE_H_
