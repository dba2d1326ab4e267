#include "tests/soak/handler_call.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/soak/metadata_keys.h"
#include "tests/soak/payload.h"
#include "tests/soak/verdict.h"

namespace shmrpc::soak {

HandlerCall::HandlerCall(const ServerEnvironment& environment, ServerContext* context, const Request* request)
    : environment_(environment), context_(context) {
  const Metadata& metadata = context->client_metadata();
  if (request != nullptr) {
    job_ = request->job();
  } else if (!job_.ParseFromString(std::string(metadata.Find(kJobKey).value_or("")))) {
    Fail("has metadata that does not parse");
  }
  if (job_.id() >= environment_.board->runs.ids_taken()) {
    Fail("is one that no client has begun");
  } else if (!environment_.board->runs.NoteRun(job_.id())) {
    Fail("has run before");
  }
  if (request != nullptr) {
    const absl::Status payload =
        CheckPayload(job_.id(), Direction::kToServer, 0, request->payload_bytes(), request->payload());
    if (!payload.ok()) Fail(payload.message());
    const std::string expected = job_.metadata() ? absl::StrCat(job_.id()) : "";
    const std::string found(metadata.Find(kIdKey).value_or(""));
    if (found != expected) Fail(absl::StrCat("came with \"", found, "\" as metadata ", kIdKey));
  }
  if (job_.metadata()) {
    context->AddInitialMetadata(kIdKey, absl::StrCat(job_.id()));
    context->AddTrailingMetadata(kIdKey, absl::StrCat(job_.id()));
  }
}

void HandlerCall::TakeItem(const Item& item) {
  const uint32_t number = items_taken_++;
  if (item.id() != job_.id()) return Fail(absl::StrCat("got an item of call ", item.id()));
  if (item.number() != number) return Fail(absl::StrCat("got item ", item.number(), " where ", number, " was due"));
  const absl::Status payload = CheckPayload(job_.id(), Direction::kToServer, number,
                                            ItemBytes(job_.id(), number, job_.item_bytes()), item.payload());
  if (!payload.ok()) Fail(payload.message());
}

void HandlerCall::MakeItem(Item* item) {
  const uint32_t number = items_made_++;
  item->set_id(job_.id());
  item->set_number(number);
  FillPayload(job_.id(), Direction::kToClient, number, ItemBytes(job_.id(), number, job_.item_bytes()),
              item->mutable_payload());
  Answer(item->mutable_answerer());
}

void HandlerCall::MakeReply(Reply* reply) const {
  reply->set_id(job_.id());
  reply->set_items(items_taken_);
  FillPayload(job_.id(), Direction::kToClient, 0, job_.reply_bytes(), reply->mutable_payload());
  Answer(reply->mutable_answerer());
}

absl::Status HandlerCall::End(bool all) const {
  if (all) return AskedFor(job_.id(), static_cast<absl::StatusCode>(job_.end_code()));
  if (!context_->IsCancelled()) {
    Fail(absl::StrCat(
        "has a stream that ended early, after ", items_taken_, " items were received and ", items_made_,
        " made, and is not cancelled; time left: ", absl::FormatDuration(context_->deadline() - absl::Now())));
  }
  return absl::Now() < context_->deadline() ? absl::CancelledError("the handler saw the call cancelled")
                                            : absl::DeadlineExceededError("the deadline passed in the handler");
}

absl::Status HandlerCall::EndOfItems() const {
  if (items_taken_ > job_.items()) Fail(absl::StrCat("got ", items_taken_, " items, sent were ", job_.items()));
  return End(items_taken_ == job_.items());
}

void HandlerCall::Answer(Answerer* answerer) const {
  answerer->set_incarnation(environment_.incarnation);
  answerer->set_kills(environment_.kills);
}

void HandlerCall::Fail(absl::string_view what) const {
  environment_.board->Fail(absl::StrCat("call ", job_.id(), " (", std::string(context_->method()), ", reply of ",
                                        job_.reply_bytes(), " bytes, ", job_.items(), " items of up to ",
                                        job_.item_bytes(), " bytes), as process ", environment_.incarnation,
                                        " of server ", environment_.server, " saw it, ", what));
}

}  // namespace shmrpc::soak
