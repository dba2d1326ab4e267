#ifndef SHMRPC_TRANSPORTS_AUTO_HELLO_H_
#define SHMRPC_TRANSPORTS_AUTO_HELLO_H_

// The hellos that open every native connection, as proto/PROTOCOL.md specifies them: eight bytes of magic, the length
// of the message (uint32, little-endian), and the message, a ClientHello or a ServerHello.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"
#include "shmrpc/wire.pb.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::autoselect {

inline constexpr std::string_view kHelloMagic = "SHMRPC1\n";
inline constexpr size_t kMaxHelloBytes = 4096;
inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr size_t kTokenBytes = 16;  // of a token, and of a server's instance id

// The bytes of a hello.
std::string EncodeHello(const google::protobuf::MessageLite& hello);

// Sends the first bytes of a connection, a hello, and with them a copy of the descriptor `fd_to_pass` (-1: none). A
// hello is small and the socket's buffer empty: what does not go at once is not worth waiting for. False: not all of it
// went.
bool SendHello(int socket, const google::protobuf::MessageLite& hello, int fd_to_pass);

// Puts a hello together from what a socket yields, byte by byte if need be, and takes nothing that comes after it.
class HelloReader {
 public:
  enum class State {
    kMore,      // read on: up to Wanted() bytes
    kComplete,  // body() is there
    kHttp2,     // a client speaks HTTP/2: received() is kHttp2Preface
    kHttp1,     // a client speaks HTTP/1: received() is the beginning of its request
    kForeign,   // the peer does not speak this protocol; received() is what it said
  };

  State state() const { return state_; }
  size_t Wanted() const;

  // Takes what was read: Wanted() bytes or less.
  State Feed(std::string_view bytes);

  std::string_view received() const { return received_; }
  std::string_view body() const;

 private:
  State state_ = State::kMore;
  std::string received_;
};

// What a server that does not answer with a hello is.
enum class Foreign {
  kNo,      // it has answered with one, or the connection failed
  kHttp2,   // a server that speaks HTTP/2
  kSilent,  // one that hung up, or reset the connection
  kOther,
};

// For the side that may block: sends a hello with the descriptor `fd` (-1: none), and receives the answer and the
// descriptors with it. DEADLINE_EXCEEDED; CANCELLED when `interrupt_fd` (-1: none) became readable; UNAVAILABLE when
// the peer closed or does not speak this protocol, which the message then tells, and `foreign` what it looks like.
absl::Status ExchangeHellos(int socket, const google::protobuf::MessageLite& hello, int fd, SteadyTime deadline,
                            int interrupt_fd, google::protobuf::MessageLite* answer, std::vector<framed::UniqueFd>* fds,
                            Foreign* foreign);

// The windows for the messages of streams that a hello grants. INVALID_ARGUMENT when they are out of bounds.
void SetWindow(const FlowControlOptions& options, wire::Window* window);
absl::StatusOr<FlowControlOptions> GetWindow(const wire::Window& window);

// How long a side waits to hear of the other, as a hello says it.
uint64_t ToKeepaliveMs(absl::Duration timeout);
template <typename Hello>
std::optional<absl::Duration> GetKeepaliveTimeout(const Hello& hello) {
  if (!hello.has_keepalive_ms()) return std::nullopt;
  const uint64_t ms = hello.keepalive_ms();
  return ms == 0 || ms > uint64_t{1} << 40 ? absl::InfiniteDuration() : absl::Milliseconds(static_cast<int64_t>(ms));
}

// What identifies this host until it reboots, and serves no other purpose: made from the kernel's boot id, which it
// does not tell. An error (which begins with what failed) when the kernel does not tell either, for instance because no
// descriptor is left; that is not remembered.
absl::StatusOr<std::string> HostId();

// The name of a new rendezvous socket, without the leading zero byte, from 16 random bytes; and whether a name that a
// peer gives is one of these.
std::string RendezvousName(std::string_view random);
bool IsRendezvousName(std::string_view name);

}  // namespace shmrpc::autoselect

#endif  // SHMRPC_TRANSPORTS_AUTO_HELLO_H_
