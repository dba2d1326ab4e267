#include "shmrpc/server.h"

#include <cxxabi.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "google/protobuf/arena.h"
#include "runtime/src/fork.h"
#include "runtime/src/thread.h"
#include "shmrpc/message.h"
#include "shmrpc/mutex.h"
#include "shmrpc/server_context.h"

namespace shmrpc {
namespace {

// The first block of a call's arena; on the handler's stack, so that small messages need no allocation.
constexpr size_t kArenaBlockBytes = 4096;

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

// What a handler returns, made fit to travel: a code that absl::StatusCode does not have becomes UNKNOWN.
absl::Status WithKnownCode(absl::Status status) {
  if (status.raw_code() == static_cast<int>(status.code())) return status;
  absl::Status known(absl::StatusCode::kUnknown,
                     absl::StrCat("the handler returned the status code ", status.raw_code(), ": ", status.message()));
  status.ForEachPayload(
      [&](absl::string_view type_url, const absl::Cord& payload) { known.SetPayload(type_url, payload); });
  return known;
}

class RunningServer final : public Server, private CallHandler {
 public:
  RunningServer(const std::vector<Service*>& services, size_t max_send_message_bytes)
      : max_send_message_bytes_(max_send_message_bytes) {
    for (Service* service : services) {
      service_names_.emplace_back(service->ShmrpcServiceName());
      for (const ServiceMethod& method : service->ShmrpcMethods())
        methods_.emplace(method.path, Method{service, &method});
    }
  }

  ~RunningServer() override {
    if (fork_generation_ == internal::ForkGeneration()) {
      Shutdown(absl::InfinitePast());
    } else {
      // In a fork()ed child: the threads and connections are the parent's, and to take them down would disturb it.
      for (std::unique_ptr<Listener>& listener : listeners_) static_cast<void>(listener.release());
    }
  }

  absl::Status Listen(Transport& transport, const Target& target, const ListenOptions& options) {
    absl::StatusOr<std::unique_ptr<Listener>> listener = transport.Listen(target, options, this);
    if (!listener.ok()) {
      return absl::Status(
          listener.status().code(),
          absl::StrCat("cannot listen on \"", absl::CHexEscape(target.original), "\": ", listener.status().message()));
    }
    addresses_.push_back((*listener)->address());
    listeners_.push_back(*std::move(listener));
    return absl::OkStatus();
  }

  const std::vector<Target>& addresses() const override { return addresses_; }

  void Shutdown(absl::Time deadline) override {
    // All at the same time: each may take until the deadline.
    std::vector<std::thread> threads;
    for (size_t i = 1; i < listeners_.size(); ++i) {
      Listener* const listener = listeners_[i].get();
      absl::StatusOr<std::thread> thread =
          internal::StartThread("shmrpc-shutdown", [listener, deadline] { listener->Shutdown(deadline); });
      if (thread.ok()) {
        threads.push_back(*std::move(thread));
      } else {
        listener->Shutdown(deadline);
      }
    }
    if (!listeners_.empty()) listeners_[0]->Shutdown(deadline);
    for (std::thread& thread : threads) thread.join();

    MutexLock lock(&mutex_);
    shut_down_ = true;
    shut_down_changed_.SignalAll();
  }

  void Wait() override {
    MutexLock lock(&mutex_);
    while (!shut_down_) shut_down_changed_.Wait(&mutex_);
  }

 private:
  struct Method {
    Service* service;
    const ServiceMethod* method;
  };

  void OnCall(ServerCallPtr call, const IncomingMessage& request_bytes) override {
    if (call->deadline() != absl::InfiniteFuture() && absl::Now() >= call->deadline()) {
      return Fail(std::move(call),
                  absl::DeadlineExceededError("the deadline passed before the handler could start; it did not run"));
    }
    const auto found = methods_.find(call->method());
    if (found == methods_.end()) {
      absl::Status status = UnknownMethod(call->method());
      return Fail(std::move(call), std::move(status));
    }
    const Method& method = found->second;

    // The messages live until the reply is sent.
    alignas(std::max_align_t) char block[kArenaBlockBytes];
    google::protobuf::ArenaOptions arena_options;
    arena_options.initial_block = block;
    arena_options.initial_block_size = sizeof(block);
    google::protobuf::Arena arena(arena_options);
    google::protobuf::MessageLite* const request = method.method->request_prototype().New(&arena);
    google::protobuf::MessageLite* const reply = method.method->reply_prototype().New(&arena);

    absl::Status status = ParseRequest(request_bytes, *method.method, request);
    if (!status.ok()) return Fail(std::move(call), std::move(status));

    ServerContext context(call.get());
    status = Invoke(method, &context, *request, reply);
    Reply(std::move(call), context, *method.method, std::move(status), *reply);
  }

