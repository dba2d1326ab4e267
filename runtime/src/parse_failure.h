#ifndef SHMRPC_RUNTIME_SRC_PARSE_FAILURE_H_
#define SHMRPC_RUNTIME_SRC_PARSE_FAILURE_H_

#include <string>

#include "google/protobuf/message_lite.h"
#include "shmrpc/message.h"

namespace shmrpc::internal {

// Why `bytes`, which IncomingMessage::ParseTo has just refused, cannot be parsed as a message of `message`'s type: what
// follows "the request of /a.Service/Method (123 bytes) ". Takes as long as parsing, and little memory whatever the
// bytes are.
std::string WhyNotParsed(const IncomingMessage& bytes, const google::protobuf::MessageLite& message);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_PARSE_FAILURE_H_
