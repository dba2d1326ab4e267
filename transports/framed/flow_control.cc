#include "transports/framed/flow_control.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shmrpc::framed {
namespace {

static_assert(FlowControlOptions::kMaxBytes + (uint64_t{1} << 31) + FlowControlOptions::kMessageOverheadBytes <
                  std::numeric_limits<uint32_t>::max(),
              "a window and one message beyond it have to fit a credit");

}  // namespace

absl::Status SendAccount::OnCredit(Call* call, const Credit& credit) {
  if (credit.connection_bytes > under_way_ || (call != nullptr && credit.call_bytes > call->under_way)) {
    return absl::InternalError(absl::StrCat("the peer broke the protocol: credit for ", credit.connection_bytes,
                                            " and ", credit.call_bytes, " bytes, where ", under_way_, " and ",
                                            call == nullptr ? 0 : call->under_way, " are under way"));
  }
  under_way_ -= credit.connection_bytes;
  if (call != nullptr) call->under_way -= credit.call_bytes;
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
