#include "runtime/src/large_message.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/message.h"
#include "shmrpc/message.h"

namespace shmrpc::internal {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FieldOptions;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kMostVarintBytes = 10;
// What protobuf takes of a tag and of a length; it counts bytes in int, with something to spare.
constexpr size_t kMostTagBytes = 5;
constexpr size_t kMostLengthBytes = 5;
constexpr size_t kMostBytes = std::numeric_limits<int>::max() - 64;

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

// The number that begins at `bytes`; 0 while it is not whole, else how many bytes it takes.
size_t DecodeVarint(const uint8_t* bytes, size_t size, uint64_t* value) {
  *value = 0;
  for (size_t i = 0; i < size && i < kMostVarintBytes; ++i) {
    *value |= uint64_t{bytes[i] & 0x7fu} << (7 * i);
    if ((bytes[i] & 0x80) == 0) return i + 1;
  }
  return 0;
}

bool IsBytes(const FieldDescriptor& field) {
  return field.type() == FieldDescriptor::TYPE_BYTES && field.options().ctype() == FieldOptions::STRING;
}

bool IsMessage(const FieldDescriptor& field) {
  return field.type() == FieldDescriptor::TYPE_MESSAGE && !field.is_map() &&
         !field.message_type()->options().message_set_wire_format();
}

}  // namespace

const Descriptor* DescriptorOf(const google::protobuf::MessageLite& message) {
  const auto* const full = dynamic_cast<const Message*>(&message);
  return full != nullptr ? full->GetDescriptor() : nullptr;
}

LargeMessage::LargeMessage(const Descriptor* type, size_t size) : type_(type), size_(size) {
  if (type_ == nullptr) {
    given_up_ = true;
  } else {
    levels_.push_back({type_, size_});
  }
}

// Room for `more` bytes in a string that will have `expected` in the end, if its sender tells the truth.
void LargeMessage::Grow(std::string* bytes, size_t more, size_t expected) {
  const size_t needed = bytes->size() + more;
  if (needed <= bytes->capacity()) return;
  const size_t at_once = needed <= kReservedAtOnce ? std::min(expected, kReservedAtOnce) : expected;
  bytes->reserve(std::max(needed, at_once));
}

void LargeMessage::AppendPlain(std::string_view bytes) {
  if (given_up_) Grow(&plain_, bytes.size(), size_);
  plain_.append(bytes.data(), bytes.size());
}

void LargeMessage::Append(std::string_view piece) {
  while (!piece.empty()) {
    size_t taken = 1;
    if (given_up_) {
      taken = piece.size();
      AppendPlain(piece);
    } else if (field_left_ > 0) {
      taken = std::min(field_left_, piece.size());
      Field& field = fields_.back();
      Grow(&field.bytes, taken, field.size);
      field.bytes.append(piece.data(), taken);
    } else if (plain_left_ > 0) {
      taken = std::min(plain_left_, piece.size());
      AppendPlain(piece.substr(0, taken));
    } else {
      AppendPlain(piece.substr(0, 1));
      header_[header_bytes_++] = static_cast<uint8_t>(piece[0]);
    }
    piece.remove_prefix(taken);
    position_ += taken;
    if (given_up_) continue;
    if (field_left_ > 0) {
      field_left_ -= taken;
      if (field_left_ == 0) OnFieldOver();
    } else if (plain_left_ > 0) {
      plain_left_ -= taken;
      if (plain_left_ == 0) OnFieldOver();
    } else {
      OnHeaderByte();
    }
  }
}

// Looks at the header of a field, of which one more byte has come.
void LargeMessage::OnHeaderByte() {
  if (levels_.empty() || position_ > levels_.back().end) return GiveUp();
  uint64_t tag;
  const size_t tag_bytes = DecodeVarint(header_.data(), header_bytes_, &tag);
  if (tag_bytes == 0) return header_bytes_ >= kMostTagBytes ? GiveUp() : void();
  if (tag > std::numeric_limits<uint32_t>::max()) return GiveUp();
  const size_t fixed = (tag & 7) == kFixed64 ? 8 : (tag & 7) == kFixed32 ? 4 : 0;
  if (fixed > 0) {
    if (levels_.back().end - position_ < fixed) return GiveUp();
    plain_left_ = fixed;
    return;
  }
  if ((tag & 7) != kVarint && (tag & 7) != kLengthDelimited) return GiveUp();
  if (header_bytes_ == tag_bytes) return;
  uint64_t value;
  const size_t value_bytes = DecodeVarint(header_.data() + tag_bytes, header_bytes_ - tag_bytes, &value);
  if (value_bytes == 0) return header_bytes_ - tag_bytes >= kMostVarintBytes ? GiveUp() : void();
  if ((tag & 7) == kVarint) return OnFieldOver();
  if (value_bytes > kMostLengthBytes) return GiveUp();
  OnLength(static_cast<uint32_t>(tag), value);
}

