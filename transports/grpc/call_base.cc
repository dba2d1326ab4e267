#include "transports/grpc/call_base.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::grpc_transport {

void CallBase::Wake(Where where) {
  {
    MutexLock lock(&mutex_);
    if (telling_ || scheduled_ || !IsDue()) return;
    if (where == Where::kElsewhere && RunsUserCode()) {
      scheduled_ = true;
    } else {
      telling_ = true;
    }
    Ref();
    if (telling_) where = Where::kHere;
  }
  if (where == Where::kHere) {
    TellAll();
  } else {
    threads_->RunSoon([this] {
      {
        MutexLock lock(&mutex_);
        scheduled_ = false;
        telling_ = true;
      }
      TellAll();
    });
  }
}

// With a reference, which it gives back.
void CallBase::TellAll() {
  for (;;) {
    {
      MutexLock lock(&mutex_);
      if (waiting_ > 0) told_.SignalAll();
      if (!IsDue()) {
        telling_ = false;
        break;
      }
    }
    TellNext();
  }
  Unref();
}

bool CallBase::Wait(absl::FunctionRef<bool()> done, SteadyTime deadline) {
  // What `done` looks at is the caller's, who may be gone once it holds: only this object is touched then.
  MutexLock lock(&mutex_);
  ++waiting_;
  bool expired = false;
  while (!done() && !expired) expired = told_.WaitUntil(&mutex_, deadline);
  --waiting_;
  return done();
}

}  // namespace shmrpc::grpc_transport
