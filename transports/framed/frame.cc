#include "transports/framed/frame.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "runtime/src/absl_strings.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/wire.pb.h"

namespace shmrpc::framed {
namespace {

constexpr std::string_view kCutMark = "... (cut: the status message was too long to be sent whole)";
constexpr std::string_view kPayloadsLeftOut = " (the status's details were too large to be sent and were left out)";
constexpr std::string_view kMetadataLeftOut = " (the call's metadata was too large to be sent and was left out)";
constexpr size_t kNoteBytes = 256;  // the notes above, together, and something to spare
static_assert(kCutMark.size() + kPayloadsLeftOut.size() + kMetadataLeftOut.size() <= kNoteBytes);

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

absl::Status Malformed(std::string_view what) {
  return absl::InternalError(absl::StrCat("the peer broke the protocol: ", ToAbsl(what)));
}

// Goes through the fields of a block as far as somebody takes them: so a block costs no more than what is made of it.
// protobuf would make an object of each field first, of two bytes maybe.
class FieldReader {
 public:
  explicit FieldReader(std::string_view block)
      : block_(block), input_(reinterpret_cast<const uint8_t*>(block.data()), static_cast<int>(block.size())) {}

  // The next field that has a length; others are passed over. False: there is none, or the block is malformed.
  bool Next(int* number, std::string_view* content) {
    while (!malformed_ && Left() > 0) {
      const uint32_t tag = input_.ReadTag();
      uint64_t ignored;
      uint32_t length;
      if (tag >> 3 == 0) malformed_ = true;
      switch (tag & 7) {
        case 0:
          malformed_ |= !input_.ReadVarint64(&ignored);
          break;
        case 1:
          malformed_ |= !input_.Skip(8);
          break;
        case 2:
          malformed_ |= !input_.ReadVarint32(&length) || length > Left();
          if (malformed_) break;
          *number = static_cast<int>(tag >> 3);
          *content = block_.substr(block_.size() - Left(), length);
          return input_.Skip(static_cast<int>(length));
        case 5:
          malformed_ |= !input_.Skip(4);
          break;
        default:
          malformed_ = true;
      }
    }
    return false;
  }
  bool malformed() const { return malformed_; }

 private:
  size_t Left() const { return block_.size() - static_cast<size_t>(input_.CurrentPosition()); }