// A field of `length` bytes begins.
void LargeMessage::OnLength(uint32_t tag, uint64_t length) {
  if (length > levels_.back().end - position_) return GiveUp();
  if (length >= kLeastField) {
    const FieldDescriptor* const field = levels_.back().type->FindFieldByNumber(static_cast<int>(tag >> 3));
    if (field != nullptr && IsBytes(*field)) {
      AddMerge(field_begin_);
      merged_ = plain_.size();
      steps_.push_back({.kind = Step::Kind::kSet, .begin = fields_.size(), .field = field});
      fields_.push_back({.bytes = {}, .size = length, .plain_bytes = plain_.size()});
      field_left_ = length;
      return;
    }
    if (field != nullptr && IsMessage(*field) && levels_.size() < kMostLevels) {
      AddMerge(field_begin_);
      merged_ = plain_.size();
      steps_.push_back({.kind = Step::Kind::kEnter, .field = field});
      levels_.push_back({field->message_type(), position_ + length});
      ++fields_seen_;
      header_bytes_ = 0;
      field_begin_ = plain_.size();
      return;
    }
  }
  if (length == 0) return OnFieldOver();
  plain_left_ = length;
}

// The next byte begins another field, or is behind the end of one level or several.
void LargeMessage::OnFieldOver() {
  ++fields_seen_;
  header_bytes_ = 0;
  field_begin_ = plain_.size();
  while (levels_.size() > 1 && position_ == levels_.back().end) {
    AddMerge(plain_.size());
    steps_.push_back({.kind = Step::Kind::kLeave});
    levels_.pop_back();
  }
  if (fields_seen_ >= kMostFields) plain_left_ = levels_.back().end - position_;
}

void LargeMessage::GiveUp() { given_up_ = true; }

void LargeMessage::AddMerge(size_t end) {
  if (end == merged_) return;
  steps_.push_back({.kind = Step::Kind::kMerge, .begin = merged_, .end = end});
  merged_ = end;
}

std::span<const std::string_view> LargeMessage::Pieces() {
  pieces_.clear();
  size_t begin = 0;
  const auto add = [this](std::string_view piece) {
    if (!piece.empty()) pieces_.push_back(piece);
  };
  for (const Field& field : fields_) {
    add(std::string_view(plain_).substr(begin, field.plain_bytes - begin));
    add(field.bytes);
    begin = field.plain_bytes;
  }
  add(std::string_view(plain_).substr(begin));
  return pieces_;
}

size_t LargeMessage::reserved_bytes() const {
  size_t bytes = plain_.capacity();
  for (const Field& field : fields_) bytes += field.bytes.capacity();
  return bytes;
}

bool LargeMessage::ParseTo(google::protobuf::MessageLite* message) {
  const bool whole = !given_up_ && position_ == size_ && levels_.size() == 1 && header_bytes_ == 0 &&
                     plain_left_ == 0 && size_ <= kMostBytes;
  auto* const full = whole && !fields_.empty() ? dynamic_cast<Message*>(message) : nullptr;
  if (full != nullptr && full->GetDescriptor() == type_) return ParseBySteps(full);
  return IncomingMessage(Pieces()).ParseTo(message);
}

bool LargeMessage::ParseBySteps(Message* message) {
  AddMerge(plain_.size());
  message->Clear();
  std::vector<Message*> levels = {message};
  for (const Step& step : steps_) {
    Message* const level = levels.back();
    const Reflection* const reflection = level->GetReflection();
    switch (step.kind) {
      case Step::Kind::kMerge: {
        google::protobuf::io::CodedInputStream input(reinterpret_cast<const uint8_t*>(plain_.data()) + step.begin,
                                                     static_cast<int>(step.end - step.begin));
        input.SetRecursionLimit(google::protobuf::io::CodedInputStream::GetDefaultRecursionLimit() -
                                static_cast<int>(levels.size() - 1));
        if (!level->MergePartialFromCodedStream(&input) || !input.ConsumedEntireMessage()) return false;
        break;
      }
      case Step::Kind::kEnter:
        levels.push_back(step.field->is_repeated() ? reflection->AddMessage(level, step.field)
                                                   : reflection->MutableMessage(level, step.field));
        break;
      case Step::Kind::kSet: {
        std::string& bytes = fields_[step.begin].bytes;
        if (step.field->is_repeated()) {
          reflection->AddString(level, step.field, std::move(bytes));
        } else {
          reflection->SetString(level, step.field, std::move(bytes));
        }
        break;
      }
      case Step::Kind::kLeave:
        levels.pop_back();
        break;
    }
  }
  return true;
}

}  // namespace shmrpc::internal
