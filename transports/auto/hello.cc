#include "transports/auto/hello.h"

#include <poll.h>
#include <uuid/uuid.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/src/small_file.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "transports/auto/http2.h"
#include "transports/framed/errno_name.h"
#include "transports/shm/fd_passing.h"

namespace shmrpc::autoselect {
namespace {

constexpr size_t kPrefixBytes = 8 + sizeof(uint32_t);
constexpr std::string_view kHostIdName = "shmrpc";
constexpr std::string_view kRendezvousPrefix = "shmrpc-";

// What a request of HTTP/1 begins with (RFC 9110, section 9, and RFC 5789).
constexpr std::string_view kHttp1Methods[] = {"GET ",     "HEAD ",    "POST ",  "PUT ",  "DELETE ",
                                              "CONNECT ", "OPTIONS ", "TRACE ", "PATCH "};

// Whether there is a method at the beginning of what has come, or may be one when more has come.
enum class Http1 { kNo, kPerhaps, kYes };
Http1 LooksLikeHttp1(std::string_view received) {
  Http1 looks = Http1::kNo;
  for (const std::string_view method : kHttp1Methods) {
    if (absl::StartsWith(received, method)) return Http1::kYes;
    if (absl::StartsWith(method, received)) looks = Http1::kPerhaps;
  }
  return looks;
}

// Waits until `socket` is ready for `events`.
absl::Status WaitReady(int socket, short events, SteadyTime deadline, int interrupt_fd) {
  for (;;) {
    pollfd fds[2] = {{socket, events, 0}, {interrupt_fd, POLLIN, 0}};
    const bool forever = deadline == SteadyTime::InfiniteFuture();
    const timespec timeout = absl::ToTimespec(forever ? absl::ZeroDuration() : deadline.Left());
    const int ready = ppoll(fds, interrupt_fd >= 0 ? 2 : 1, forever ? nullptr : &timeout, nullptr);
    if (ready < 0 && errno != EINTR) return absl::UnavailableError(framed::ErrnoText(errno));
    if (fds[1].revents != 0) return absl::CancelledError("the attempt to connect was given up");
    if (fds[0].revents != 0) return absl::OkStatus();
    if (ready == 0) return absl::DeadlineExceededError("the server did not answer the hello in time");
  }
}

absl::Status ForeignAnswer(std::string_view received, Foreign* foreign) {
  // An HTTP/2 server speaks first, or answers, with a SETTINGS frame: 3 bytes of length, then type 4.
  if (received.size() >= 4 && received[0] == 0 && received[3] == 4) {
    *foreign = Foreign::kHttp2;
    return absl::UnavailableError(
        "the server speaks HTTP/2, as gRPC servers do, not shmrpc: is this the right port? For a gRPC server link "
        "shmrpc::grpc and give the channel TransportsWithGrpc()");
  }
  *foreign = Foreign::kOther;
  // A record of TLS: its type, 21 for an alert or 22 for a handshake, and the version's first byte.
  if (received.size() >= 2 && (received[0] == 21 || received[0] == 22) && received[1] == 3) {
    return absl::UnavailableError(
        "the server speaks TLS, and does not speak shmrpc: is this the right port? For a gRPC server over TLS link "
        "shmrpc::grpc, write grpc:host:port, and give the channel TransportsWithGrpc() with the option tls");
  }
  return absl::UnavailableError(absl::StrCat("the server does not speak shmrpc: its answer began with \"",
                                             absl::CEscape(ToAbsl(received.substr(0, 32))),
                                             "\". Is this the right port?"));
}

}  // namespace

void SetWindow(const FlowControlOptions& options, wire::Window* window) {
  window->set_call_bytes(options.stream_bytes);
  window->set_connection_bytes(options.connection_bytes);
}

absl::StatusOr<FlowControlOptions> GetWindow(const wire::Window& window) {
  if (window.call_bytes() < FlowControlOptions::kMinStreamBytes || window.connection_bytes() < window.call_bytes() ||
      window.connection_bytes() > FlowControlOptions::kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the hello grants windows of ", window.call_bytes(), " and ", window.connection_bytes(),
                     " bytes; the first has to be at least ", FlowControlOptions::kMinStreamBytes,
                     ", the second as large and at most ", FlowControlOptions::kMaxBytes));
  }
  FlowControlOptions options;
  options.stream_bytes = window.call_bytes();
  options.connection_bytes = window.connection_bytes();
  return options;
}

uint64_t ToKeepaliveMs(absl::Duration timeout) {
  return timeout == absl::InfiniteDuration() ? 0 : static_cast<uint64_t>(absl::ToInt64Milliseconds(timeout));
}

std::string EncodeHello(const google::protobuf::MessageLite& hello) {
  const uint32_t length = static_cast<uint32_t>(hello.ByteSizeLong());
  std::string bytes(kHelloMagic.data(), kHelloMagic.size());
  bytes.append(reinterpret_cast<const char*>(&length), sizeof length);
  hello.AppendToString(&bytes);
  return bytes;
}

bool SendHello(int socket, const google::protobuf::MessageLite& hello, int fd_to_pass) {
  const std::string bytes = EncodeHello(hello);
  const absl::StatusOr<size_t> sent =
      shm::SendWithFd(socket, std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()), fd_to_pass);
  return sent.ok() && *sent == bytes.size();
}

