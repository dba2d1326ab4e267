#include "shmrpc/raw_message.h"

#include "google/protobuf/arena.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/parse_context.h"

namespace shmrpc {
namespace {

// protobuf counts down from the largest int when a stream is parsed to its end, whatever that is.
constexpr int kLimitOfUnlimited = 1 << 30;

}  // namespace

const RawMessage& RawMessage::default_instance() {
  static const RawMessage* const instance = new RawMessage;
  return *instance;
}

std::string RawMessage::GetTypeName() const { return "shmrpc.RawMessage"; }

google::protobuf::MessageLite* RawMessage::New(google::protobuf::Arena* arena) const {
  auto* const message = new RawMessage;
  if (arena != nullptr) arena->Own(static_cast<MessageLite*>(message));
  return message;
}

// As for every message: two encodings one after the other are the encoding of the merged message.
void RawMessage::CheckTypeAndMergeFrom(const MessageLite& other) {
  bytes_ += static_cast<const RawMessage&>(other).bytes_;
}

const char* RawMessage::_InternalParse(const char* data, google::protobuf::internal::ParseContext* context) {
  // With a limit, as messages that have arrived are parsed, it is known how much there is.
  const int left = context->BytesUntilLimit(data);
  if (left < kLimitOfUnlimited) {
    if (bytes_.empty()) return context->ReadString(data, left, &bytes_);
    std::string more;
    data = context->ReadString(data, left, &more);
    bytes_ += more;
    return data;
  }
  while (!context->Done(&data)) bytes_ += *data++;
  return data;
}

uint8_t* RawMessage::_InternalSerialize(uint8_t* target, google::protobuf::io::EpsCopyOutputStream* stream) const {
  return stream->WriteRaw(bytes_.data(), static_cast<int>(bytes_.size()), target);
}

}  // namespace shmrpc
