#ifndef SHMRPC_RUNTIME_SRC_LARGE_MESSAGE_H_
#define SHMRPC_RUNTIME_SRC_LARGE_MESSAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/message_lite.h"

namespace shmrpc::internal {

// A large message on its way in: takes the pieces as they come, and in the end becomes a protobuf message.
//
// What makes messages large is mostly a field of type bytes, somewhere inside. To gather the whole message first and to
// parse it then would copy that field twice, and the second copy could not begin before the last piece is there. So
// when the type of the message is known, the bytes are looked through as they come: the contents of a large bytes field
// go straight into a string of its own, which ParseTo moves into the message; everything else is gathered, and parsed
// in the end by protobuf. The result is what protobuf makes of the whole: what stands before, in and behind such a
// field is merged in that order, each at its level of nesting.
//
//   SimpleRequest { payload { type: 0  body: "…1 MiB…" }  response_size: 7 }
//   plain:        tag length tag 0 tag length                  tag 7
//   fields:                                   "…1 MiB…"
//   steps:        enter payload; merge "tag 0"; set body; leave; merge "tag 7"
//
// Whatever is out of the ordinary (other wire types than those of proto3, lengths beyond the end, fields without end)
// makes the object give up looking: from then on all is gathered, and protobuf parses the whole as it came. So what is
// malformed is refused by protobuf and by nobody else.
//
// What is announced is believed, and asked for at once, up to kReservedAtOnce; the rest only when that much has come.
//
// The bytes may come from anybody, but do not change any more. Not synchronised.
class LargeMessage {
 public:
  // Smaller fields are not worth a string of their own.
  static constexpr size_t kLeastField = 16 * 1024;
  static constexpr size_t kReservedAtOnce = size_t{16} << 20;

  // `type`: that of the message that ParseTo will be given, or null if it is not known. `size`: how long the message
  // is, as its sender says.
  LargeMessage(const google::protobuf::Descriptor* type, size_t size);
  LargeMessage(const LargeMessage&) = delete;
  LargeMessage& operator=(const LargeMessage&) = delete;

  void Append(std::string_view piece);

  // All bytes that have come, in order; no piece is empty. Valid until the next Append or ParseTo.
  std::span<const std::string_view> Pieces();

  // How much memory there is for what has come and will come.
  size_t reserved_bytes() const;

  // As IncomingMessage::ParseTo. Once at most, because it moves the large fields.
  bool ParseTo(google::protobuf::MessageLite* message);

 private:
  // A message with more fields than that (a level's, and those around it, count together) is not made large by one of
  // them; what follows is gathered without a look.
  static constexpr size_t kMostFields = 1024;
  static constexpr size_t kMostLevels = 16;
  static constexpr size_t kMostHeaderBytes = 15;  // a tag, five bytes, and a value, ten

  struct Field {
    std::string bytes;
    size_t size = 0;         // when all has come
    size_t plain_bytes = 0;  // how many of `plain_` come before it
  };
  struct Level {
    const google::protobuf::Descriptor* type;
    size_t end;  // position of its last byte and one
  };
  struct Step {
    enum class Kind { kMerge, kEnter, kSet, kLeave };
    Kind kind;
    size_t begin = 0;  // kMerge: the range in `plain_`. kSet: begin is the index in `fields_`
    size_t end = 0;
    const google::protobuf::FieldDescriptor* field = nullptr;  // kEnter, kSet
  };

  static void Grow(std::string* bytes, size_t more, size_t expected);
  void AppendPlain(std::string_view bytes);
  void OnHeaderByte();
  void OnLength(uint32_t tag, uint64_t length);
  void OnFieldOver();
  void GiveUp();
  // Notes that what was gathered since the last step, up to `end`, is to be merged.
  void AddMerge(size_t end);
  bool ParseBySteps(google::protobuf::Message* message);

  const google::protobuf::Descriptor* const type_;
  const size_t size_;
  size_t position_ = 0;  // of the next byte to come
  bool given_up_ = false;
  size_t fields_seen_ = 0;
  size_t plain_left_ = 0;    // so many bytes are gathered without a look
  size_t field_left_ = 0;    // so many bytes go to fields_.back()
  size_t merged_ = 0;        // how much of `plain_` the steps account for
  size_t field_begin_ = 0;   // where in `plain_` the current field begins
  size_t header_bytes_ = 0;  // of the current field's header
  std::array<uint8_t, kMostHeaderBytes> header_;
  std::vector<Level> levels_;  // the innermost last; the message itself is the first
  std::string plain_;
  std::vector<Field> fields_;
  std::vector<Step> steps_;
  std::vector<std::string_view> pieces_;
};

// Null for a message of the lite runtime.
const google::protobuf::Descriptor* DescriptorOf(const google::protobuf::MessageLite& message);

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_LARGE_MESSAGE_H_