size_t HelloReader::Wanted() const {
  if (!received_.empty() && received_[0] == kHttp2Preface[0]) return kHttp2Preface.size() - received_.size();
  if (received_.size() < kPrefixBytes) return kPrefixBytes - received_.size();
  uint32_t length;
  std::memcpy(&length, received_.data() + kHelloMagic.size(), sizeof length);
  return kPrefixBytes + length - received_.size();
}

HelloReader::State HelloReader::Feed(std::string_view bytes) {
  received_.append(bytes.data(), bytes.size());
  if (kHttp2Preface.starts_with(received_)) {
    if (received_.size() == kHttp2Preface.size()) state_ = State::kHttp2;
    return state_;
  }
  const size_t compared = std::min(received_.size(), kHelloMagic.size());
  if (std::string_view(received_).substr(0, compared) != kHelloMagic.substr(0, compared)) {
    switch (LooksLikeHttp1(received_)) {
      case Http1::kNo:
        return state_ = State::kForeign;
      case Http1::kPerhaps:
        return state_;
      case Http1::kYes:
        return state_ = State::kHttp1;
    }
  }
  if (received_.size() < kPrefixBytes) return state_;
  uint32_t length;
  std::memcpy(&length, received_.data() + kHelloMagic.size(), sizeof length);
  if (length > kMaxHelloBytes) return state_ = State::kForeign;
  if (received_.size() == kPrefixBytes + length) state_ = State::kComplete;
  return state_;
}

std::string_view HelloReader::body() const { return std::string_view(received_).substr(kPrefixBytes); }

absl::Status ExchangeHellos(int socket, const google::protobuf::MessageLite& hello, int fd, SteadyTime deadline,
                            int interrupt_fd, google::protobuf::MessageLite* answer, std::vector<framed::UniqueFd>* fds,
                            Foreign* foreign) {
  *foreign = Foreign::kNo;
  const std::string bytes = EncodeHello(hello);
  std::span<const uint8_t> rest(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  absl::Status not_sent;
  while (!rest.empty()) {
    absl::StatusOr<size_t> sent = shm::SendWithFd(socket, rest, fd);
    if (!sent.ok()) {
      // A server that refuses the connection for a limit closes it at once; why is in its answer.
      not_sent = sent.status();
      break;
    }
    if (*sent > 0) {
      fd = -1;
      rest = rest.subspan(*sent);
      continue;
    }
    absl::Status ready = WaitReady(socket, POLLOUT, deadline, interrupt_fd);
    if (!ready.ok()) return ready;
  }
  HelloReader reader;
  while (reader.state() == HelloReader::State::kMore) {
    uint8_t buffer[512];
    const size_t size = std::min(reader.Wanted(), sizeof buffer);
    absl::StatusOr<std::optional<size_t>> received = shm::ReceiveWithFds(socket, std::span(buffer, size), fds);
    // It is the server that has done something wrong, not this side's caller.
    if (absl::IsInvalidArgument(received.status())) return absl::UnavailableError(received.status().message());
    if (!received.ok()) {
      const absl::Status& broken = not_sent.ok() ? received.status() : not_sent;
      if (!absl::IsAborted(broken)) return broken;
      // As one that hangs up: nothing says more of what it is.
      if (reader.received().empty()) *foreign = Foreign::kSilent;
      return absl::UnavailableError(
          absl::StrCat("the server reset the connection instead of answering the hello: ", broken.message()));
    }
    if (!received->has_value()) {
      if (!not_sent.ok()) return not_sent;
      absl::Status ready = WaitReady(socket, POLLIN, deadline, interrupt_fd);
      if (!ready.ok()) return ready;
      continue;
    }
    if (**received == 0) {
      if (!not_sent.ok()) return not_sent;
      *foreign = reader.received().empty() ? Foreign::kSilent : Foreign::kOther;
      return absl::UnavailableError("the server closed the connection instead of answering the hello");
    }
    reader.Feed(std::string_view(reinterpret_cast<const char*>(buffer), **received));
  }
  if (reader.state() != HelloReader::State::kComplete) return ForeignAnswer(reader.received(), foreign);
  if (!answer->ParseFromArray(reader.body().data(), static_cast<int>(reader.body().size()))) {
    return absl::UnavailableError("the server's hello cannot be read");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> HostId() {
  static Mutex mutex;
  static std::string* const known = new std::string;
  MutexLock lock(&mutex);
  if (!known->empty()) return *known;
  const std::optional<std::string> text = internal::ReadSmallFile("/proc/sys/kernel/random/boot_id");
  if (!text.has_value()) {
    return absl::UnavailableError(absl::StrCat("this host's boot id cannot be read (", framed::ErrnoName(errno), ")"));
  }
  uuid_t boot_id;
  if (uuid_parse(std::string(absl::StripTrailingAsciiWhitespace(*text)).c_str(), boot_id) != 0) {
    return absl::UnavailableError("this host's boot id is not a UUID");
  }
  uuid_t id;
  uuid_generate_sha1(id, boot_id, kHostIdName.data(), kHostIdName.size());
  char formatted[UUID_STR_LEN];
  uuid_unparse_lower(id, formatted);
  return *known = formatted;
}

std::string RendezvousName(std::string_view random) {
  return absl::StrCat(kRendezvousPrefix, absl::BytesToHexString(random));
}

bool IsRendezvousName(std::string_view name) {
  return absl::ConsumePrefix(&name, kRendezvousPrefix) && name.size() == 2 * kTokenBytes &&
         name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace shmrpc::autoselect
