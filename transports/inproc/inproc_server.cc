#include "transports/inproc/inproc_server.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/fork.h"
#include "transports/inproc/inproc_call.h"

namespace shmrpc::internal {
namespace {

Peer ThisProcess(absl::string_view name) {
  Peer peer;
  peer.transport = "inproc";
  peer.address = absl::StrCat("inproc:", name);
  peer.uid = geteuid();
  peer.pid = getpid();
  return peer;
}

struct CallbackPool {
  WorkerPool pool{"shmrpc-callback", 1, WaitMode::kAdaptive};
};

constinit PerProcess<CallbackPool> callback_pool;

}  // namespace

WorkerPool& InprocCallbackPool() { return callback_pool.Get().pool; }

InprocServer::InprocServer(std::string name, const ListenOptions& options, CallHandler* handler)
    : name_(std::move(name)),
      peer_(ThisProcess(name_)),
      handler_(handler),
      max_receive_message_bytes_(options.max_receive_message_bytes),
      pool_("shmrpc-handler", options.max_threads, options.wait_mode) {}

absl::Status InprocServer::ShutDownError() const {
  return absl::UnavailableError(
      absl::StrCat("the server at \"inproc:", absl::CHexEscape(name_), "\" is shutting down"));
}

absl::Status InprocServer::Accept(InprocCall* call) {
  {
    MutexLock lock(&mutex_);
    if (draining_.load(std::memory_order_relaxed)) return ShutDownError();
    call->Ref();
    call->next_ = calls_;
    if (calls_ != nullptr) calls_->previous_ = call;
    calls_ = call;
  }
  if (pool_.Submit(call->handler_task())) return absl::OkStatus();
  absl::Status status =
      IsDraining() ? ShutDownError() : absl::ResourceExhaustedError("the system has no thread left for a handler");
  OnFinished(call);
  return status;
}

void InprocServer::OnFinished(InprocCall* call) {
  {
    MutexLock lock(&mutex_);
    if (call->previous_ != nullptr) {
      call->previous_->next_ = call->next_;
    } else {
      calls_ = call->next_;
    }
    if (call->next_ != nullptr) call->next_->previous_ = call->previous_;
    if (calls_ == nullptr && draining_.load(std::memory_order_relaxed)) drained_.SignalAll();
  }
  call->Unref();
}

void InprocServer::CancelCalls(const void* connection, const absl::Status& status) {
  CancelCallsIf([connection](const InprocCall& call) { return call.connection() == connection; }, status);
}

void InprocServer::CancelCallsIf(absl::FunctionRef<bool(const InprocCall&)> chosen, const absl::Status& status) {
  std::vector<InprocCall*> calls;
  {
    MutexLock lock(&mutex_);
    for (InprocCall* call = calls_; call != nullptr; call = call->next_) {
      if (!chosen(*call)) continue;
      call->Ref();
      calls.push_back(call);
    }
  }
  for (InprocCall* call : calls) {
    call->Cancel(status);
    call->Unref();
  }
}

void InprocServer::Shutdown(absl::Time deadline) {
  {
    MutexLock lock(&mutex_);
    draining_.store(true, std::memory_order_release);
    while (calls_ != nullptr) {
      if (drained_.WaitWithDeadline(&mutex_, deadline)) break;
    }
  }
  CancelCallsIf([](const InprocCall&) { return true; },
                absl::UnavailableError(absl::StrCat("the server at \"inproc:", absl::CHexEscape(name_),
                                                    "\" was shut down before the call had finished")));
  pool_.Stop();
}

}  // namespace shmrpc::internal
