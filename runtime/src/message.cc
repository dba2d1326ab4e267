#include "shmrpc/message.h"

#include <cstdlib>
#include <limits>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/stubs/logging.h"
#include "runtime/src/large_message.h"
#include "runtime/src/log.h"
#include "runtime/src/piece_stream.h"

namespace shmrpc {

IncomingMessage::IncomingMessage(absl::Span<const absl::string_view> pieces) : pieces_(pieces) {
  for (absl::string_view piece : pieces) size_ += piece.size();
}

IncomingMessage::IncomingMessage(internal::LargeMessage& large) : IncomingMessage(large.Pieces()) { large_ = &large; }

bool IncomingMessage::ParseTo(google::protobuf::MessageLite* message) const {
  if (large_ != nullptr) return large_->ParseTo(message);
  // protobuf counts in int.
  if (size_ > static_cast<size_t>(std::numeric_limits<int>::max())) return false;
  // Partial: whether required fields are missing is another question, which the runtime answers with a better text.
  if (pieces_.size() == 1) {
    return message->ParsePartialFromArray(pieces_[0].data(), static_cast<int>(pieces_[0].size()));
  }
  internal::PieceStream stream(pieces_);
  return message->ParsePartialFromBoundedZeroCopyStream(&stream, static_cast<int>(size_));
}

void OutgoingProto::SerializeToArray(uint8_t* target) const {
  const uint8_t* end = nullptr;
  try {
    end = message_.SerializeWithCachedSizesToArray(target);
  } catch (const google::protobuf::FatalException&) {
    // Some builds of protobuf compare as well, when it has happened.
  }
  if (end == target + size_) return;
  // What stands behind the message has been overwritten, or memory that nobody has written would be sent.
  internal::LogWarning(absl::StrCat("a message of type ", message_.GetTypeName(), " had ", size_,
                                    " bytes when it was to be sent, and another number of them when it was written: "
                                    "another thread has changed it meanwhile. The program is ended; do not change a "
                                    "message before its call or its write is over"));
  std::abort();
}

bool OutgoingProto::SerializeToStream(google::protobuf::io::ZeroCopyOutputStream* stream) const {
  google::protobuf::io::CodedOutputStream coded(stream);
  message_.SerializeWithCachedSizes(&coded);
  return !coded.HadError();  // flushes
}

}  // namespace shmrpc
