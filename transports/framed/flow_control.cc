#include "transports/framed/flow_control.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shmrpc::framed {
namespace {

static_assert(FlowControlOptions::kMaxBytes + (uint64_t{1} << 31) + FlowControlOptions::kMessageOverheadBytes <
                  std::numeric_limits<uint32_t>::max(),
              "a window and one message beyond it have to fit a credit");

}  // namespace

bool SendAccount::TrySend(Call* call, uint64_t cost) {
  const bool was_promised = call->promised != 0;
  Forget(call);
  if (MaySend(*call)) {
    call->under_way += cost;
    under_way_ += cost;
    return true;
  }
  call->waits = true;
  call->wanted = std::min<uint64_t>(cost, granted_.stream_bytes);
  // A message larger than its promise may have gone before this one, which keeps its turn.
  if (call->under_way < granted_.stream_bytes) Enqueue(call, /*in_front=*/was_promised);
  return false;
}

// A hostile peer may have returned what was not sent yet.
void SendAccount::OnNotSent(Call* call, uint64_t cost) {
  if (call != nullptr) call->under_way -= std::min(call->under_way, cost);
  under_way_ -= std::min(under_way_, cost);
}

void SendAccount::Forget(Call* call) {
  if (call->is_queued) Dequeue(call);
  call->waits = false;
  promised_ -= std::exchange(call->promised, 0);
}

SendAccount::Call* SendAccount::TakeSendable() {
  Call* const call = first_queued_;
  if (call == nullptr) return nullptr;
  if (!call->may_send) {
    if (under_way_ + promised_ >= granted_.connection_bytes) return nullptr;
    call->promised = call->wanted;
    promised_ += call->promised;
  }
  Dequeue(call);
  call->waits = false;
  return call;
}

void SendAccount::Enqueue(Call* call, bool in_front) {
  call->is_queued = true;
  call->previous_queued = in_front ? nullptr : last_queued_;
  call->next_queued = in_front ? first_queued_ : nullptr;
  (call->previous_queued != nullptr ? call->previous_queued->next_queued : first_queued_) = call;
  (call->next_queued != nullptr ? call->next_queued->previous_queued : last_queued_) = call;
}

void SendAccount::Dequeue(Call* call) {
  (call->previous_queued != nullptr ? call->previous_queued->next_queued : first_queued_) = call->next_queued;
  (call->next_queued != nullptr ? call->next_queued->previous_queued : last_queued_) = call->previous_queued;
  call->is_queued = call->may_send = false;
}

absl::Status SendAccount::OnCredit(Call* call, const Credit& credit) {
  if (credit.connection_bytes > under_way_ || (call != nullptr && credit.call_bytes > call->under_way)) {
    return absl::InternalError(absl::StrCat("the peer broke the protocol: credit for ", credit.connection_bytes,
                                            " and ", credit.call_bytes, " bytes, where ", under_way_, " and ",
                                            call == nullptr ? 0 : call->under_way, " are under way"));
  }
  under_way_ -= credit.connection_bytes;
  if (call == nullptr) return absl::OkStatus();
  call->under_way -= credit.call_bytes;
  if (!call->waits) return absl::OkStatus();
  if (MaySend(*call)) {
    if (call->is_queued) Dequeue(call);
    Enqueue(call, /*in_front=*/true);
    call->may_send = true;
  } else if (!call->is_queued && call->under_way < granted_.stream_bytes) {
    Enqueue(call, /*in_front=*/false);
  }
  return absl::OkStatus();
}

absl::Status ReceiveAccount::OnReceived(Call* call, uint64_t cost) {
  if (call->unreturned >= granted_.stream_bytes) {
    return absl::InternalError(absl::StrCat("the peer broke the protocol: it sent a message without credit, with ",
                                            call->unreturned, " bytes under way for the call, which may have ",
                                            granted_.stream_bytes));
  }
  call->unreturned += cost;
  return absl::OkStatus();
}

Credit ReceiveAccount::OnRead(Call* call, uint64_t cost) {
  Credit credit;
  read_ += cost;
  if (read_ >= granted_.connection_bytes / 8) {
    credit.connection_bytes = static_cast<uint32_t>(std::exchange(read_, 0));
  }
  if (call != nullptr) {
    call->read += cost;
    if (call->read >= granted_.stream_bytes / 8) {
      credit.call_bytes = static_cast<uint32_t>(call->read);
      call->unreturned -= std::exchange(call->read, 0);
    }
  }
  return credit;
}

}  // namespace shmrpc::framed
