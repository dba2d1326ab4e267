#include "runtime/src/running_server.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/deadline_timer.h"
#include "runtime/src/large_message.h"
#include "runtime/src/log.h"
#include "runtime/src/misuse.h"
#include "runtime/src/running_handlers.h"
#include "runtime/src/server_styles.h"
#include "runtime/src/thread.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::internal {
namespace {

// A client that asks for what does not exist is told what does, up to this many names.
constexpr size_t kMaxNamesInError = 20;

std::string JoinNames(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  const size_t more = names.size() > kMaxNamesInError ? names.size() - kMaxNamesInError : 0;
  names.resize(names.size() - more);
  std::string joined = absl::StrJoin(names, ", ");
  if (more > 0) absl::StrAppend(&joined, " and ", more, " more");
  return joined;
}

}  // namespace

RunningServer::RunningServer(const std::vector<Service*>& services, Service* generic_service,
                             std::unique_ptr<ServedHealthService> health, std::vector<ServerInterceptor> interceptors,
                             size_t max_send_message_bytes, int max_concurrent_calls)
    : health_(std::move(health)),
      calls_(interceptors, max_send_message_bytes, max_concurrent_calls),
      health_calls_(std::move(interceptors), max_send_message_bytes, std::nullopt) {
  for (Service* service : services) AddService(service, &calls_);
  if (health_ != nullptr) AddService(health_.get(), &health_calls_);
  if (generic_service != nullptr) {
    generic_method_.emplace(MakeMethod(generic_service, generic_service->ShmrpcMethods()[0], &calls_));
  }
}

void RunningServer::AddService(Service* service, ServerCalls* calls) {
  service_names_.emplace_back(service->ShmrpcServiceName());
  for (const ServiceMethod& method : service->ShmrpcMethods()) {
    methods_.emplace(method.path, MakeMethod(service, method, calls));
  }
}

RegisteredMethod RunningServer::MakeMethod(Service* service, const ServiceMethod& method, ServerCalls* calls) {
  message_pools_.push_back(std::make_unique<MessagePool>(&method));
  asynchronous_calls_.push_back(std::make_unique<AsynchronousCalls>());
  return RegisteredMethod(service, &method, calls, message_pools_.back().get(), asynchronous_calls_.back().get());
}

RunningServer::~RunningServer() {
  if (fork_generation_ == ForkGeneration()) {
    std::string method;
    if (IsInOwnHandler(&method)) {
      FatalMisuse(absl::StrCat("a handler of ", method,
                               " has destroyed the server that runs it; call Shutdown there, and "
                               "destroy the server when Wait has returned"));
    }
    Shutdown(absl::InfinitePast());
    std::thread other;
    {
      MutexLock lock(&mutex_);
      other.swap(shutdown_for_handler_);
    }
    if (other.joinable()) other.join();
  } else {
    // In a fork()ed child: the threads and connections are the parent's, and to take them down would disturb it.
    for (std::unique_ptr<Listener>& listener : listeners_) static_cast<void>(listener.release());
  }
}

absl::Status RunningServer::Listen(Transport& transport, const Target& target, const ListenOptions& options) {
  absl::StatusOr<std::unique_ptr<Listener>> listener = transport.Listen(target, options, this);
  if (!listener.ok()) {
    return absl::Status(listener.status().code(), absl::StrCat("cannot listen on \"", absl::CHexEscape(target.original),
                                                               "\": ", listener.status().message()));
  }
  addresses_.push_back((*listener)->address());
  listeners_.push_back(*std::move(listener));
  return absl::OkStatus();
}

bool RunningServer::IsOwn(const RegisteredMethod* method) const {
  for (const auto& [path, own] : methods_) {
    if (&own == method) return true;
  }
  return false;
}

bool RunningServer::IsInOwnHandler(std::string* method) const {
  return HandlerScope::AnyOfThisThread([&](const RegisteredMethod* running) {
    if (running->calls != &calls_ && running->calls != &health_calls_) return false;
    *method = running->method->path;
    return true;
  });
}

