#include "runtime/src/health_service.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace shmrpc::internal {

using health::HealthCheckRequest;

// One Watch. It is known to the service from its beginning until the decision to finish it. While its next step is
// the job of some thread, or a write is under way, it is not finished; hence it lives until the job is done.
class ServedHealthService::Watcher final : public ServerWriteReactor<Response> {
 public:
  Watcher(ServedHealthService* service, std::string name) : service_(service), name_(std::move(name)) {}

  void Do(Step step) {
    if (step == Step::kWrite) StartWrite(&message_);
    if (step == Step::kFinish) Finish(absl::UnavailableError("the server is shutting down"));
  }

  // Also when the write has failed: then the call is over.
  void OnWriteDone(bool ok) override {
    Step step;
    {
      MutexLock lock(&service_->mutex_);
      writing_ = false;
      if (!ok) cancelled_ = true;
      step = service_->NextStep(this);
    }
    Do(step);
  }
  void OnCancel() override {
    Step step;
    {
      MutexLock lock(&service_->mutex_);
      cancelled_ = true;
      step = service_->NextStep(this);
    }
    Do(step);
  }
  void OnDone() override { delete this; }

 private:
  friend class ServedHealthService;

  ServedHealthService* const service_;
  const std::string name_;
  Response message_;  // the latest that was written; the writer's while writing_
  bool writing_ ABSL_GUARDED_BY(service_->mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(service_->mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(service_->mutex_) = false;
};

ServedHealthService::ServedHealthService(const std::vector<Service*>& services) {
  MutexLock lock(&mutex_);
  entries_[""].status = Response::SERVING;
  for (Service* service : services) {
    entries_[std::string(service->ShmrpcServiceName())].status = Response::SERVING;
  }
}

void ServedHealthService::SetServingStatus(std::string_view service, bool serving) {
  std::vector<Job> jobs;
  {
    MutexLock lock(&mutex_);
    if (shut_down_) return;
    Update(&entries_[std::string(service)], serving ? Response::SERVING : Response::NOT_SERVING, &jobs);
  }
  Do(jobs);
}

void ServedHealthService::SetAll(bool serving) {
  std::vector<Job> jobs;
  {
    MutexLock lock(&mutex_);
    if (shut_down_) return;
    UpdateAll(serving ? Response::SERVING : Response::NOT_SERVING, &jobs);
  }
  Do(jobs);
}

void ServedHealthService::Shutdown() {
  std::vector<Job> jobs;
  {
    MutexLock lock(&mutex_);
    if (shut_down_) return;
    shut_down_ = true;
    UpdateAll(Response::NOT_SERVING, &jobs);
  }
  Do(jobs);
}

void ServedHealthService::UpdateAll(Status status, std::vector<Job>* jobs) {
  // NextStep may erase the entry of an unknown name together with its last Watch.
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  for (const std::string& name : names) {
    Entry& entry = entries_[name];
    Update(&entry, entry.status == Response::SERVICE_UNKNOWN ? entry.status : status, jobs);
  }
}

void ServedHealthService::Update(Entry* entry, Status status, std::vector<Job>* jobs) {
  entry->status = status;
  const std::vector<Watcher*> watchers(entry->watchers.begin(), entry->watchers.end());
  for (Watcher* watcher : watchers) jobs->push_back({watcher, NextStep(watcher)});
}

void ServedHealthService::Do(const std::vector<Job>& jobs) {
  // A Watch without a job may be gone already.
  for (const Job& job : jobs) {
    if (job.step != Step::kNothing) job.watcher->Do(job.step);
  }
}

ServedHealthService::Step ServedHealthService::NextStep(Watcher* watcher) {
  if (watcher->writing_ || watcher->finished_) return Step::kNothing;
  const auto entry = entries_.find(watcher->name_);
  const Status status = entry->second.status;
  if (!watcher->cancelled_ && status != watcher->message_.status()) {
    watcher->message_.set_status(status);
    watcher->writing_ = true;
    return Step::kWrite;
  }
  if (!watcher->cancelled_ && !shut_down_) return Step::kNothing;
  watcher->finished_ = true;
  entry->second.watchers.erase(watcher);
  if (status == Response::SERVICE_UNKNOWN && entry->second.watchers.empty()) entries_.erase(entry);
  return Step::kFinish;
}

ServerReactor* ServedHealthService::Check(ServerContext* context, const HealthCheckRequest& request, Response* reply) {
  Status status = Response::SERVICE_UNKNOWN;
  {
    MutexLock lock(&mutex_);
    const auto entry = entries_.find(request.service());
    if (entry != entries_.end()) status = entry->second.status;
  }
  ServerUnaryReactor* const reactor = context->DefaultReactor();
  if (status == Response::SERVICE_UNKNOWN) {
    reactor->Finish(absl::NotFoundError(
        absl::StrCat("this server knows no service \"", absl::CHexEscape(request.service()), "\"")));
  } else {
    reply->set_status(status);
    reactor->Finish(absl::OkStatus());
  }
  return reactor;
}

ServerReactor* ServedHealthService::Watch(const HealthCheckRequest& request) {
  auto* const watcher = new Watcher(this, request.service());
  Step step;
  {
    MutexLock lock(&mutex_);
    entries_[watcher->name_].watchers.insert(watcher);
    step = NextStep(watcher);  // a write: no status is UNKNOWN, as the message is at first
  }
  watcher->Do(step);
  return watcher;
}

std::span<const ServiceMethod> ServedHealthService::ShmrpcMethods() const {
  static constexpr auto kRequest = []() -> const google::protobuf::MessageLite& {
    return HealthCheckRequest::default_instance();
  };
  static constexpr auto kResponse = []() -> const google::protobuf::MessageLite& {
    return Response::default_instance();
  };
  static constexpr ServiceMethod kMethods[] = {
      {
          .path = "/grpc.health.v1.Health/Check",
          .kind = MethodKind::kUnary,
          .request_prototype = kRequest,
          .reply_prototype = kResponse,
          .react = [](Service* service, ServerContext* context, const google::protobuf::MessageLite* request,
                      google::protobuf::MessageLite* reply) -> ServerReactor* {
            return static_cast<ServedHealthService*>(service)->Check(
                context, static_cast<const HealthCheckRequest&>(*request), static_cast<Response*>(reply));
          },
      },
      {
          .path = "/grpc.health.v1.Health/Watch",
          .kind = MethodKind::kServerStreaming,
          .request_prototype = kRequest,
          .reply_prototype = kResponse,
          .react = [](Service* service, ServerContext*, const google::protobuf::MessageLite* request,
                      google::protobuf::MessageLite*) -> ServerReactor* {
            return static_cast<ServedHealthService*>(service)->Watch(static_cast<const HealthCheckRequest&>(*request));
          },
      },
  };
  return kMethods;
}

}  // namespace shmrpc::internal
