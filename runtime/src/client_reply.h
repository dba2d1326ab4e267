#ifndef SHMRPC_RUNTIME_SRC_CLIENT_REPLY_H_
#define SHMRPC_RUNTIME_SRC_CLIENT_REPLY_H_

#include <utility>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "runtime/src/large_message.h"
#include "shmrpc/message.h"

namespace shmrpc {

// Puts what has arrived into `reply`. INTERNAL when it is not such a message or lacks required fields.
absl::Status ParseReply(const char* method, const IncomingMessage& message, google::protobuf::MessageLite* reply);

// Takes in what comes of a call whose reply does not stream: exactly one message, unless the call fails. Not
// synchronised: the events of one call do not run concurrently.
class SingleReply {
 public:
  SingleReply(const char* method, google::protobuf::MessageLite* reply) : method_(method), reply_(reply) {}

  void OnMessage(const IncomingMessage& message) {
    if (++messages_ == 1) error_ = ParseReply(method_, message, reply_);
  }

  // CallEvents::message_type.
  const google::protobuf::Descriptor* type() const {
    return reply_ != nullptr ? internal::DescriptorOf(*reply_) : nullptr;
  }

  // Null if the replies stream.
  google::protobuf::MessageLite* message() const { return reply_; }

  // The status of the whole call, given what the server or the transport says.
  absl::Status Conclude(absl::Status status) {
    if (!status.ok()) return status;
    if (messages_ != 1) return WrongNumberOfMessages();
    return std::move(error_);
  }

 private:
  absl::Status WrongNumberOfMessages() const;

  const char* const method_;
  google::protobuf::MessageLite* const reply_;
  int messages_ = 0;
  absl::Status error_;
};

}  // namespace shmrpc

#endif  // SHMRPC_RUNTIME_SRC_CLIENT_REPLY_H_