  static absl::Status ParseRequest(const IncomingMessage& bytes, const ServiceMethod& method,
                                   google::protobuf::MessageLite* request) {
    if (!bytes.ParseTo(request)) {
      return absl::InternalError(absl::StrCat("the request of ", method.path, " (", bytes.size(), " bytes) is not a ",
                                              request->GetTypeName(),
                                              "; client and server may have been built from different .proto files"));
    }
    if (!request->IsInitialized()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the request of ", method.path, ", a ", request->GetTypeName(),
                       ", lacks required fields: ", request->InitializationErrorString()));
    }
    return absl::OkStatus();
  }

  static absl::Status Invoke(const Method& method, ServerContext* context, const google::protobuf::MessageLite& request,
                             google::protobuf::MessageLite* reply) {
    try {
      return WithKnownCode(method.method->invoke(method.service, context, request, reply));
    } catch (const abi::__forced_unwind&) {
      throw;  // the thread is being cancelled; that is no exception of the handler's
    } catch (const std::exception& error) {
      return absl::UnknownError(absl::StrCat("the handler of ", method.method->path, " threw: ", error.what()));
    } catch (...) {
      return absl::UnknownError(
          absl::StrCat("the handler of ", method.method->path, " threw something that is not a std::exception"));
    }
  }

  void Reply(ServerCallPtr call, const ServerContext& context, const ServiceMethod& method, absl::Status status,
             const google::protobuf::MessageLite& reply) const {
    for (const Metadata* metadata : {&context.initial_metadata(), &context.trailing_metadata()}) {
      absl::Status valid = metadata->Validate();
      if (valid.ok()) continue;
      return Fail(std::move(call),
                  absl::InternalError(absl::StrCat("the handler of ", method.path, " added ", valid.message())));
    }
    ServerCall::Reply out;
    if (!context.initial_metadata().empty()) out.initial_metadata = &context.initial_metadata();
    if (!context.trailing_metadata().empty()) out.trailing_metadata = &context.trailing_metadata();
    if (!status.ok()) {
      out.status = std::move(status);
      return FinishCall(std::move(call), out);
    }
    if (!reply.IsInitialized()) {
      out.status = absl::InternalError(absl::StrCat("the reply of ", method.path, ", a ", reply.GetTypeName(),
                                                    ", lacks required fields: ", reply.InitializationErrorString()));
      return FinishCall(std::move(call), out);
    }
    const OutgoingProto message(reply);
    if (message.size() > max_send_message_bytes_) {
      out.status = absl::ResourceExhaustedError(absl::StrCat("the reply of ", method.path, " has ", message.size(),
                                                             " bytes, the server's limit is ", max_send_message_bytes_,
                                                             "; ServerBuilder::SetMaxSendMessageBytes can raise it"));
    } else {
      out.message = &message;
    }
    FinishCall(std::move(call), out);
  }

  static void Fail(ServerCallPtr call, absl::Status status) {
    ServerCall::Reply reply;
    reply.status = std::move(status);
    FinishCall(std::move(call), reply);
  }

