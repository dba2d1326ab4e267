#include "transports/framed/frame.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/wire.pb.h"

namespace shmrpc::framed {
namespace {

// Bounds that keep every control part well under kMaxControlBytes, whatever the application says.
constexpr size_t kMaxStatusMessageBytes = 16 * 1024;
constexpr size_t kMaxStatusPayloadBytes = 12 * 1024;
constexpr absl::string_view kCutMark = "... (cut: the status message was too long to be sent whole)";
constexpr absl::string_view kPayloadsLeftOut = " (the status's details were too large to be sent and were left out)";

void ToWire(const Metadata& metadata, wire::MetadataBlock* block) {
  for (const auto& [key, value] : metadata) {
    wire::MetadataBlock::Entry* entry = block->add_entries();
    entry->set_key(key);
    entry->set_value(value);
  }
}

absl::Status Invalid(const absl::Status& why) {
  return absl::InvalidArgumentError(absl::StrCat("the peer sent metadata that breaks the rules: ", why.message()));
}

absl::Status FromWire(const wire::MetadataBlock& block, Metadata* metadata) {
  for (const auto& entry : block.entries()) metadata->Add(entry.key(), entry.value());
  absl::Status valid = metadata->Validate();
  return valid.ok() ? valid : Invalid(valid);
}

// The same for a request's metadata, where the client's library may have added the number of earlier attempts.
absl::Status FromWireWithAttempts(const wire::MetadataBlock& block, Metadata* metadata) {
  absl::optional<int> attempts;
  for (const auto& entry : block.entries()) {
    if (entry.key() != kPreviousAttempts) {
      metadata->Add(entry.key(), entry.value());
      continue;
    }
    int value;
    if (attempts.has_value() || !absl::SimpleAtoi(entry.value(), &value) || value <= 0) {
      return Invalid(absl::InvalidArgumentError(
          absl::StrCat(kPreviousAttempts, " is \"", absl::CHexEscape(entry.value()), "\", or comes twice")));
    }
    attempts = value;
  }
  absl::Status valid = metadata->Validate();
  if (attempts.has_value()) metadata->Add(kPreviousAttempts, absl::StrCat(*attempts));
  return valid.ok() ? valid : Invalid(valid);
}

void AppendBlock(const google::protobuf::MessageLite& block, std::string* out) {
  const uint32_t size = static_cast<uint32_t>(block.ByteSizeLong());
  out->append(reinterpret_cast<const char*>(&size), sizeof size);
  block.AppendToString(out);
}

// Takes a length-prefixed block off the front of `rest`.
template <typename Block>
bool TakeBlock(absl::string_view* rest, Block* block) {
  uint32_t size;
  if (rest->size() < sizeof size) return false;
  std::memcpy(&size, rest->data(), sizeof size);
  rest->remove_prefix(sizeof size);
  if (size > rest->size()) return false;
  if (!block->ParseFromArray(rest->data(), static_cast<int>(size))) return false;
  rest->remove_prefix(size);
  return true;
}

absl::Status Malformed(absl::string_view what) {
  return absl::InternalError(absl::StrCat("the peer broke the protocol: ", what));
}

// Takes the size of a message in pieces off the front of `rest`.
bool TakeMessageBytes(const FrameHeader& header, absl::string_view* rest, size_t* message_bytes) {
  if ((header.flags & kFlagMore) == 0) return true;
  uint32_t announced;
  if (rest->size() < sizeof announced) return false;
  std::memcpy(&announced, rest->data(), sizeof announced);
  rest->remove_prefix(sizeof announced);
  *message_bytes = announced;
  return true;
}

// `rest`, the end of the frame, is the message or less than what was announced of it.
absl::Status CheckMessageBytes(const FrameHeader& header, absl::string_view rest, size_t* message_bytes) {
  if ((header.flags & kFlagMore) == 0) {
    *message_bytes = rest.size();
    return absl::OkStatus();
  }
  if (rest.size() < *message_bytes) return absl::OkStatus();
  return Malformed(absl::StrCat("the first piece of a message holds ", rest.size(), " bytes of ", *message_bytes));
}

}  // namespace

void EncodeRequestControl(SteadyTime deadline, const Metadata* metadata, uint8_t* flags, std::string* out,
                          SteadyTime now) {
  out->clear();
  if (deadline != SteadyTime::InfiniteFuture()) {
    *flags |= kFlagDeadline;
    if (now == SteadyTime::InfinitePast()) now = SteadyTime::Now();
    const int64_t left = deadline.NanosecondsFrom(now);
    out->append(reinterpret_cast<const char*>(&left), sizeof left);
  }
  if (metadata != nullptr && !metadata->empty()) {
    *flags |= kFlagMetadata;
    wire::MetadataBlock block;
    ToWire(*metadata, &block);
    AppendBlock(block, out);
  }
}

absl::Status DecodeRequestControl(absl::string_view frame, const FrameHeader& header, RequestControl* out) {
  absl::string_view rest = frame.substr(kFrameHeaderBytes);
  if (header.flags & ~(kFlagMore | kFlagDeadline | kFlagMetadata | kFlagNoMessage | kFlagOpen)) {
    return Malformed("a request with unknown flags");
  }
  if (!TakeMessageBytes(header, &rest, &out->message_bytes)) return Malformed("a request too short for its size");
  if (header.flags & kFlagDeadline) {
    uint64_t left;
    if (rest.size() < sizeof left) return Malformed("a request too short for its deadline");
    std::memcpy(&left, rest.data(), sizeof left);
    rest.remove_prefix(sizeof left);
    if (left <= static_cast<uint64_t>(INT64_MAX)) {
      out->arrival = SteadyTime::Now();
      out->deadline = out->arrival.PlusNanoseconds(static_cast<int64_t>(left));
    }
  }
  absl::Status rules;
  if (header.flags & kFlagMetadata) {
    wire::MetadataBlock block;
    if (!TakeBlock(&rest, &block)) return Malformed("a request whose metadata cannot be read");
    rules = FromWireWithAttempts(block, &out->metadata);
  }
  out->message_offset = frame.size() - rest.size();
  absl::Status sizes = CheckMessageBytes(header, rest, &out->message_bytes);
  if (sizes.ok() && (header.flags & kFlagNoMessage) != 0 && out->message_bytes != 0) {
    return Malformed("a request that both has and has no message");
  }
  return sizes.ok() ? rules : sizes;
}

absl::Status DecodeGoAway(const FrameHeader& header, bool* last) {
  if ((header.flags & ~kFlagNotProcessed) != 0) return Malformed("a go-away with unknown flags");
  *last = (header.flags & kFlagNotProcessed) != 0;
  return absl::OkStatus();
}

void EncodeHeaders(const Metadata& metadata, uint8_t* flags, std::string* out) {
  out->clear();
  if (metadata.empty()) return;
  *flags |= kFlagMetadata;
  wire::MetadataBlock block;
  ToWire(metadata, &block);
  AppendBlock(block, out);
}

absl::Status DecodeHeaders(absl::string_view frame, const FrameHeader& header, Metadata* out) {
  absl::string_view rest = frame.substr(kFrameHeaderBytes);
  if ((header.flags & ~kFlagMetadata) != 0) return Malformed("headers with unknown flags");
  wire::MetadataBlock block;
  if ((header.flags & kFlagMetadata) != 0 && !TakeBlock(&rest, &block)) {
    return Malformed("headers whose metadata cannot be read");
  }
  if (!rest.empty()) return Malformed("headers with something behind them");
  return FromWire(block, out);
}

absl::Status DecodeMessageControl(absl::string_view frame, const FrameHeader& header, bool from_client,
                                  MessageControl* out) {
  const uint8_t known = kFlagMore | (from_client ? kFlagOpen | kFlagNoMessage : 0);
  if ((header.flags & ~known) != 0) return Malformed("a message with unknown flags");
  absl::string_view rest = frame.substr(kFrameHeaderBytes);
  if (!TakeMessageBytes(header, &rest, &out->message_bytes)) return Malformed("a message too short for its size");
  out->message_offset = frame.size() - rest.size();
  absl::Status sizes = CheckMessageBytes(header, rest, &out->message_bytes);
  if (sizes.ok() && (header.flags & kFlagNoMessage) != 0 &&
      (out->message_bytes != 0 || (header.flags & kFlagOpen) != 0)) {
    return Malformed("a message frame without message that does not half-close");
  }
  return sizes;
}

void EncodeCredit(const Credit& credit, char* out) {
  std::memcpy(out, &credit.call_bytes, 4);
  std::memcpy(out + 4, &credit.connection_bytes, 4);
}

absl::Status DecodeCredit(absl::string_view frame, const FrameHeader& header, Credit* out) {
  if (header.flags != 0 || frame.size() != kFrameHeaderBytes + kCreditBytes) return Malformed("a credit of wrong form");
  std::memcpy(&out->call_bytes, frame.data() + kFrameHeaderBytes, 4);
  std::memcpy(&out->connection_bytes, frame.data() + kFrameHeaderBytes + 4, 4);
  return absl::OkStatus();
}

void EncodeResponseControl(const Metadata* initial_metadata, const absl::Status& status,
                           const Metadata* trailing_metadata, uint8_t* flags, uint16_t* code, std::string* out) {
  out->clear();
  *code = static_cast<uint16_t>(status.raw_code());
  if (initial_metadata != nullptr && !initial_metadata->empty()) {
    *flags |= kFlagMetadata;
    wire::MetadataBlock block;
    ToWire(*initial_metadata, &block);
    AppendBlock(block, out);
  }
  const bool has_trailing = trailing_metadata != nullptr && !trailing_metadata->empty();
  if (status.ok() && !has_trailing) return;
  *flags |= kFlagStatus;
  wire::StatusBlock block;
  std::string message(status.message());
  if (message.size() > kMaxStatusMessageBytes) {
    message.resize(kMaxStatusMessageBytes);
    message.append(kCutMark.data(), kCutMark.size());
  }
  size_t payload_bytes = 0;
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& value) {
    payload_bytes += type_url.size() + value.size();
    wire::StatusBlock::Payload* payload = block.add_payloads();
    payload->set_type_url(std::string(type_url));
    payload->set_value(std::string(value));
  });
  if (payload_bytes > kMaxStatusPayloadBytes) {
    block.clear_payloads();
    message.append(kPayloadsLeftOut.data(), kPayloadsLeftOut.size());
  }
  block.set_message(std::move(message));
  if (has_trailing) ToWire(*trailing_metadata, block.mutable_trailing_metadata());
  AppendBlock(block, out);
}

