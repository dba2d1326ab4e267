#include "runtime/src/running_handlers.h"

#include <atomic>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "runtime/src/fork.h"
#include "shmrpc/mutex.h"

namespace shmrpc::internal {
namespace {

struct Record {
  std::atomic<const RegisteredMethod*> method{nullptr};  // written by its thread
};

// All threads that have run handlers. The child of a fork() begins with none.
class Records {
 public:
  void Add(Record* record) {
    MutexLock lock(&mutex_);
    records_.insert(record);
  }
  void Remove(Record* record) {
    MutexLock lock(&mutex_);
    records_.erase(record);
  }
  void Visit(absl::FunctionRef<void(const RegisteredMethod*)> visit) {
    MutexLock lock(&mutex_);
    for (const Record* const record : records_) {
      const RegisteredMethod* const method = record->method.load(std::memory_order_acquire);
      if (method != nullptr) visit(method);
    }
  }

 private:
  Mutex mutex_;
  absl::flat_hash_set<Record*> records_ ABSL_GUARDED_BY(mutex_);
};

constinit PerProcess<Records> process_records;

// The thread's own. Trivial, so that handlers may run even while the thread's other objects are being destroyed.
constinit thread_local Record* record_of_this_thread = nullptr;
constinit thread_local HandlerScope* innermost = nullptr;

// Ends the record with its thread. A record that was made by a parent process is left to the parent's list.
struct RecordOwner {
  Record record;
  const uint32_t generation = ForkGeneration();
  RecordOwner() { process_records.Get().Add(&record); }
  ~RecordOwner() {
    record_of_this_thread = nullptr;
    if (generation == ForkGeneration()) process_records.Get().Remove(&record);
  }
};

Record* MakeRecord() {
  static thread_local RecordOwner owner;
  return record_of_this_thread = &owner.record;
}

void Note(const RegisteredMethod* method) {
  Record* record = record_of_this_thread;
  if (record == nullptr) record = MakeRecord();
  record->method.store(method, std::memory_order_release);
}

}  // namespace

HandlerScope::HandlerScope(const RegisteredMethod* method) : method_(method), outer_(innermost) {
  innermost = this;
  Note(method);
}

HandlerScope::~HandlerScope() {
  innermost = outer_;
  Note(outer_ != nullptr ? outer_->method_ : nullptr);
}

bool HandlerScope::AnyOfThisThread(absl::FunctionRef<bool(const RegisteredMethod*)> visit) {
  for (const HandlerScope* scope = innermost; scope != nullptr; scope = scope->outer_) {
    if (visit(scope->method_)) return true;
  }
  return false;
}

void HandlerScope::OfAllThreads(absl::FunctionRef<void(const RegisteredMethod*)> visit) {
  process_records.Get().Visit(visit);
}

}  // namespace shmrpc::internal
