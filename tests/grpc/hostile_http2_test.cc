// Clients that speak HTTP/2 by hand, and no more of it than it takes to cost a server much: each with one connection,
// beside an honest one. What the gRPC library lets through is bounded by what this one sets, or is in docs/grpc.md.

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "grpc_caller.h"
#include "gtest/gtest.h"
#include "shmrpc/grpc.h"
#include "shmrpc/shmrpc.h"
#include "shmrpc/steady_time.h"
#include "sync.h"
#include "tests/sanitizers.h"
#include "transports/tcp/connect_socket.h"

namespace shmrpc {
namespace {

using conformance::EchoReply;
using conformance::EchoRequest;
using conformance::Eventually;
using conformance::GrpcEchoCaller;
using testing::HasSubstr;

constexpr bool kLong = SHMRPC_LONG_TESTS != 0;
constexpr size_t kMiB = size_t{1} << 20;

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum FrameType : uint8_t { kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6, kContinuation = 9 };
constexpr uint8_t kEndStream = 1;
constexpr uint8_t kEndHeaders = 4;

std::string Frame(FrameType type, uint8_t flags, uint32_t stream, const std::string& body) {
  std::string frame;
  for (const int shift : {16, 8, 0}) frame.push_back(static_cast<char>(body.size() >> shift));
  frame.push_back(static_cast<char>(type));
  frame.push_back(static_cast<char>(flags));
  for (const int shift : {24, 16, 8, 0}) frame.push_back(static_cast<char>(stream >> shift));
  return frame + body;
}

// Headers of a call of Echo: literals without indexing, so that each block is the same (RFC 7541, 6.2.2).
std::string CallHeaders() {
  const auto text = [](const std::string& value) { return std::string(1, static_cast<char>(value.size())) + value; };
  return std::string("\x83\x86", 2) + "\x04" + text("/shmrpc.conformance.Echo/Echo") + "\x01" + text("localhost") +
         "\x0f\x10" + text("application/grpc") + std::string(1, '\0') + text("te") + text("trailers");
}

std::string Message(const EchoRequest& request) {
  const std::string bytes = request.SerializeAsString();
  std::string message(1, '\0');
  for (const int shift : {24, 16, 8, 0}) message.push_back(static_cast<char>(bytes.size() >> shift));
  return message + bytes;
}

size_t PrivateBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  size_t kibibytes = 0;
  while (status >> word) {
    if (word == "RssAnon:") status >> kibibytes;
  }
  return kibibytes * 1024;
}

class HostileHttp2Test : public testing::Test {
 protected:
  void StartServer(const ConnectionLimits& limits, const GrpcOptions& options = {}) {
    absl::StatusOr<std::unique_ptr<Server>> server = ServerBuilder(TransportsWithGrpc(options))
                                                         .Listen("127.0.0.1:0")
                                                         .Register(&service_)
                                                         .SetConnectionLimits(limits)
                                                         .Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    honest_ = std::make_unique<GrpcEchoCaller>(server_->addresses()[0].ToString());
    ExpectServed();
  }
  void ExpectServed() {
    EchoReply reply;
    const grpc::Status status = honest_->Call(EchoRequest(), &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }

  framed::UniqueFd Connect() {
    absl::StatusOr<framed::UniqueFd> socket =
        tcp::ConnectSocket(server_->addresses()[0], SteadyTime::InfiniteFuture(), -1);
    EXPECT_TRUE(socket.ok()) << socket.status();
    const int small = 4096;  // what waits in the kernel is not the server's
    EXPECT_EQ(setsockopt(socket->get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    EXPECT_EQ(fcntl(socket->get(), F_SETFL, O_NONBLOCK), 0);
    return *std::move(socket);
  }

  static bool HasEnded(int socket) {
    pollfd hang_up = {socket, POLLRDHUP, 0};
    return poll(&hang_up, 1, 0) > 0 && (hang_up.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
  }

  // Sends the preface and then, piece after piece, what `next` says, until that is empty or the server takes no more.
  // Reads nothing, unless `reads`. Says what it cost.
  void Attack(const std::string& name, const std::string& settings, const std::function<std::string()>& next,
              size_t most, bool reads = false) {
    const size_t before = PrivateBytes();
    size_t peak = before;
    size_t sent_bytes = 0;
    bool ended = false;
    {
      const framed::UniqueFd socket = Connect();
      std::string unsent = kPreface + Frame(kSettings, 0, 0, settings);
      for (int quiet = 0; quiet < 20 && !ended;) {
        if (unsent.empty()) unsent = next();
        const ssize_t sent = unsent.empty() ? 0 : send(socket.get(), unsent.data(), unsent.size(), MSG_NOSIGNAL);
        if (sent > 0) {
          sent_bytes += static_cast<size_t>(sent);
          unsent.erase(0, static_cast<size_t>(sent));
          quiet = 0;
        } else {
          ++quiet;
          ExpectServed();
          absl::SleepFor(absl::Milliseconds(10));
        }
        char ignored[4096];
        while (reads && recv(socket.get(), ignored, sizeof ignored, 0) > 0) {
        }
        peak = std::max(peak, PrivateBytes());
        ended = HasEnded(socket.get());
      }
    }
    ExpectServed();
    std::cout << name << ": " << sent_bytes / 1024 << " KiB sent, " << (peak - before) / 1024 << " KiB taken"
              << (ended ? ", ended by the server" : "") << std::endl;
    RecordProperty(absl::StrCat(name, "_kib"), static_cast<int>((peak - before) / 1024));
    if (SHMRPC_ASAN || SHMRPC_TSAN) return;  // they take memory as they like
    EXPECT_LE(peak - before, most) << name;
    EXPECT_TRUE(Eventually([&] { return PrivateBytes() <= before + 24 * kMiB; })) << name << ": memory stays";
  }

  // Pieces of about 16 KiB, made of `count` of what `make` says.
  static std::function<std::string()> Repeat(int count, const std::function<std::string(int)>& make) {
    return [count, make, i = 0]() mutable {
      std::string bytes;
      while (i < count && bytes.size() < 16 * 1024) bytes += make(i++);
      return bytes;
    };
  }

  conformance::EchoService service_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<GrpcEchoCaller> honest_;
};

uint32_t StreamOf(int i) { return 2 * static_cast<uint32_t>(i) + 1; }

TEST_F(HostileHttp2Test, RepliesWithAWindowOfZero) {
  StartServer({.max_memory_bytes = 128 * kMiB});
  EchoRequest request;
  request.set_reply_bytes(200'000);
  const std::string headers = CallHeaders();
  const std::string message = Message(request);
  const std::string no_window("\0\4\0\0\0\0", 6);
  Attack("window of zero", no_window,
         Repeat(kLong ? 20'000 : 4'000,
                [&](int i) {
                  return Frame(kHeaders, kEndHeaders, StreamOf(i), headers) +
                         Frame(kData, kEndStream, StreamOf(i), message);
                }),
         320 * kMiB);
}

TEST_F(HostileHttp2Test, HeadersWithoutAnEnd) {
  StartServer({});
  std::string header;  // one of 16 KiB that is looked at and never indexed
  header = std::string(1, '\0') + "\x01x" + "\x7f\x80\x7e" + std::string(16'255, 'v');
  Attack(
      "CONTINUATION", "",
      Repeat(kLong ? 6'400 : 640,
             [&](int i) { return i == 0 ? Frame(kHeaders, 0, 1, CallHeaders()) : Frame(kContinuation, 0, 1, header); }),
      (kLong ? 256 : 64) * kMiB);
}

TEST_F(HostileHttp2Test, StreamsWithoutAMessage) {
  StartServer({});
  const std::string headers = CallHeaders();
  Attack("streams without a message", "",
         Repeat(kLong ? 100'000 : 20'000, [&](int i) { return Frame(kHeaders, kEndHeaders, StreamOf(i), headers); }),
         128 * kMiB);
}

TEST_F(HostileHttp2Test, Pings) {
  StartServer({});
  Attack("PING", "", Repeat(kLong ? 5'000'000 : 500'000, [](int) { return Frame(kPing, 0, 0, std::string(8, 'p')); }),
         32 * kMiB);
}

TEST_F(HostileHttp2Test, Settings) {
  StartServer({});
  Attack("SETTINGS", "", Repeat(kLong ? 5'000'000 : 500'000, [](int) { return Frame(kSettings, 0, 0, ""); }),
         (kLong ? 256 : 64) * kMiB);
}

TEST_F(HostileHttp2Test, APrefaceAndSilenceEndAfterTheHandshakesTime) {
  StartServer({.handshake_timeout = absl::Milliseconds(500)});
  const framed::UniqueFd socket = Connect();
  ASSERT_EQ(send(socket.get(), kPreface, sizeof kPreface - 1, MSG_NOSIGNAL), static_cast<ssize_t>(sizeof kPreface - 1));
  EXPECT_TRUE(Eventually([&] { return HasEnded(socket.get()); }));
}

TEST_F(HostileHttp2Test, AnIdleConnectionIsClosed) {
  StartServer({.max_connection_idle = absl::Milliseconds(500)});
  const framed::UniqueFd socket = Connect();
  const std::string begin = kPreface + Frame(kSettings, 0, 0, "");
  ASSERT_EQ(send(socket.get(), begin.data(), begin.size(), MSG_NOSIGNAL), static_cast<ssize_t>(begin.size()));
  EXPECT_TRUE(Eventually([&] {
    char ignored[4096];
    while (recv(socket.get(), ignored, sizeof ignored, 0) > 0) {
    }
    return HasEnded(socket.get());
  }));
  ExpectServed();
}

TEST_F(HostileHttp2Test, CompressedMessagesAreRefusedUnlessTheyAreAllowed) {
  StartServer({});
  EchoRequest bomb;
  bomb.set_payload(std::string(8 * kMiB, '\0'));
  EchoReply reply;
  grpc::Status status = honest_->Call(bomb, &reply, GRPC_COMPRESS_GZIP);
  EXPECT_EQ(status.error_code(), grpc::UNIMPLEMENTED) << status.error_message();
  EXPECT_EQ(service_.started().value(), 1);
  // Where they are allowed it is what comes that is limited.
  GrpcOptions options;
  options.server.max_compressed_message_bytes = 4096;
  StartServer({}, options);
  status = honest_->Call(bomb, &reply, GRPC_COMPRESS_GZIP);
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED) << status.error_message();
  bomb.set_payload(std::string(100'000, '\0'));
  status = honest_->Call(bomb, &reply, GRPC_COMPRESS_GZIP);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(HostileHttp2Test, CallsThatWaitForTheirRequestsCount) {
  absl::StatusOr<std::unique_ptr<Server>> server =
      ServerBuilder(TransportsWithGrpc()).Listen("127.0.0.1:0").Register(&service_).SetMaxConcurrentCalls(10).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  honest_ = std::make_unique<GrpcEchoCaller>(server_->addresses()[0].ToString());
  ExpectServed();
  framed::UniqueFd socket = Connect();
  std::string begin = kPreface + Frame(kSettings, 0, 0, "");
  for (int i = 0; i < 10; ++i) begin += Frame(kHeaders, kEndHeaders, StreamOf(i), CallHeaders());
  ASSERT_EQ(send(socket.get(), begin.data(), begin.size(), MSG_NOSIGNAL), static_cast<ssize_t>(begin.size()));
  grpc::Status status;
  EXPECT_TRUE(Eventually([&] {
    EchoReply reply;
    status = honest_->Call(EchoRequest(), &reply);
    return !status.ok();
  }));
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("the option max_concurrent_calls"));
  socket.Reset();
  EXPECT_TRUE(Eventually([&] {
    EchoReply reply;
    return honest_->Call(EchoRequest(), &reply).ok();
  }));
}

}  // namespace
}  // namespace shmrpc
