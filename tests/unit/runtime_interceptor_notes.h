#ifndef SHMRPC_TESTS_UNIT_RUNTIME_INTERCEPTOR_NOTES_H_
#define SHMRPC_TESTS_UNIT_RUNTIME_INTERCEPTOR_NOTES_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "google/protobuf/message_lite.h"
#include "google/protobuf/wrappers.pb.h"
#include "shmrpc/mutex.h"

namespace shmrpc::testing {

inline std::string TextOf(const google::protobuf::MessageLite& message) {
  return static_cast<const google::protobuf::StringValue&>(message).value();
}

// What interceptors have seen, in order.
class Notes {
 public:
  void Add(std::string note) {
    MutexLock lock(&mutex_);
    notes_.push_back(std::move(note));
  }
  std::vector<std::string> Take() {
    MutexLock lock(&mutex_);
    return std::exchange(notes_, {});
  }

 private:
  Mutex mutex_;
  std::vector<std::string> notes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shmrpc::testing

#endif  // SHMRPC_TESTS_UNIT_RUNTIME_INTERCEPTOR_NOTES_H_