  const std::string_view block_;
  google::protobuf::io::CodedInputStream input_;
  bool malformed_ = false;
};

// The two fields of an entry, or of a payload.
bool ReadPair(std::string_view block, std::string_view* first, std::string_view* second) {
  FieldReader fields(block);
  int number;
  std::string_view content;
  while (fields.Next(&number, &content)) {
    if (number == 1) *first = content;
    if (number == 2) *second = content;
  }
  return !fields.malformed();
}

// The number of earlier attempts, which a request's metadata may have once.
absl::Status TakeAttempts(std::string_view text, std::optional<int>* attempts) {
  int value;
  if (attempts->has_value() || !absl::SimpleAtoi(ToAbsl(text), &value) || value <= 0) {
    return Invalid(absl::InvalidArgumentError(absl::StrCat(
        ToAbsl(kPreviousAttempts), " is \"", absl::CHexEscape(ToAbsl(text.substr(0, 64))), "\", or comes twice")));
  }
  *attempts = value;
  return absl::OkStatus();
}

// INVALID_ARGUMENT: it breaks the rules of metadata; INTERNAL: it is no MetadataBlock. `of_request`: the client's
// library may have added the number of earlier attempts.
absl::Status DecodeMetadata(std::string_view block, bool of_request, Metadata* metadata) {
  if (block.size() > kMaxMetadataBlockBytes) {
    return Invalid(absl::ResourceExhaustedError(
        absl::StrCat("it takes ", block.size(), " bytes encoded, more than ", kMaxMetadataBlockBytes)));
  }
  std::optional<int> attempts;
  FieldReader entries(block);
  int number;
  std::string_view entry;
  size_t size = 0;
  while (size <= Metadata::kMaxByteSize && entries.Next(&number, &entry)) {
    if (number != wire::MetadataBlock::kEntriesFieldNumber) continue;
    std::string_view key, value;
    if (!ReadPair(entry, &key, &value)) return Malformed("metadata that cannot be read");
    if (of_request && key == kPreviousAttempts) {
      absl::Status taken = TakeAttempts(value, &attempts);
      if (!taken.ok()) return taken;
      continue;
    }
    metadata->Add(key, value);
    size += key.size() + value.size() + 32;  // as Metadata counts; what goes beyond is found by Validate
  }
  if (entries.malformed()) return Malformed("metadata that cannot be read");
  absl::Status valid = metadata->Validate();
  if (attempts.has_value()) metadata->Add(kPreviousAttempts, absl::StrCat(*attempts));
  return valid.ok() ? valid : Invalid(valid);
}

// Of a message beyond the limit the beginning.
std::string CutMessage(std::string_view message) {
  if (message.size() <= kMaxStatusMessageBytes) return std::string(message);
  return absl::StrCat(ToAbsl(message.substr(0, kMaxStatusMessageBytes)), ToAbsl(kCutMark));
}

// Everything of a response that a StatusBlock says; see DecodeMetadata.
absl::Status DecodeStatus(std::string_view block, absl::StatusCode code, ResponseControl* out) {
  std::string_view message, trailing;
  absl::InlinedVector<std::pair<std::string_view, std::string_view>, 4> payloads;
  size_t payload_bytes = 0;
  bool left_out = false;
  FieldReader fields(block);
  int number;
  std::string_view content;
  while (fields.Next(&number, &content)) {
    if (number == wire::StatusBlock::kMessageFieldNumber) message = content;
    if (number == wire::StatusBlock::kTrailingMetadataFieldNumber) trailing = content;
    if (number != wire::StatusBlock::kPayloadsFieldNumber || left_out) continue;
    payload_bytes += content.size();
    left_out = payloads.size() == kMaxStatusPayloads || payload_bytes > kMaxStatusPayloadBytes;
    payloads.emplace_back();
    if (!ReadPair(content, &payloads.back().first, &payloads.back().second)) {
      return Malformed("a status whose details cannot be read");
    }
  }
  if (fields.malformed()) return Malformed("a response whose status cannot be read");
  std::string text = message.size() <= kMaxStatusMessageBytes + kNoteBytes ? std::string(message) : CutMessage(message);
  if (left_out) text.append(kPayloadsLeftOut);
  out->status = absl::Status(code, text);
  if (!left_out) {
    for (const auto& [type_url, value] : payloads) out->status.SetPayload(ToAbsl(type_url), absl::Cord(ToAbsl(value)));
  }
  if (trailing.empty()) return absl::OkStatus();
  return DecodeMetadata(trailing, /*of_request=*/false, &out->trailing_metadata);
}

void AppendBlock(const google::protobuf::MessageLite& block, std::string* out) {
  const uint32_t size = static_cast<uint32_t>(block.ByteSizeLong());
  out->append(reinterpret_cast<const char*>(&size), sizeof size);
  block.AppendToString(out);
}

// Takes a length-prefixed block off the front of `rest`.
bool TakeBlock(std::string_view* rest, std::string_view* block) {
  uint32_t size;
  if (rest->size() < sizeof size) return false;
  std::memcpy(&size, rest->data(), sizeof size);
  rest->remove_prefix(sizeof size);
  if (size > rest->size()) return false;
  *block = rest->substr(0, size);
  rest->remove_prefix(size);
  return true;
}

// `rest`: the frame without its header and control part.
absl::Status CheckControlBytes(std::string_view frame, std::string_view rest) {
  const size_t bytes = frame.size() - rest.size() - kFrameHeaderBytes;
  if (bytes <= kMaxControlBytes) return absl::OkStatus();
  return Malformed(absl::StrCat("a control part of ", bytes, " bytes, more than ", kMaxControlBytes));
}

// Takes the size of a message in pieces off the front of `rest`.
bool TakeMessageBytes(const FrameHeader& header, std::string_view* rest, size_t* message_bytes) {
  if ((header.flags & kFlagMore) == 0) return true;
  uint32_t announced;
  if (rest->size() < sizeof announced) return false;
  std::memcpy(&announced, rest->data(), sizeof announced);
  rest->remove_prefix(sizeof announced);
  *message_bytes = announced;
  return true;
}

// `rest`, the end of the frame, is the message or less than what was announced of it.
absl::Status CheckMessageBytes(const FrameHeader& header, std::string_view rest, size_t* message_bytes) {
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

absl::Status DecodeRequestControl(std::string_view frame, const FrameHeader& header, RequestControl* out) {
  std::string_view rest = frame.substr(kFrameHeaderBytes);
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
  std::string_view metadata;
  if ((header.flags & kFlagMetadata) != 0 && !TakeBlock(&rest, &metadata)) {
    return Malformed("a request whose metadata cannot be read");
  }
  absl::Status sizes = CheckControlBytes(frame, rest);
  if (!sizes.ok()) return sizes;
  absl::Status rules;
  if (!metadata.empty()) rules = DecodeMetadata(metadata, /*of_request=*/true, &out->metadata);
  if (absl::IsInternal(rules)) return rules;
  out->message_offset = frame.size() - rest.size();
  sizes = CheckMessageBytes(header, rest, &out->message_bytes);
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

absl::Status DecodeHeaders(std::string_view frame, const FrameHeader& header, Metadata* out) {
  std::string_view rest = frame.substr(kFrameHeaderBytes);
  if ((header.flags & ~kFlagMetadata) != 0) return Malformed("headers with unknown flags");
  std::string_view metadata;
  if ((header.flags & kFlagMetadata) != 0 && !TakeBlock(&rest, &metadata)) {
    return Malformed("headers whose metadata cannot be read");
  }
  if (!rest.empty()) return Malformed("headers with something behind them");
  absl::Status size = CheckControlBytes(frame, rest);
  return size.ok() ? DecodeMetadata(metadata, /*of_request=*/false, out) : size;
}

absl::Status DecodeMessageControl(std::string_view frame, const FrameHeader& header, bool from_client,
                                  MessageControl* out) {
  const uint8_t known = kFlagMore | (from_client ? kFlagOpen | kFlagNoMessage : 0);
  if ((header.flags & ~known) != 0) return Malformed("a message with unknown flags");
  std::string_view rest = frame.substr(kFrameHeaderBytes);
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

absl::Status DecodeCredit(std::string_view frame, const FrameHeader& header, Credit* out) {
  if (header.flags != 0 || frame.size() != kFrameHeaderBytes + kCreditBytes) return Malformed("a credit of wrong form");
  std::memcpy(&out->call_bytes, frame.data() + kFrameHeaderBytes, 4);
  std::memcpy(&out->connection_bytes, frame.data() + kFrameHeaderBytes + 4, 4);
  if (out->empty()) return Malformed("a credit for nothing");
  return absl::OkStatus();
}

void EncodeResponseControl(const Metadata* initial_metadata, const absl::Status& status,
                           const Metadata* trailing_metadata, uint8_t* flags, uint16_t* code, std::string* out) {
  out->clear();
  *code = static_cast<uint16_t>(status.raw_code());
  const bool has_initial = initial_metadata != nullptr && !initial_metadata->empty();
  const bool has_trailing = trailing_metadata != nullptr && !trailing_metadata->empty();
  if (status.ok() && !has_trailing && !has_initial) return;

  wire::MetadataBlock initial;
  wire::StatusBlock block;
  std::string message = CutMessage(ToStd(status.message()));
  size_t payload_bytes = 0;
  bool payloads_left_out = false;
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& value) {
    if (payloads_left_out) return;
    wire::StatusBlock::Payload* payload = block.add_payloads();
    payload->set_type_url(std::string(type_url));
    payload->set_value(std::string(value));
    payload_bytes += payload->ByteSizeLong();
    payloads_left_out =
        block.payloads_size() > static_cast<int>(kMaxStatusPayloads) || payload_bytes > kMaxStatusPayloadBytes;
  });
  bool metadata_left_out = false;
  const auto leave_out = [&metadata_left_out](wire::MetadataBlock* metadata) {
    metadata->clear_entries();
    metadata_left_out = true;
  };
  wire::MetadataBlock trailing;
  if (has_initial) ToWire(*initial_metadata, &initial);
  if (has_trailing) ToWire(*trailing_metadata, &trailing);
  if (initial.ByteSizeLong() > kMaxMetadataBlockBytes) leave_out(&initial);
  if (trailing.ByteSizeLong() > kMaxMetadataBlockBytes) leave_out(&trailing);
  // What fits by itself need not fit together with the rest. Besides the blocks there are their sizes, and a few bytes
  // for the fields of the status.
  const auto fits = [&] {
    return initial.ByteSizeLong() + trailing.ByteSizeLong() + block.ByteSizeLong() + message.size() + kNoteBytes + 32 <=
           kMaxEncodedControlBytes;
  };
  if (payloads_left_out || (block.payloads_size() > 0 && !fits())) {
    block.clear_payloads();
    message.append(kPayloadsLeftOut);
  }
  if (trailing.entries_size() > 0 && !fits()) leave_out(&trailing);
  if (initial.entries_size() > 0 && !fits()) leave_out(&initial);
  if (metadata_left_out) {
    message.append(kMetadataLeftOut);
    if (status.ok()) *code = static_cast<uint16_t>(absl::StatusCode::kInternal);
  }
  if (initial.entries_size() > 0) {
    *flags |= kFlagMetadata;
    AppendBlock(initial, out);
  }
  if (*code == 0 && trailing.entries_size() == 0) return;
  *flags |= kFlagStatus;
  block.set_message(std::move(message));
  if (trailing.entries_size() > 0) *block.mutable_trailing_metadata() = std::move(trailing);
  AppendBlock(block, out);
}

absl::Status DecodeResponseControl(std::string_view frame, const FrameHeader& header, ResponseControl* out) {
  std::string_view rest = frame.substr(kFrameHeaderBytes);
  if (header.flags & ~(kFlagMore | kFlagMetadata | kFlagStatus | kFlagNoMessage | kFlagNotProcessed)) {
    return Malformed("a response with unknown flags");
  }
  out->not_processed = (header.flags & kFlagNotProcessed) != 0;
  if (out->not_processed &&
      (header.code == 0 || (header.flags & kFlagNoMessage) == 0 || (header.flags & (kFlagMetadata | kFlagMore)) != 0)) {
    return Malformed("a response that has a result though the call was not processed");
  }
  if (!TakeMessageBytes(header, &rest, &out->message_bytes)) return Malformed("a response too short for its size");
  std::string_view metadata, status;
  if ((header.flags & kFlagMetadata) != 0 && !TakeBlock(&rest, &metadata)) {
    return Malformed("a response whose metadata cannot be read");
  }
  if ((header.flags & kFlagStatus) != 0 && !TakeBlock(&rest, &status)) {
    return Malformed("a response whose status cannot be read");
  }
  absl::Status sizes = CheckControlBytes(frame, rest);
  if (!sizes.ok()) return sizes;
  absl::Status rules;
  if (!metadata.empty()) rules = DecodeMetadata(metadata, /*of_request=*/false, &out->initial_metadata);
  if (absl::IsInternal(rules)) return rules;
  const absl::StatusCode code =
      header.code <= 16 ? static_cast<absl::StatusCode>(header.code) : absl::StatusCode::kUnknown;
  if (status.empty()) {
    out->status = absl::Status(code, "");
  } else {
    absl::Status trailing_rules = DecodeStatus(status, code, out);
    if (absl::IsInternal(trailing_rules)) return trailing_rules;
    rules.Update(trailing_rules);
  }
  out->message_offset = frame.size() - rest.size();
  sizes = CheckMessageBytes(header, rest, &out->message_bytes);
  if (sizes.ok() && (header.flags & kFlagNoMessage) != 0 && out->message_bytes != 0) {
    return Malformed("a response that both has and has no message");
  }
  return sizes.ok() ? rules : sizes;
}

}  // namespace shmrpc::framed
