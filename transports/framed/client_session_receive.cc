// What a client's session does with what comes. The caller holds right_.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "transports/framed/client_session.h"

namespace shmrpc::framed {

Link::ReceiveResult ClientSession::ReceiveOne() {
  if (link_ended_.load(std::memory_order_relaxed)) return Link::ReceiveResult::kEnd;
  ChunkPtr chunk = ChunkPool::TakeForThread();
  const Link::ReceiveResult result = link_->Receive(chunk.get());
  if (result == Link::ReceiveResult::kEmpty) return result;
  const absl::Status status = result == Link::ReceiveResult::kFrame ? HandleFrame(chunk) : link_->end_status();
  if (status.ok()) return result;
  Fail(status);
  return Link::ReceiveResult::kEnd;
}

absl::Status ClientSession::HandleFrame(ChunkPtr& chunk) {
  const FrameHeader header = LoadFrameHeader(chunk->data);
  if (assembly_.IsOf(header.call_id) && !MayStandBetweenPieces(header)) return MalformedBetweenPieces(header);
  switch (header.type) {
    case FrameType::kResponse:
      return HandleResponse(header, chunk);
    case FrameType::kFragment:
      return HandleFragment(header, chunk);
    case FrameType::kHeaders:
      return HandleHeaders(header, *chunk);
    case FrameType::kMessage:
      return HandleMessage(header, chunk);
    case FrameType::kCredit:
      return HandleCredit(header, *chunk);
    case FrameType::kReset: {
      if (!assembly_.IsOf(header.call_id)) return absl::OkStatus();
      const bool for_nobody = assembly_.discards();
      assembly_.End();
      ReturnUnread(assembly_.cost());
      if (for_nobody) return absl::OkStatus();
      ClientCall* const call = TakeCall(header.call_id);
      if (call == nullptr) return absl::OkStatus();
      call->has_message = false;
      call->end.status = absl::UnavailableError("the server gave up in the middle of the reply");
      ChunkPtr none;
      EndCall(call, none);
      return absl::OkStatus();
    }
    case FrameType::kGoAway:
      return HandleGoAway(header);
    case FrameType::kAlive:
      return absl::OkStatus();
    default:
      return Malformed(absl::StrCat("a frame of type ", static_cast<int>(header.type), " from a server"));
  }
}

absl::Status ClientSession::HandleGoAway(const FrameHeader& header) {
  bool last = false;
  absl::Status decoded = DecodeGoAway(header, &last);
  if (!decoded.ok()) return decoded;
  const absl::Status reason = absl::UnavailableError("the server is shutting down");
  {
    MutexLock lock(&calls_mutex_);
    if (!over_) reason_over_ = reason;
    over_.store(true, std::memory_order_release);
  }
  if (!last) return absl::OkStatus();
  // The server has answered all calls that it has accepted, and now waits for this side to hang up.
  Fail(reason, /*none_processed=*/true);
  return reason;
}

absl::Status ClientSession::HandleResponse(const FrameHeader& header, ChunkPtr& chunk) {
  const bool more = (header.flags & kFlagMore) != 0;
  if (more && assembly_.active()) return Malformed("a message in pieces inside another");
  ResponseControl control;
  const std::string_view frame(reinterpret_cast<const char*>(chunk->data), header.length);
  absl::Status decoded = DecodeResponseControl(frame, header, &control);
  if (absl::IsInvalidArgument(decoded)) {
    control.status = absl::InternalError(decoded.message());
  } else if (!decoded.ok()) {
    return decoded;
  }
  const size_t offset = control.message_offset;
  const size_t message_bytes = control.message_bytes;
  if (control.not_processed && WasAnswered(header.call_id)) {
    return Malformed(absl::StrCat("call ", header.call_id, " was answered, and then not processed"));
  }
  const bool has_message = (header.flags & kFlagNoMessage) == 0;
  const bool has_headers = has_message || (header.flags & kFlagMetadata) != 0;
  if (more) {
    bool wanted = false;
    const google::protobuf::Descriptor* type = nullptr;
    {
      // The call stays in the table while its message is on the way: it can still be cancelled.
      MutexLock lock(&calls_mutex_);
      ClientCall* const call = FindCall(header.call_id);
      wanted = call != nullptr && control.status.ok() && message_bytes <= call->max_receive_message_bytes;
      if (wanted) {
        call->has_headers = has_headers;
        call->has_message = has_message;
        call->end = std::move(control);
        type = call->events->message_type();
      }
    }
    if (wanted) {
      assembly_.Begin(header, offset, message_bytes, type, *chunk);
      return absl::OkStatus();
    }
    assembly_.BeginDiscarding(header, offset, message_bytes);
  }
  ClientCall* call;
  {
    MutexLock lock(&calls_mutex_);
    call = TakeCallLocked(header.call_id);
    if (call == nullptr) return absl::OkStatus();
    if (control.status.ok() && message_bytes > call->max_receive_message_bytes) {
      control.status = absl::ResourceExhaustedError(absl::StrCat(
          "the reply is ", message_bytes, " bytes long, more than the client's limit of ",
          call->max_receive_message_bytes, ": raise max_receive_message_bytes of the channel or the call"));
    }
    call->has_headers = has_headers;
    call->has_message = has_message;
    call->end = std::move(control);
    if (frame.size() > offset) call->pieces.push_back(frame.substr(offset));
    if (call->runs_user_code && call->stream == nullptr) {
      QueueEnd(call, chunk);
      call = nullptr;
    }
  }
  if (call != nullptr) {
    EndCall(call, chunk);
  } else if (!poller_receives_.load(std::memory_order_relaxed)) {
    poller_->Kick(shared_from_this());
  }
  return absl::OkStatus();
}

absl::Status ClientSession::HandleFragment(const FrameHeader& header, ChunkPtr& chunk) {
  switch (assembly_.Add(header, *chunk)) {
    case Assembly::Progress::kMore:
      return absl::OkStatus();
    case Assembly::Progress::kMalformed:
      return Malformed(absl::StrCat("a fragment of call ", header.call_id, " that does not continue the message ",
                                    assembly_.Describe()));
    case Assembly::Progress::kComplete:
      break;
  }
  LargeMessagePtr large = assembly_.Take();
  assembly_.End();
  const uint64_t cost = assembly_.cost();
  if (large == nullptr) {  // not for a call that has begun since, either
    ReturnUnread(cost);
    return absl::OkStatus();
  }
  if (assembly_.first().type == FrameType::kMessage) {
    DeliverMessage(header.call_id, ReceivedMessage(std::move(large), cost));
    return absl::OkStatus();
  }
  ClientCall* const call = TakeCall(header.call_id);
  if (call == nullptr) return absl::OkStatus();
  call->large = std::move(large);
  ChunkPtr none;
  EndCall(call, none);
  return absl::OkStatus();
}

}  // namespace shmrpc::framed