absl::Status DecodeResponseControl(absl::string_view frame, const FrameHeader& header, ResponseControl* out) {
  absl::string_view rest = frame.substr(kFrameHeaderBytes);
  if (header.flags & ~(kFlagMore | kFlagMetadata | kFlagStatus | kFlagNoMessage | kFlagNotProcessed)) {
    return Malformed("a response with unknown flags");
  }
  out->not_processed = (header.flags & kFlagNotProcessed) != 0;
  if (out->not_processed &&
      (header.code == 0 || (header.flags & kFlagNoMessage) == 0 || (header.flags & (kFlagMetadata | kFlagMore)) != 0)) {
    return Malformed("a response that has a result though the call was not processed");
  }
  if (!TakeMessageBytes(header, &rest, &out->message_bytes)) return Malformed("a response too short for its size");
  absl::Status rules;
  if (header.flags & kFlagMetadata) {
    wire::MetadataBlock block;
    if (!TakeBlock(&rest, &block)) return Malformed("a response whose metadata cannot be read");
    rules = FromWire(block, &out->initial_metadata);
  }
  const absl::StatusCode code =
      header.code <= 16 ? static_cast<absl::StatusCode>(header.code) : absl::StatusCode::kUnknown;
  if (header.flags & kFlagStatus) {
    wire::StatusBlock block;
    if (!TakeBlock(&rest, &block)) return Malformed("a response whose status cannot be read");
    out->status = absl::Status(code, block.message());
    for (const auto& payload : block.payloads())
      out->status.SetPayload(payload.type_url(), absl::Cord(payload.value()));
    rules.Update(FromWire(block.trailing_metadata(), &out->trailing_metadata));
  } else {
    out->status = absl::Status(code, "");
  }
  out->message_offset = frame.size() - rest.size();
  absl::Status sizes = CheckMessageBytes(header, rest, &out->message_bytes);
  if (sizes.ok() && (header.flags & kFlagNoMessage) != 0 && out->message_bytes != 0) {
    return Malformed("a response that both has and has no message");
  }
  return sizes.ok() ? rules : sizes;
}

}  // namespace shmrpc::framed
