#include "runtime/src/message_pool.h"

namespace shmrpc::internal {

std::unique_ptr<MessagePool::Messages> MessagePool::MakeMessages() const {
  auto messages = std::make_unique<Messages>();
  messages->request.reset(method_->request_prototype().New());
  messages->reply.reset(method_->reply_prototype().New());
  return messages;
}

}  // namespace shmrpc::internal
