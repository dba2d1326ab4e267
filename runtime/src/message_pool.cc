#include "runtime/src/message_pool.h"

namespace shmrpc::internal {

void MessagePool::MakeMessages(Messages* messages) const {
  messages->request.reset(method_->request_prototype().New());
  messages->reply.reset(method_->reply_prototype().New());
}

}  // namespace shmrpc::internal