  // `path` comes from the client and may be anything.
  absl::Status UnknownMethod(absl::string_view path) const {
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

  const size_t max_send_message_bytes_;
  const uint32_t fork_generation_ = internal::ForkGeneration();
  std::vector<std::string> service_names_;
  absl::flat_hash_map<absl::string_view, Method> methods_;  // constant once the first listener exists

  std::vector<Target> addresses_;

  Mutex mutex_;
  CondVar shut_down_changed_;
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;

  // Last: the listeners go first, and with them the calls that use the rest.
  std::vector<std::unique_ptr<Listener>> listeners_;
};

absl::Status CheckServices(const std::vector<Service*>& services) {
  if (services.empty()) {
    return absl::InvalidArgumentError("the server has no service; ServerBuilder::Register names one");
  }
  absl::flat_hash_set<absl::string_view> names;
  for (Service* service : services) {
    if (service == nullptr) return absl::InvalidArgumentError("ServerBuilder::Register was given a null service");
    const absl::string_view name = service->ShmrpcServiceName();
    if (!names.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat("service \"", name, "\" is registered twice"));
    }
    absl::flat_hash_set<absl::string_view> paths;
    for (const ServiceMethod& method : service->ShmrpcMethods()) {
      absl::string_view rest = method.path;
      if (!absl::ConsumePrefix(&rest, "/") || !absl::ConsumePrefix(&rest, name) || !absl::ConsumePrefix(&rest, "/") ||
          rest.empty() || absl::StrContains(rest, "/")) {
        return absl::InvalidArgumentError(absl::StrCat("method \"", absl::CHexEscape(method.path), "\" of service \"",
                                                       name, "\" is not of the form /", name, "/Method"));
      }
      if (!paths.insert(method.path).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("service \"", name, "\" has the method ", method.path, " twice"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLimit(absl::string_view setter, size_t limit) {
  if (limit <= kMaxMaxMessageBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("ServerBuilder::", setter, "(", limit, "): protobuf allows ",
                                                 kMaxMaxMessageBytes, " bytes at most"));
}

}  // namespace

ServerBuilder::ServerBuilder(TransportSet transports) : transports_(std::move(transports)) {}

ServerBuilder& ServerBuilder::Listen(absl::string_view address) {
  addresses_.emplace_back(address);
  return *this;
}

ServerBuilder& ServerBuilder::Register(Service* service) {
  services_.push_back(service);
  return *this;
}

ServerBuilder& ServerBuilder::SetMaxThreads(int max_threads) {
  options_.max_threads = max_threads;
  return *this;
}

ServerBuilder& ServerBuilder::SetMaxReceiveMessageBytes(size_t limit) {
  options_.max_receive_message_bytes = limit;
  return *this;
}

ServerBuilder& ServerBuilder::SetMaxSendMessageBytes(size_t limit) {
  max_send_message_bytes_ = limit;
  return *this;
}

ServerBuilder& ServerBuilder::SetWaitMode(WaitMode mode) {
  options_.wait_mode = mode;
  return *this;
}

ServerBuilder& ServerBuilder::SetTransport(TransportPreference preference) {
  options_.transport = preference;
  return *this;
}

ServerBuilder& ServerBuilder::SetUnixSocketMode(mode_t mode) {
  options_.unix_socket_mode = mode;
  return *this;
}

ServerBuilder& ServerBuilder::AllowOtherUsers(bool allow) {
  options_.same_user_only = !allow;
  return *this;
}

absl::StatusOr<std::unique_ptr<Server>> ServerBuilder::Start() {
  absl::Status status = CheckServices(services_);
  status.Update(CheckLimit("SetMaxReceiveMessageBytes", options_.max_receive_message_bytes));
  status.Update(CheckLimit("SetMaxSendMessageBytes", max_send_message_bytes_));
  if (options_.max_threads < 1) {
    status.Update(absl::InvalidArgumentError(
        absl::StrCat("ServerBuilder::SetMaxThreads(", options_.max_threads, "): a server needs at least one thread")));
  }
  if (addresses_.empty()) {
    status.Update(absl::InvalidArgumentError("the server has no address; ServerBuilder::Listen names one"));
  }
  std::vector<std::pair<Target, Transport*>> places;
  for (const std::string& address : addresses_) {
    absl::StatusOr<Target> target = Target::Parse(address);
    status.Update(target.status());
    if (!target.ok()) continue;
    const auto transport = std::find_if(transports_.begin(), transports_.end(),
                                        [&](const std::shared_ptr<Transport>& each) { return each->Handles(*target); });
    if (transport == transports_.end()) {
      status.Update(absl::InvalidArgumentError(absl::StrCat("none of the server's ", transports_.size(),
                                                            " transports handles the address \"",
                                                            absl::CHexEscape(address), "\"")));
      continue;
    }
    places.emplace_back(*std::move(target), transport->get());
  }
  if (!status.ok()) return status;

  // The limit is for all addresses together.
  ListenOptions options = options_;
  options.max_threads = std::max(1, options_.max_threads / static_cast<int>(places.size()));
  auto server = std::make_unique<RunningServer>(services_, max_send_message_bytes_);
  for (const auto& [target, transport] : places) {
    status = server->Listen(*transport, target, options);
    if (!status.ok()) return status;
  }
  return server;
}

}  // namespace shmrpc
