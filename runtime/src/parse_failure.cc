#include "runtime/src/parse_failure.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "runtime/src/large_message.h"
#include "runtime/src/piece_stream.h"
#include "shmrpc/options.h"

namespace shmrpc::internal {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::io::CodedInputStream;

// Deeper nesting is not counted out: a level takes two bytes of a message and more of memory.
constexpr size_t kMostLevels = 10'000;

// How many messages and groups stand inside one another in `bytes`, a message of type `type`, as protobuf counts
// against its recursion limit; no more than kMostLevels. 0: that cannot be told, because the bytes are malformed
// otherwise. The contents of strings are skipped, so it does not matter if they have been moved away.
size_t NestingOf(const IncomingMessage& bytes, const Descriptor* type) {
  struct Level {
    const Descriptor* type;  // null: not known
    int end;                 // position of its last byte and one
    uint32_t group;          // its number; 0: it is no group
  };
  PieceStream stream(bytes.pieces());
  CodedInputStream input(&stream);
  std::vector<Level> levels = {{type, static_cast<int>(bytes.size()), 0}};
  size_t deepest = 0;
  for (;;) {
    while (input.CurrentPosition() == levels.back().end && levels.back().group == 0) {
      if (levels.size() == 1) return deepest;
      levels.pop_back();
    }
    const Level level = levels.back();
    const uint32_t tag = input.ReadTag();
    const uint32_t number = tag >> 3;
    uint64_t value;
    uint32_t length;
    if (number == 0) return 0;
    const FieldDescriptor* const field =
        level.type == nullptr ? nullptr : level.type->FindFieldByNumber(static_cast<int>(number));
    const Descriptor* const inner = field == nullptr ? nullptr : field->message_type();  // null: it has no fields
    switch (tag & 7) {
      case 0:
        if (!input.ReadVarint64(&value)) return 0;
        break;
      case 1:
        if (!input.Skip(8)) return 0;
        break;
      case 2:
        if (!input.ReadVarint32(&length)) return 0;
        if (level.end < input.CurrentPosition()) return 0;
        if (length > static_cast<uint32_t>(level.end - input.CurrentPosition())) return 0;
        if (inner != nullptr) {
          levels.push_back({inner, input.CurrentPosition() + static_cast<int>(length), 0});
        } else if (!input.Skip(static_cast<int>(length))) {
          return 0;
        }
        break;
      case 3:
        levels.push_back({inner, level.end, number});
        break;
      case 4:
        if (level.group != number) return 0;
        levels.pop_back();
        break;
      case 5:
        if (!input.Skip(4)) return 0;
        break;
      default:
        return 0;
    }
    if (input.CurrentPosition() > levels.back().end) return 0;
    deepest = std::max(deepest, levels.size() - 1);
    if (deepest == kMostLevels) return deepest;
  }
}

}  // namespace

std::string WhyNotParsed(const IncomingMessage& bytes, const google::protobuf::MessageLite& message) {
  const size_t limit = static_cast<size_t>(CodedInputStream::GetDefaultRecursionLimit());
  const Descriptor* const type = DescriptorOf(message);
  const size_t nesting = type == nullptr || bytes.size() > kMaxMaxMessageBytes ? 0 : NestingOf(bytes, type);
  if (nesting > limit) {
    return absl::StrCat("is a ", message.GetTypeName(), " whose messages are nested ", nesting,
                        nesting == kMostLevels ? " or more" : "", " levels deep, more than the ", limit,
                        " of protobuf's recursion limit: make it flatter, or send the inner part in a field of type "
                        "bytes, to be parsed with a CodedInputStream that allows more");
  }
  if (bytes.size() > kMaxMaxMessageBytes) {
    return absl::StrCat("is longer than the ", kMaxMaxMessageBytes, " bytes that protobuf parses");
  }
  return absl::StrCat("is not a ", message.GetTypeName(), type == nullptr ? ", or nested deeper than the " : "",
                      type == nullptr ? absl::StrCat(limit, " levels of protobuf's recursion limit") : "",
                      "; client and server may have been built from different .proto files");
}

}  // namespace shmrpc::internal
