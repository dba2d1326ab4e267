#ifndef SHMRPC_TESTS_UNIT_FRAMED_RAW_PEER_H_
#define SHMRPC_TESTS_UNIT_FRAMED_RAW_PEER_H_

// The peer of a session, frame by frame: for what proto/PROTOCOL.md says of calls, flow control and violations, and a
// peer made of the library's own code would never show.

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "transports/framed/frame.h"
#include "transports/framed/link.h"
#include "transports/framed/unique_fd.h"
#include "transports/tcp/socket_link.h"

namespace shmrpc::framed {

inline constexpr absl::Duration kHangGuard = absl::Seconds(60);

// Windows so small that each message makes credit due, which comes in lumps of an eighth. Two messages fill a call's.
inline constexpr FlowControlOptions kWindows = {.stream_bytes = 16 * 1024, .connection_bytes = 64 * 1024};
inline constexpr uint64_t kMessageCost = 8 * 1024;
inline constexpr size_t kMessageBytes = kMessageCost - FlowControlOptions::kMessageOverheadBytes;

struct Frame {
  FrameHeader header;
  std::string body;
};

// The peer: the other end of a session's socket, which writes and reads frames as bytes.
class RawPeer {
 public:
  RawPeer() {
    int sockets[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    own_ = UniqueFd(sockets[0]);
    EXPECT_EQ(fcntl(sockets[1], F_SETFL, O_NONBLOCK), 0);
    link_ = std::make_unique<tcp::SocketLink>(UniqueFd(sockets[1]), "unix", "");
    const timeval guard = absl::ToTimeval(kHangGuard);
    EXPECT_EQ(setsockopt(own_.get(), SOL_SOCKET, SO_RCVTIMEO, &guard, sizeof guard), 0);
  }

  // For the session.
  std::unique_ptr<Link> TakeLink() { return std::move(link_); }

  // The bytes of a frame.
  static std::string Encode(FrameHeader header, std::string_view body = "") {
    header.length = static_cast<uint32_t>(kFrameHeaderBytes + body.size());
    std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
    bytes.append(body);
    return bytes;
  }
  // What is sent together, the session receives together: one frame, or several.
  void SendBytes(std::string_view bytes) {
    ASSERT_EQ(send(own_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  void Send(FrameHeader header, std::string_view body = "") { SendBytes(Encode(header, body)); }
  void SendMethod() { Send({.type = FrameType::kMethod, .code = 0}, "/a.Service/Method"); }
  void SendRequest(uint64_t call_id, uint8_t flags) {
    Send({.type = FrameType::kRequest, .flags = flags, .call_id = call_id});
  }
  void SendMessage(uint64_t call_id, uint8_t flags, size_t bytes = kMessageBytes) {
    Send({.type = FrameType::kMessage, .flags = flags, .call_id = call_id}, std::string(bytes, '\0'));
  }
  void SendCredit(uint64_t call_id, const Credit& credit) {
    char body[kCreditBytes];
    EncodeCredit(credit, body);
    Send({.type = FrameType::kCredit, .call_id = call_id}, std::string_view(body, sizeof body));
  }

  // The next frame; none when the session has hung up.
  std::optional<Frame> Receive() {
    Frame frame;
    if (!ReceiveBytes(&frame.header, sizeof frame.header)) return std::nullopt;
    frame.body.resize(frame.header.length - kFrameHeaderBytes);
    if (!ReceiveBytes(frame.body.data(), frame.body.size())) return std::nullopt;
    return frame;
  }

  // The next frame, which has to be of this type.
  Frame Expect(FrameType type) {
    std::optional<Frame> frame = Receive();
    if (!frame.has_value()) {
      ADD_FAILURE() << "hung up where a frame of type " << static_cast<int>(type) << " was expected";
      return {};
    }
    EXPECT_EQ(static_cast<int>(frame->header.type), static_cast<int>(type));
    return *std::move(frame);
  }

  Credit ExpectCredit(uint64_t call_id) {
    const Frame frame = Expect(FrameType::kCredit);
    EXPECT_EQ(frame.header.call_id, call_id);
    Credit credit;
    FrameHeader header = frame.header;
    std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
    absl::StrAppend(&bytes, frame.body);
    EXPECT_EQ(DecodeCredit(bytes, header, &credit), absl::OkStatus());
    return credit;
  }

  void HangUp() { own_.Reset(); }

  // Whether the session hangs up, whatever it sends before.
  bool SeesTheEnd() {
    while (Receive().has_value()) {
    }
    return ended_;
  }

 private:
  bool ReceiveBytes(void* bytes, size_t size) {
    if (size == 0) return true;
    const ssize_t received = recv(own_.get(), bytes, size, MSG_WAITALL);
    // Not EAGAIN, which is the hang guard.
    ended_ = received == 0 || (received < 0 && errno == ECONNRESET);
    return received == static_cast<ssize_t>(size);
  }

  UniqueFd own_;
  std::unique_ptr<Link> link_;
  bool ended_ = false;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TESTS_UNIT_FRAMED_RAW_PEER_H_
