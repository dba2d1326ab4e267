#include <algorithm>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/connection_limiter.h"
#include "runtime/src/health_service.h"
#include "runtime/src/option_checks.h"
#include "runtime/src/running_server.h"
#include "shmrpc/generic.h"
#include "shmrpc/server.h"

namespace shmrpc {
namespace {

absl::Status CheckServices(const std::vector<Service*>& services, bool generic_service) {
  if (services.empty() && !generic_service) {
    return absl::InvalidArgumentError("the server has no service; Register names one");
  }
  absl::flat_hash_set<std::string_view> names;
  for (Service* service : services) {
    if (service == nullptr) return absl::InvalidArgumentError("Register was given a null service");
    const std::string_view name = service->ShmrpcServiceName();
    if (!names.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat("service \"", ToAbsl(name), "\" is registered twice"));
    }
    absl::flat_hash_set<std::string_view> paths;
    for (const ServiceMethod& method : service->ShmrpcMethods()) {
      const std::string_view path = method.path;
      const size_t slash = name.size() + 1;
      if (!path.starts_with('/') || path.substr(1, name.size()) != name || path.rfind('/') != slash ||
          path.size() == slash + 1) {
        return absl::InvalidArgumentError(absl::StrCat("method \"", absl::CHexEscape(method.path), "\" of service \"",
                                                       ToAbsl(name), "\" is not of the form /", ToAbsl(name),
                                                       "/Method"));
      }
      if (!paths.insert(method.path).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("service \"", ToAbsl(name), "\" has the method ", method.path, " twice"));
      }
      if ((method.invoke != nullptr) + (method.react != nullptr) + (method.co_invoke != nullptr) != 1) {
        return absl::InvalidArgumentError(absl::StrCat("method ", method.path,
                                                       " has not exactly one of invoke, react and co_invoke; "
                                                       "generate its code again"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLimit(std::string_view option, size_t limit) {
  if (limit <= kMaxMaxMessageBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the option ", ToAbsl(option), " is ", limit, "; protobuf allows ",
                                                 kMaxMaxMessageBytes, " bytes at most"));
}

}  // namespace

ServerBuilder::ServerBuilder(TransportSet transports) : transports_(std::move(transports)) {}

ServerBuilder& ServerBuilder::Listen(std::string_view address) {
  addresses_.emplace_back(address);
  return *this;
}

ServerBuilder& ServerBuilder::Register(Service* service) {
  services_.push_back(service);
  return *this;
}

ServerBuilder& ServerBuilder::RegisterGeneric(GenericServiceBase* service) {
  generic_service_ = service;
  ++generic_services_;
  return *this;
}

ServerBuilder& ServerBuilder::AddInterceptor(ServerInterceptor interceptor) {
  interceptors_.push_back(std::move(interceptor));
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

ServerBuilder& ServerBuilder::SetMaxConcurrentCalls(int limit) {
  max_concurrent_calls_ = limit;
  return *this;
}

ServerBuilder& ServerBuilder::SetConnectionLimits(const ConnectionLimits& limits) {
  options_.limits = limits;
  return *this;
}

ServerBuilder& ServerBuilder::SetFlowControl(const FlowControlOptions& flow_control) {
  options_.flow_control = flow_control;
  return *this;
}

ServerBuilder& ServerBuilder::SetKeepaliveTimeout(absl::Duration timeout) {
  options_.keepalive_timeout = timeout;
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

ServerBuilder& ServerBuilder::EnableHealthService(bool enable) {
  health_service_ = enable;
  return *this;
}

ServerBuilder& ServerBuilder::SetUnixSocketMode(mode_t mode) {
  options_.unix_socket_mode = mode;
  return *this;
}

ServerBuilder& ServerBuilder::SetSharedMemoryAccess(AccessPolicy policy) {
  options_.shared_memory_access = std::move(policy);
  return *this;
}

ServerBuilder& ServerBuilder::SetUnixSocketAccess(AccessPolicy policy) {
  options_.unix_socket_access = std::move(policy);
  return *this;
}

std::vector<std::string> ServerBuilder::ServiceNames() const {
  std::vector<std::string> names;
  for (const Service* service : services_) {
    if (service != nullptr) names.emplace_back(service->ShmrpcServiceName());
  }
  if (HasOwnHealthService()) names.emplace_back(internal::ServedHealthService::kName);
  return names;
}

bool ServerBuilder::HasOwnHealthService() const {
  return health_service_ && std::none_of(services_.begin(), services_.end(), [](const Service* service) {
           return service != nullptr && service->ShmrpcServiceName() == internal::ServedHealthService::kName;
         });
}

absl::StatusOr<std::unique_ptr<Server>> ServerBuilder::Start() {
  absl::Status status = CheckServices(services_, generic_service_ != nullptr);
  if (generic_services_ > 1) {
    status.Update(absl::InvalidArgumentError(absl::StrCat("RegisterGeneric was called ", generic_services_,
                                                          " times: a server has one generic service at most")));
  } else if (generic_services_ == 1 && generic_service_ == nullptr) {
    status.Update(absl::InvalidArgumentError("RegisterGeneric was given a null service"));
  }
  status.Update(CheckLimit("max_receive_message_bytes", options_.max_receive_message_bytes));
  status.Update(CheckLimit("max_send_message_bytes", max_send_message_bytes_));
  if (options_.max_threads < 1) {
    status.Update(absl::InvalidArgumentError(
        absl::StrCat("the option max_threads is ", options_.max_threads, ": a server needs at least one thread")));
  }
  if (max_concurrent_calls_ < 1) {
    status.Update(absl::InvalidArgumentError(absl::StrCat("the option max_concurrent_calls is ", max_concurrent_calls_,
                                                          ": a server must be allowed to run at least one call")));
  }
  status.Update(internal::CheckFlowControl("the option flow_control", options_.flow_control));
  status.Update(internal::CheckConnectionLimits(options_.limits));
  if (options_.keepalive_timeout < kMinKeepaliveTimeout) {
    status.Update(absl::InvalidArgumentError(absl::StrCat(
        "the option keepalive_timeout is ", absl::FormatDuration(options_.keepalive_timeout), "; it must be at least ",
        absl::FormatDuration(kMinKeepaliveTimeout), "; InfiniteDuration() switches keepalive off")));
  }
  if (std::find(interceptors_.begin(), interceptors_.end(), nullptr) != interceptors_.end()) {
    status.Update(absl::InvalidArgumentError("AddInterceptor was given an empty function"));
  }
  if (addresses_.empty()) {
    status.Update(absl::InvalidArgumentError("the server has no address; Listen names one"));
  }
  std::vector<std::pair<Target, Transport*>> places;
  for (const std::string& address : addresses_) {
    absl::StatusOr<Target> target = Target::Parse(address);
    status.Update(target.status());
    if (!target.ok()) continue;
    const auto transport = std::find_if(transports_.begin(), transports_.end(),
                                        [&](const std::shared_ptr<Transport>& each) { return each->Handles(*target); });
    if (transport == transports_.end() && target->kind == Target::Kind::kGrpc) {
      status.Update(absl::InvalidArgumentError(
          absl::StrCat("the address \"", absl::CHexEscape(address),
                       "\" needs the gRPC library: link shmrpc::grpc and give the server TransportsWithGrpc()")));
      continue;
    }
    if (transport == transports_.end()) {
      status.Update(absl::InvalidArgumentError(absl::StrCat("none of the server's ", transports_.size(),
                                                            " transports handles the address \"",
                                                            absl::CHexEscape(address), "\"")));
      continue;
    }
    places.emplace_back(*std::move(target), transport->get());
  }
  if (!status.ok()) return status;

  // These limits are for all addresses together.
  ListenOptions options = options_;
  options.connection_limiter = std::make_shared<internal::ConnectionLimiter>(options_.limits);
  options.max_threads = std::max(1, options_.max_threads / static_cast<int>(places.size()));
  std::unique_ptr<internal::ServedHealthService> health;
  if (HasOwnHealthService()) {
    health = std::make_unique<internal::ServedHealthService>(services_);
  }
  auto server = std::make_unique<internal::RunningServer>(services_, generic_service_, std::move(health), interceptors_,
                                                          max_send_message_bytes_, max_concurrent_calls_);
  for (const auto& [target, transport] : places) {
    status = server->Listen(*transport, target, options);
    if (!status.ok()) return status;
  }
  return server;
}

}  // namespace shmrpc
