#ifndef SHMRPC_RUNTIME_SRC_PIECE_STREAM_H_
#define SHMRPC_RUNTIME_SRC_PIECE_STREAM_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "google/protobuf/io/zero_copy_stream.h"

namespace shmrpc::internal {

// The pieces of a message as protobuf reads them. What is skipped is not looked at. Not synchronised; the pieces
// outlive it.
class PieceStream final : public google::protobuf::io::ZeroCopyInputStream {
 public:
  explicit PieceStream(absl::Span<const absl::string_view> pieces) : pieces_(pieces) {}

  bool Next(const void** data, int* size) override {
    if (backed_up_ == 0) {
      if (next_ == pieces_.size()) return false;
      backed_up_ = pieces_[next_++].size();
    }
    const absl::string_view piece = pieces_[next_ - 1];
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
  const absl::Span<const absl::string_view> pieces_;
  size_t next_ = 0;       // the piece that follows the current one
  size_t backed_up_ = 0;  // bytes at the end of the current piece that have yet to be read
  int64_t read_ = 0;
};

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_PIECE_STREAM_H_
