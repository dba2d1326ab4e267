#include "transports/tcp/socket_link.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "transports/framed/errno_name.h"
#include "transports/tcp/socket_address.h"

namespace shmrpc::tcp {
namespace {

using framed::Chunk;
using framed::ErrnoText;
using framed::kFrameHeaderBytes;
using framed::kMaxFrameBytes;

static_assert(std::endian::native == std::endian::little, "the length word is little-endian");

constexpr size_t kSmallBufferBytes = 16 * 1024;
constexpr size_t kLargeReceiveBufferBytes = 128 * 1024;
constexpr size_t kFrameAlignment = 8;
constexpr size_t kMaxRunsPerSend = 128;

static_assert(kLargeReceiveBufferBytes >= kMaxFrameBytes);

size_t AlignUp(size_t position) { return (position + kFrameAlignment - 1) & ~(kFrameAlignment - 1); }

bool IsFrameLength(uint32_t length) { return length >= kFrameHeaderBytes && length <= kMaxFrameBytes; }

uint32_t LoadLength(const uint8_t* frame) {
  uint32_t length;
  std::memcpy(&length, frame, sizeof(length));
  return length;
}

ssize_t ReceiveBytes(int socket, uint8_t* memory, size_t size) {
  ssize_t result;
  do {
    result = recv(socket, memory, size, MSG_DONTWAIT);
  } while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace

SocketLink::SocketLink(framed::UniqueFd socket, std::string name, std::string_view initial_bytes)
    : socket_(std::move(socket)), name_(std::move(name)), peer_(PeerAddress(socket_.get())) {
  if (!initial_bytes.empty()) Keep(reinterpret_cast<const uint8_t*>(initial_bytes.data()), initial_bytes.size());
}

// ---- The sender.

size_t SocketLink::NextFramePosition() const { return first_run_ == runs_.size() ? 0 : AlignUp(runs_.back().end); }

uint8_t* SocketLink::Reserve(size_t size) {
  assert(size >= kFrameHeaderBytes && size <= kMaxFrameBytes);
  reserved_size_ = 0;
  if (closed_.load(std::memory_order_relaxed)) return nullptr;
  if (unsent_.load(std::memory_order_relaxed) + size > kMaxUnsentBytes) return nullptr;
  if (NextFramePosition() + size > send_capacity_) MakeSendRoom(size);
  reserved_at_ = NextFramePosition();
  reserved_size_ = size;
  return &send_buffer_[reserved_at_];
}

// Moves the unsent bytes together, to the front of the buffer or of a larger one.
void SocketLink::MakeSendRoom(size_t size) {
  const size_t unsent = unsent_.load(std::memory_order_relaxed);
  const size_t begin = first_run_ == runs_.size() ? 0 : runs_[first_run_].begin;
  const size_t needed = AlignUp(unsent) + size;
  std::unique_ptr<uint8_t[]> larger;
  uint8_t* destination = send_buffer_.get();
  // Within the buffer only if no more is moved than has been sent since the last time: so a byte is moved once or twice
  // in its life, however slowly the peer reads.
  if (needed > send_capacity_ || (begin < unsent && send_capacity_ < 2 * kMaxUnsentBytes)) {
    send_capacity_ = std::bit_ceil(std::max({needed, kSmallBufferBytes, send_capacity_ + 1}));
    larger.reset(new uint8_t[send_capacity_]);
    destination = larger.get();
  }
  size_t moved = 0;
  for (size_t i = first_run_; i < runs_.size(); ++i) {
    const size_t run_size = runs_[i].end - runs_[i].begin;
    std::memmove(destination + moved, &send_buffer_[runs_[i].begin], run_size);
    moved += run_size;
  }
  if (larger != nullptr) send_buffer_ = std::move(larger);
  runs_.clear();
  first_run_ = 0;
  if (moved > 0) runs_.push_back({0, moved});
}

void SocketLink::Commit(size_t size) {
  assert(size >= kFrameHeaderBytes && size <= reserved_size_);
  reserved_size_ = 0;
  const uint32_t length = static_cast<uint32_t>(size);
  std::memcpy(&send_buffer_[reserved_at_], &length, sizeof(length));
  if (first_run_ < runs_.size() && runs_.back().end == reserved_at_) {
    runs_.back().end += size;
  } else {
    runs_.push_back({reserved_at_, reserved_at_ + size});
  }
  const size_t unsent = unsent_.load(std::memory_order_relaxed) + size;
  unsent_.store(unsent, std::memory_order_relaxed);
  most_unsent_ = std::max(most_unsent_, unsent);
}

void SocketLink::Flush(bool always_ring) {
  while (unsent_.load(std::memory_order_relaxed) > 0) {
    if (closed_.load(std::memory_order_relaxed)) {
      ForgetUnsent();
      return;
    }
    iovec pieces[kMaxRunsPerSend];
    const size_t count = std::min(runs_.size() - first_run_, kMaxRunsPerSend);
    for (size_t i = 0; i < count; ++i) {
      const Run& run = runs_[first_run_ + i];
      pieces[i] = {&send_buffer_[run.begin], run.end - run.begin};
    }
    msghdr message = {};
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      // Also after a short write, until EAGAIN: only that arms an edge-triggered watch for the next room.
      MarkSent(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      kernel_full_.store(true, std::memory_order_relaxed);
      return;
    } else if (errno != EINTR) {
      BreakSending(errno);
      return;
    }
  }
}

void SocketLink::MarkSent(size_t bytes) {
  const size_t unsent = unsent_.load(std::memory_order_relaxed) - bytes;
  if (unsent == 0) {
    ForgetUnsent();
    return;
  }
  unsent_.store(unsent, std::memory_order_relaxed);
  while (bytes > 0) {
    Run& run = runs_[first_run_];
    const size_t taken = std::min(bytes, run.end - run.begin);
    run.begin += taken;
    bytes -= taken;
    if (run.begin == run.end) ++first_run_;
  }
}

void SocketLink::ForgetUnsent() {
  runs_.clear();
  first_run_ = 0;
  unsent_.store(0, std::memory_order_relaxed);
  kernel_full_.store(false, std::memory_order_relaxed);
  // A burst needed the large buffer, what came since did not.
  if (send_capacity_ > kSmallBufferBytes && most_unsent_ <= kSmallBufferBytes) {
    send_buffer_.reset();
    send_capacity_ = 0;
    runs_.shrink_to_fit();
  }
  most_unsent_ = 0;
}

void SocketLink::BreakSending(int error) {
  send_error_.store(error, std::memory_order_relaxed);
  closed_.store(true, std::memory_order_relaxed);
  ForgetUnsent();
  // Wakes up the receiver, which still gets all that has arrived (the peer sends nothing after what breaks a send), and
  // then the end.
  shutdown(socket_.get(), SHUT_RDWR);
}

bool SocketLink::SendBufferFull() const {
  return kernel_full_.load(std::memory_order_relaxed) && !closed_.load(std::memory_order_relaxed);
}

bool SocketLink::HasRoom() const {
  return !closed_.load(std::memory_order_relaxed) &&
         unsent_.load(std::memory_order_relaxed) + kMaxFrameBytes <= kMaxUnsentBytes;
}

bool SocketLink::AskForRoom() {
  Flush(/*always_ring=*/false);
  return !closed_.load(std::memory_order_relaxed) && !HasRoom();
}

void SocketLink::FinishSending() {
  closed_.store(true, std::memory_order_relaxed);
  shutdown(socket_.get(), SHUT_WR);
}

// ---- The receiver.

bool SocketLink::NextIsBuffered() const {
  if (Buffered() < sizeof(uint32_t)) return false;
  const uint32_t length = LoadLength(&receive_buffer_[receive_begin_]);
  return !IsFrameLength(length) || Buffered() >= length;
}

SocketLink::ReceiveResult SocketLink::Receive(Chunk* chunk) {
  if (ended_) return ReceiveResult::kEnd;
  if (NextIsBuffered()) return TakeBuffered(chunk);
  return Buffered() == 0 ? ReadIntoChunk(chunk) : ReadIntoBuffer(chunk);
}

SocketLink::ReceiveResult SocketLink::TakeBuffered(Chunk* chunk) {
  const uint32_t length = LoadLength(&receive_buffer_[receive_begin_]);
  if (!IsFrameLength(length)) return EndWithBadLength(length);
  std::memcpy(chunk->data, &receive_buffer_[receive_begin_], length);
  receive_begin_ += length;
  if (receive_begin_ == receive_end_) receive_begin_ = receive_end_ = 0;
  return ReceiveResult::kFrame;
}

SocketLink::ReceiveResult SocketLink::ReadIntoChunk(Chunk* chunk) {
  size_t size = 0;
  while (true) {
    const ssize_t result = ReceiveBytes(socket_.get(), chunk->data + size, kMaxFrameBytes - size);
    if (result <= 0) {
      const int error = errno;
      if (size > 0) Keep(chunk->data, size);
      errno = error;
      return NothingRead(result);
    }
    kernel_empty_ = false;
    size += static_cast<size_t>(result);
    if (size < sizeof(uint32_t)) continue;
    const uint32_t length = LoadLength(chunk->data);
    if (!IsFrameLength(length)) return EndWithBadLength(length);
    if (size < length) continue;
    if (size > length) Keep(chunk->data + length, size - length);
    return ReceiveResult::kFrame;
  }
}

// A frame has begun in the buffer. The rest of it goes there as well, so that a frame which comes in many small pieces
// is moved once and not with every piece.
SocketLink::ReceiveResult SocketLink::ReadIntoBuffer(Chunk* chunk) {
  while (true) {
    const bool has_length = Buffered() >= sizeof(uint32_t);
    MakeReceiveRoom(has_length ? LoadLength(&receive_buffer_[receive_begin_]) : kFrameHeaderBytes);
    const ssize_t result =
        ReceiveBytes(socket_.get(), &receive_buffer_[receive_end_], receive_capacity_ - receive_end_);
    if (result <= 0) return NothingRead(result);
    kernel_empty_ = false;
    receive_end_ += static_cast<size_t>(result);
    if (NextIsBuffered()) return TakeBuffered(chunk);
  }
}

// Room in the buffer for `total` contiguous bytes, counted from receive_begin_.
void SocketLink::MakeReceiveRoom(size_t total) {
  if (receive_begin_ + total <= receive_capacity_) return;
  const size_t buffered = Buffered();
  if (total <= receive_capacity_) {
    std::memmove(receive_buffer_.get(), &receive_buffer_[receive_begin_], buffered);
  } else {
    receive_capacity_ = total <= kSmallBufferBytes ? kSmallBufferBytes : std::max(total, kLargeReceiveBufferBytes);
    std::unique_ptr<uint8_t[]> larger(new uint8_t[receive_capacity_]);
    if (buffered > 0) std::memcpy(larger.get(), &receive_buffer_[receive_begin_], buffered);
    receive_buffer_ = std::move(larger);
  }
  receive_begin_ = 0;
  receive_end_ = buffered;
}

// Puts bytes into the buffer, which is empty.
void SocketLink::Keep(const uint8_t* bytes, size_t size) {
  MakeReceiveRoom(size);
  std::memcpy(&receive_buffer_[receive_end_], bytes, size);
  receive_end_ += size;
  buffer_used_ = true;
}

SocketLink::ReceiveResult SocketLink::NothingRead(ssize_t result) {
  const int error = result < 0 ? errno : 0;
  if (error == EAGAIN) {
    kernel_empty_ = true;
    return ReceiveResult::kEmpty;
  }
  if (shut_down_.load(std::memory_order_relaxed)) {
    return End(absl::UnavailableError(absl::StrCat("this side closed the connection to ", peer_)));
  }
  if (const int send_error = send_error_.load(std::memory_order_relaxed); send_error != 0) {
    return End(absl::UnavailableError(
        absl::StrCat("the peer ", peer_, " closed the connection: sending failed: ", ErrnoText(send_error))));
  }
  if (error != 0) {
    return End(absl::UnavailableError(absl::StrCat("the connection to ", peer_, " broke: ", ErrnoText(error))));
  }
  if (Buffered() > 0) {
    return End(absl::UnavailableError(absl::StrCat(
        "the peer ", peer_, " closed the connection in the middle of a frame, ", Buffered(), " bytes into it")));
  }
  return End(absl::UnavailableError(absl::StrCat("the peer ", peer_, " closed the connection")));
}

SocketLink::ReceiveResult SocketLink::EndWithBadLength(uint32_t length) {
  return End(absl::InternalError(absl::StrCat("the peer ", peer_, " sent a frame of ", length, " bytes, a frame has ",
                                              kFrameHeaderBytes, " to ", kMaxFrameBytes,
                                              ": is it another program or another version?")));
}

SocketLink::ReceiveResult SocketLink::End(absl::Status status) {
  ended_ = true;
  end_status_ = std::move(status);
  closed_.store(true, std::memory_order_relaxed);
  receive_buffer_.reset();
  receive_capacity_ = receive_begin_ = receive_end_ = 0;
  return ReceiveResult::kEnd;
}

bool SocketLink::HasFrame() { return ended_ || NextIsBuffered(); }

bool SocketLink::PrepareToPark() {
  // Bytes that came before the last look would not trigger an edge again.
  if (ended_ || NextIsBuffered() || !kernel_empty_) return false;
  if (!buffer_used_ && Buffered() == 0) {
    receive_buffer_.reset();
    receive_capacity_ = 0;
  }
  buffer_used_ = false;
  return true;
}

// ---- Any thread.

void SocketLink::Shutdown() {
  shut_down_.store(true, std::memory_order_relaxed);
  closed_.store(true, std::memory_order_relaxed);
  shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace shmrpc::tcp