std::string RunningServer::DescribeRunning() const {
  absl::btree_map<std::string, int64_t> running;
  HandlerScope::OfAllThreads([&](const RegisteredMethod* method) {
    if (IsOwn(method) && method->method->invoke != nullptr) ++running[method->method->path];
  });
  for (const auto& [path, method] : methods_) {
    const int64_t count = method.asynchronous->count();
    if (count > 0) running[std::string(path)] += count;
  }
  if (running.empty()) return "clients that take their last replies";
  return absl::StrJoin(running, ", ", [](std::string* out, const auto& method) {
    absl::StrAppend(out, method.second, method.second == 1 ? " handler of " : " handlers of ", method.first);
  });
}

// Says now and then what a Shutdown that takes long waits for.
class RunningServer::ShutdownWatch {
 public:
  ShutdownWatch(const RunningServer& server, SteadyTime deadline) : server_(server), deadline_(deadline) {
    MutexLock lock(&mutex_);
    ScheduleNext(std::clamp(deadline, begin_, begin_ + kPatience) + kGrace);
  }
  ~ShutdownWatch() {
    DeadlineTimer::Handle timer;
    {
      MutexLock lock(&mutex_);
      over_ = true;
      timer = timer_;
    }
    DeadlineTimer::Get().Cancel(timer);
  }

 private:
  static constexpr absl::Duration kPatience = absl::Seconds(10);  // with handlers that may still finish by themselves
  static constexpr absl::Duration kGrace = absl::Seconds(1);      // for those that have been cancelled
  static constexpr absl::Duration kMaxPause = absl::Minutes(1);

  void ScheduleNext(SteadyTime when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    timer_ = DeadlineTimer::Get().Schedule(when, [this] { Look(); });
  }
  void Look() {
    MutexLock lock(&mutex_);
    if (over_) return;
    const SteadyTime now = SteadyTime::Now();
    LogWarning(absl::StrCat("Server::Shutdown still waits for ", server_.DescribeRunning(), " after ",
                            absl::FormatDuration(absl::Trunc(now - begin_, absl::Milliseconds(100))),
                            deadline_.HasPassed() ? "; its deadline has passed and they have been cancelled"
                                                  : "; its deadline has not passed yet"));
    ScheduleNext(now + pause_);
    pause_ = std::min(2 * pause_, kMaxPause);
  }

  const RunningServer& server_;
  const SteadyTime begin_ = SteadyTime::Now();
  const SteadyTime deadline_;
  Mutex mutex_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration pause_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(5);
  DeadlineTimer::Handle timer_ ABSL_GUARDED_BY(mutex_);
};

void RunningServer::Shutdown(absl::Time system_deadline) {
  std::string method;
  if (IsInOwnHandler(&method)) {
    (void)Misuse(absl::StrCat("a handler of ", method,
                              " has called Shutdown of the server that runs it, which waits for "
                              "handlers: let another thread call it. It goes on on a thread of its own"));
    MutexLock lock(&mutex_);
    if (shutdown_for_handler_.joinable()) return;
    absl::StatusOr<std::thread> thread =
        StartThread("shmrpc-shutdown", [this, system_deadline] { Shutdown(system_deadline); });
    if (!thread.ok()) return LogWarning(absl::StrCat("no Shutdown: ", thread.status().message()));
    shutdown_for_handler_ = *std::move(thread);
    return;
  }
  const SteadyTime deadline = SteadyTime::FromSystem(system_deadline);
  const ShutdownWatch watch(*this, deadline);
  // First, while there is somebody to be told, and so that the Watches end, which would hold up the listeners.
  if (health_ != nullptr) health_->Shutdown();
  // All at the same time: each may take until the deadline.
  std::vector<std::thread> threads;
  for (size_t i = 1; i < listeners_.size(); ++i) {
    Listener* const listener = listeners_[i].get();
    absl::StatusOr<std::thread> thread =
        StartThread("shmrpc-shutdown", [listener, deadline] { listener->Shutdown(deadline); });
    if (thread.ok()) {
      threads.push_back(*std::move(thread));
    } else {
      listener->Shutdown(deadline);
    }
  }
  if (!listeners_.empty()) listeners_[0]->Shutdown(deadline);
  for (std::thread& thread : threads) thread.join();
  for (const std::unique_ptr<AsynchronousCalls>& calls : asynchronous_calls_) calls->Wait();

  MutexLock lock(&mutex_);
  shut_down_ = true;
  shut_down_changed_.SignalAll();
}

