#include "shmrpc/message.h"

#include <algorithm>
#include <limits>

#include "google/protobuf/io/coded_stream.h"
#include "runtime/src/large_message.h"

namespace shmrpc {
namespace {

// The pieces of a message as protobuf reads them.
class PieceStream final : public google::protobuf::io::ZeroCopyInputStream {
 public:
  explicit PieceStream(std::span<const std::string_view> pieces) : pieces_(pieces) {}

  bool Next(const void** data, int* size) override {
    if (backed_up_ == 0) {
      if (next_ == pieces_.size()) return false;
      backed_up_ = pieces_[next_++].size();
    }
    const std::string_view piece = pieces_[next_ - 1];
    *data = piece.data() + (piece.size() - backed_up_);
    *size = static_cast<int>(backed_up_);
    read_ += static_cast<int64_t>(backed_up_);
    backed_up_ = 0;
    return true;
  }

  void BackUp(int count) override {
    backed_up_ = static_cast<size_t>(count);
    read_ -= count;
  }

  bool Skip(int count) override {
    size_t left = static_cast<size_t>(count);
    while (left > 0) {
      const void* data;
      int size;
      if (!Next(&data, &size)) return false;
      const size_t skipped = std::min(left, static_cast<size_t>(size));
      BackUp(size - static_cast<int>(skipped));
      left -= skipped;
    }
    return true;
  }

  int64_t ByteCount() const override { return read_; }

 private:
  const std::span<const std::string_view> pieces_;
  size_t next_ = 0;       // the piece that follows the current one
  size_t backed_up_ = 0;  // bytes at the end of the current piece that have yet to be read
  int64_t read_ = 0;
};

}  // namespace

IncomingMessage::IncomingMessage(std::span<const std::string_view> pieces) : pieces_(pieces) {
  for (std::string_view piece : pieces) size_ += piece.size();
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
  PieceStream stream(pieces_);
  return message->ParsePartialFromBoundedZeroCopyStream(&stream, static_cast<int>(size_));
}

void OutgoingProto::SerializeToArray(uint8_t* target) const { message_.SerializeWithCachedSizesToArray(target); }

bool OutgoingProto::SerializeToStream(google::protobuf::io::ZeroCopyOutputStream* stream) const {
  google::protobuf::io::CodedOutputStream coded(stream);
  message_.SerializeWithCachedSizes(&coded);
  return !coded.HadError();  // flushes
}

}  // namespace shmrpc
