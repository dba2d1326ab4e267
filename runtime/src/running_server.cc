#include "runtime/src/running_server.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "runtime/src/large_message.h"
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

RunningServer::RunningServer(const std::vector<Service*>& services, std::unique_ptr<ServedHealthService> health,
                             std::vector<ServerInterceptor> interceptors, size_t max_send_message_bytes,
                             int max_concurrent_calls)
    : health_(std::move(health)),
      calls_(interceptors, max_send_message_bytes, max_concurrent_calls),
      health_calls_(std::move(interceptors), max_send_message_bytes, absl::nullopt) {
  for (Service* service : services) AddService(service, &calls_);
  if (health_ != nullptr) AddService(health_.get(), &health_calls_);
}

void RunningServer::AddService(Service* service, ServerCalls* calls) {
  service_names_.emplace_back(service->ShmrpcServiceName());
  for (const ServiceMethod& method : service->ShmrpcMethods()) {
    message_pools_.push_back(std::make_unique<MessagePool>(&method));
    methods_.emplace(method.path, RegisteredMethod(service, &method, calls, message_pools_.back().get()));
  }
}

RunningServer::~RunningServer() {
  if (fork_generation_ == ForkGeneration()) {
    Shutdown(absl::InfinitePast());
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

void RunningServer::Shutdown(absl::Time system_deadline) {
  const SteadyTime deadline = SteadyTime::FromSystem(system_deadline);
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
  calls_.WaitForAsynchronous();
  health_calls_.WaitForAsynchronous();

  MutexLock lock(&mutex_);
  shut_down_ = true;
  shut_down_changed_.SignalAll();
}

void RunningServer::Wait() {
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

const ResolvedMethod* RunningServer::ResolveMethod(absl::string_view method) const {
  const auto found = methods_.find(method);
  return found != methods_.end() ? &found->second : nullptr;
}

bool RunningServer::NeedsRequest(absl::string_view method) const {
  const auto found = methods_.find(method);
  return found != methods_.end() && !ClientStreams(found->second.method->kind);
}

const google::protobuf::Descriptor* RunningServer::request_type(absl::string_view method) const {
  const auto found = methods_.find(method);
  return found != methods_.end() ? DescriptorOf(found->second.method->request_prototype()) : nullptr;
}

absl::Status RunningServer::UnknownMethod(absl::string_view path) const {
  const size_t slash = path.rfind('/');
  if (path.empty() || path[0] != '/' || slash == 0) {
    return absl::UnimplementedError(
        absl::StrCat("method \"", absl::CHexEscape(path), "\" is not of the form /package.Service/Method"));
  }
  const absl::string_view service = path.substr(1, slash - 1);
  if (std::find(service_names_.begin(), service_names_.end(), service) == service_names_.end()) {
    return absl::UnimplementedError(absl::StrCat("unknown service \"", absl::CHexEscape(service),
                                                 "\"; this server has: ", JoinNames(service_names_)));
  }
  std::vector<std::string> methods;
  for (const auto& [known, method] : methods_) {
    absl::string_view name = known;
    if (absl::ConsumePrefix(&name, path.substr(0, slash + 1))) methods.emplace_back(name);
  }
  return absl::UnimplementedError(absl::StrCat("service \"", service, "\" has no method \"",
                                               absl::CHexEscape(path.substr(slash + 1)),
                                               "\"; it has: ", JoinNames(std::move(methods))));
}

}  // namespace shmrpc::internal