void RunningServer::Wait() {
  std::string method;
  if (IsInOwnHandler(&method)) {
    (void)Misuse(
        absl::StrCat("a handler of ", method, " has called Wait of the server that runs it, which waits for handlers"));
    return;
  }
  MutexLock lock(&mutex_);
  while (!shut_down_) shut_down_changed_.Wait(&mutex_);
}

void RunningServer::OnCall(ServerCallPtr call, const IncomingMessage* request) {
  const SteadyTime arrival = call->arrival();
  if (arrival == SteadyTime::InfinitePast() ? call->deadline().HasPassed() : call->deadline() <= arrival) {
    return FailServerCall(std::move(call), DeadlineBeforeHandler());
  }
  const ResolvedMethod* resolved = call->resolved_method();
  if (resolved == nullptr) resolved = ResolveMethod(call->method());
  if (resolved == nullptr) {
    absl::Status status = UnknownMethod(call->method());
    return FailServerCall(std::move(call), std::move(status));
  }
  const RegisteredMethod& method = static_cast<const RegisteredMethod&>(*resolved);
  ServerCalls& calls = *method.calls;
  absl::Status status = calls.Enter();
  // Of the refusals the one that may be different the next time.
  if (!status.ok()) return FailServerCall(std::move(call), std::move(status), /*not_processed=*/true);
  if (method.method->invoke != nullptr) return RunSynchronous(&calls, method, std::move(call), request);
  if (method.method->react != nullptr) return RunReactor(&calls, method, std::move(call), request);
  RunCoroutine(&calls, method, std::move(call), request);
}

const ResolvedMethod* RunningServer::ResolveMethod(std::string_view method) const {
  const auto found = methods_.find(method);
  if (found != methods_.end()) return &found->second;
  return generic_method_.has_value() ? &*generic_method_ : nullptr;
}

bool RunningServer::NeedsRequest(std::string_view method) const {
  const auto found = methods_.find(method);
  return found != methods_.end() && !ClientStreams(found->second.method->kind);
}

const google::protobuf::Descriptor* RunningServer::request_type(std::string_view method) const {
  const auto found = methods_.find(method);
  return found != methods_.end() ? DescriptorOf(found->second.method->request_prototype()) : nullptr;
}

absl::Status RunningServer::UnknownMethod(std::string_view path) const {
  const size_t slash = path.rfind('/');
  if (path.empty() || path[0] != '/' || slash == 0) {
    return absl::UnimplementedError(
        absl::StrCat("method \"", absl::CHexEscape(ToAbsl(path)), "\" is not of the form /package.Service/Method"));
  }
  const std::string_view service = path.substr(1, slash - 1);
  if (std::find(service_names_.begin(), service_names_.end(), service) == service_names_.end()) {
    return absl::UnimplementedError(absl::StrCat("unknown service \"", absl::CHexEscape(ToAbsl(service)),
                                                 "\"; this server has: ", JoinNames(service_names_)));
  }
  std::vector<std::string> methods;
  for (const auto& [known, method] : methods_) {
    const std::string_view name = known;
    if (name.starts_with(path.substr(0, slash + 1))) methods.emplace_back(name.substr(slash + 1));
  }
  return absl::UnimplementedError(absl::StrCat("service \"", ToAbsl(service), "\" has no method \"",
                                               absl::CHexEscape(ToAbsl(path.substr(slash + 1))),
                                               "\"; it has: ", JoinNames(std::move(methods))));
}

}  // namespace shmrpc::internal
