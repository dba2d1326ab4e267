#include "tests/soak/client_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/soak/metadata_keys.h"
#include "tests/soak/payload.h"

namespace shmrpc::soak {

ClientCall::ClientCall(const Plan& plan, SoakChannel* channel, const ClientEnvironment& environment)
    : environment_(environment), channel_(channel) {
  facts_.plan = plan;
  facts_.confirmed = channel->confirmed();
  facts_.long_stops = environment.state->long_stops.load();
  facts_.channel_created = channel->created();
  facts_.proves_not_processed = environment.proves_not_processed;
  facts_.begun = SteadyTime::Now();
  context_.set_wait_for_ready(plan.wait_for_ready);
  if (plan.timeout.has_value()) {
    // Taken before the library takes it, so never later.
    facts_.deadline = facts_.begun + *plan.timeout;
    context_.set_timeout(*plan.timeout);
  }
  if (plan.refuse_size) context_.set_max_send_message_bytes(plan.request_bytes / 2);
  if (plan.kind == Kind::kUpload || plan.kind == Kind::kChat) {
    Job job;
    FillJob(&job);
    context_.AddMetadata(kJobKey, job.SerializeAsString());
  } else if (plan.metadata) {
    context_.AddMetadata(kIdKey, absl::StrCat(plan.id));
  }
}

void ClientCall::FillJob(Job* job) const {
  job->set_id(plan().id);
  job->set_reply_bytes(plan().reply_bytes);
  job->set_items(plan().items);
  job->set_item_bytes(plan().item_bytes);
  job->set_work_us(plan().work_us);
  job->set_end_code(static_cast<int>(plan().end_code));
  job->set_metadata(plan().metadata);
}

const Request& ClientCall::request() {
  if (request_ == nullptr) {
    request_ = std::make_unique<Request>();
    FillJob(request_->mutable_job());
    request_->set_payload_bytes(plan().request_bytes);
    FillPayload(plan().id, Direction::kToServer, 0, plan().request_bytes, request_->mutable_payload());
    environment_.state->bytes_sent.fetch_add(plan().request_bytes, std::memory_order_relaxed);
  }
  return *request_;
}

void ClientCall::MakeItem(uint32_t number, Item* item) {
  const size_t size = ItemBytes(plan().id, number, plan().item_bytes);
  item->set_id(plan().id);
  item->set_number(number);
  FillPayload(plan().id, Direction::kToServer, number, size, item->mutable_payload());
  environment_.state->bytes_sent.fetch_add(size, std::memory_order_relaxed);
  environment_.state->items_sent.fetch_add(1, std::memory_order_relaxed);
}

void ClientCall::TakeItem(const Item& item) {
  const uint32_t number = items_taken_++;
  if (item.id() != plan().id) return Fail(absl::StrCat("got an item of call ", item.id()));
  if (item.number() != number) return Fail(absl::StrCat("got item ", item.number(), " where ", number, " was due"));
  if (number >= plan().items) return Fail(absl::StrCat("got more than ", plan().items, " items"));
  const absl::Status payload = CheckPayload(plan().id, Direction::kToClient, number,
                                            ItemBytes(plan().id, number, plan().item_bytes), item.payload());
  if (!payload.ok()) return Fail(payload.message());
  environment_.state->bytes_received.fetch_add(item.payload().size(), std::memory_order_relaxed);
  environment_.state->items_received.fetch_add(1, std::memory_order_relaxed);
  Confirm(item.answerer());
}

void ClientCall::End(const absl::Status& status) {
  facts_.cancelled = cancelled_.load();
  const std::optional<std::string> unexplained =
      Unexplained(facts_, status, environment_.board->servers[channel_->server()], *environment_.state);
  if (unexplained.has_value()) Fail(absl::StrCat("ended with ", status.ToString(), ", ", *unexplained));
  const bool as_asked = !status.ok() && status == AskedFor(plan().id, plan().end_code);
  Count(as_asked ? kAsAsked : static_cast<int>(status.code()));
  if (!status.ok() && !as_asked) return;

  // A handler has said so.
  if (!environment_.board->runs.HasRun(plan().id)) Fail("was answered, but no handler has run");
  CheckMetadata();
  if (plan().kind == Kind::kDownload || plan().kind == Kind::kChat) {
    if (items_taken_ != plan().items && !plan().read_items.has_value()) {
      Fail(absl::StrCat("ended with ", status.ToString(), " after ", items_taken_, " of ", plan().items, " items"));
    }
  } else if (status.ok()) {
    CheckReply();
  }
}

void ClientCall::Abandon() {
  if (!cancelled_.load()) Fail("was abandoned without being cancelled");
  Count(kAbandoned);
}

void ClientCall::CheckReply() {
  if (reply_.id() != plan().id) return Fail(absl::StrCat("got the reply of call ", reply_.id()));
  const uint32_t items = plan().kind == Kind::kUpload ? plan().items : 0;
  if (reply_.items() != items) {
    return Fail(absl::StrCat("was told that ", reply_.items(), " items have come, of ", items));
  }
  const absl::Status payload = CheckPayload(plan().id, Direction::kToClient, 0, plan().reply_bytes, reply_.payload());
  if (!payload.ok()) return Fail(payload.message());
  environment_.state->bytes_received.fetch_add(plan().reply_bytes, std::memory_order_relaxed);
  Confirm(reply_.answerer());
}

void ClientCall::CheckMetadata() {
  const std::string expected = plan().metadata ? absl::StrCat(plan().id) : "";
  for (const Metadata* metadata : {&context_.GetServerInitialMetadata(), &context_.GetServerTrailingMetadata()}) {
    const std::string found(metadata->Find(kIdKey).value_or(""));
    if (found != expected) Fail(absl::StrCat("got \"", found, "\" as metadata ", kIdKey, ", not \"", expected, "\""));
  }
}

void ClientCall::Confirm(const Answerer& answerer) {
  channel_->Confirm(
      {.incarnation = answerer.incarnation(), .kills = answerer.kills(), .long_stops = facts_.long_stops});
}

void ClientCall::Count(int outcome) {
  if (ends_.fetch_add(1) != 0) Fail("ended twice");
  environment_.state->outcomes[static_cast<int>(plan().kind)][static_cast<int>(plan().style)][outcome].fetch_add(
      1, std::memory_order_relaxed);
}

void ClientCall::Fail(absl::string_view what) {
  environment_.board->Fail(absl::StrCat(plan().ToString(), " to server ", channel_->server(), " ", what));
}

}  // namespace shmrpc::soak
