// Strangers at the port: bytes that are no shmrpc client's, and clients that fall silent. They are sent away, and the
// server's real clients do not notice.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gtest/gtest.h"
#include "loopback.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"

namespace shmrpc::conformance {
namespace {

// A plain TCP connection to a port of this host, or one that such a port accepted.
class RawSocket {
 public:
  explicit RawSocket(uint16_t port) : descriptor_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in address = fault::Loopback(port);
    EXPECT_EQ(connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  static std::unique_ptr<RawSocket> Accepted(int descriptor) {
    return std::unique_ptr<RawSocket>(new RawSocket(descriptor, 0));
  }
  ~RawSocket() { close(descriptor_); }
  RawSocket(const RawSocket&) = delete;
  RawSocket& operator=(const RawSocket&) = delete;

  // The other side may close meanwhile.
  void Send(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(sent);
    }
  }

  // What comes until there is nothing for `quiet`, or until the end.
  std::string Receive(absl::Duration quiet) {
    std::string received;
    for (;;) {
      pollfd readable = {descriptor_, POLLIN, 0};
      if (poll(&readable, 1, static_cast<int>(absl::ToInt64Milliseconds(quiet))) <= 0) return received;
      char buffer[4096];
      const ssize_t size = recv(descriptor_, buffer, sizeof(buffer), 0);
      if (size <= 0) return received;
      received.append(buffer, size);
    }
  }

  // True when the other side ends the connection in time.
  bool WaitForEnd() {
    const absl::Time deadline = absl::Now() + kHangGuard;
    while (absl::Now() < deadline) {
      pollfd readable = {descriptor_, POLLIN, 0};
      if (poll(&readable, 1, 100) <= 0) continue;
      char buffer[4096];
      if (recv(descriptor_, buffer, sizeof(buffer), 0) <= 0) return true;
    }
    return false;
  }

 private:
  RawSocket(int descriptor, int) : descriptor_(descriptor) {}

  const int descriptor_;
};

// The first thing that a shmrpc client says, whatever that is: recorded from a real one.
std::string RecordHello() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = fault::Loopback(0);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(listen(listener, 1), 0);
  EXPECT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const auto channel = Channel::Create("127.0.0.1:" + std::to_string(ntohs(address.sin_port)));
  std::thread client([&] { EXPECT_FALSE(channel->WaitForConnected(absl::Now() + kHangGuard).ok()); });
  std::string hello;
  {
    const int accepted = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    EXPECT_GE(accepted, 0);
    hello = RawSocket::Accepted(accepted)->Receive(absl::Milliseconds(500));
  }
  close(listener);
  client.join();
  EXPECT_GT(hello.size(), 4u);
  return hello;
}

// A server, and a client that calls it without pause as long as the test lasts; none of its calls may fail.
class StrangerTest : public testing::Test {
 protected:
  StrangerTest() {
    absl::StatusOr<std::unique_ptr<Server>> server = ServerBuilder().Listen("127.0.0.1:0").Register(&service_).Start();
    if (!server.ok()) {
      ADD_FAILURE() << server.status();
      return;
    }
    server_ = *std::move(server);
    for (const TransportPreference preference : {TransportPreference::kShm, TransportPreference::kTcp}) {
      callers_.emplace_back([this, preference] { CallWithoutPause(preference); });
    }
    EXPECT_TRUE(calls_.WaitFor(10));
  }

  ~StrangerTest() override {
    EXPECT_TRUE(calls_.WaitFor(calls_.value() + 100));  // it still works
    stop_ = true;
    for (std::thread& caller : callers_) caller.join();
  }

  uint16_t port() const { return server_->addresses().front().port; }

  void ExpectSentAway(absl::string_view bytes) {
    RawSocket stranger(port());
    stranger.Send(bytes);
    EXPECT_TRUE(stranger.WaitForEnd());
  }

 private:
  void CallWithoutPause(TransportPreference preference) {
    ChannelOptions options;
    options.transport = preference;
    Echo::Stub stub(Channel::Create(server_->addresses().front().ToString(), options));
    EchoRequest request;
    request.set_payload("a real client");
    while (!stop_) {
      const absl::StatusOr<EchoReply> reply = stub.Echo(request);
      if (!reply.ok() || reply->payload() != request.payload()) {
        ADD_FAILURE() << "a real client's call failed: " << reply.status();
        return;
      }
      calls_.Increment();
    }
  }

  EchoService service_;
  std::unique_ptr<Server> server_;
  std::vector<std::thread> callers_;
  std::atomic<bool> stop_{false};
  Counter calls_;
};

TEST_F(StrangerTest, BytesOfNoProtocol) {
  ExpectSentAway(std::string(64, '\0'));
  ExpectSentAway(std::string(64, '\xff'));
  ExpectSentAway("\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n");
  std::string pattern;
  for (int i = 0; i < 1 << 20; ++i) pattern.push_back(static_cast<char>(i * 131 + (i >> 8)));
  ExpectSentAway(pattern);
}

TEST_F(StrangerTest, HttpRequest) {
  ExpectSentAway("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: stranger\r\nAccept: */*\r\n\r\n");
}

TEST_F(StrangerTest, TlsClientHello) {
  // A handshake record (22) of TLS 1.0 (3.1) with a ClientHello (1) of 252 bytes.
  std::string hello("\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03", 11);
  for (int i = 0; i < 250; ++i) hello.push_back(static_cast<char>(i * 37));
  ExpectSentAway(hello);
}

TEST_F(StrangerTest, HelloWithWrongBytes) {
  const std::string hello = RecordHello();
  for (size_t i = 0; i < 4 && i < hello.size(); ++i) {
    std::string wrong = hello;
    wrong[i] = static_cast<char>(wrong[i] ^ 0x55);
    ExpectSentAway(wrong);
  }
}

TEST_F(StrangerTest, EveryPrefixOfAHelloThenClose) {
  const std::string hello = RecordHello();
  for (size_t size = 0; size <= hello.size(); ++size) {
    RawSocket stranger(port());
    stranger.Send(absl::string_view(hello).substr(0, size));
  }
}

TEST_F(StrangerTest, HalfAHelloThenSilence) {
  const std::string hello = RecordHello();
  std::vector<std::unique_ptr<RawSocket>> strangers;
  for (size_t size = 0; size < hello.size(); size += 1 + hello.size() / 20) {
    strangers.push_back(std::make_unique<RawSocket>(port()));
    strangers.back()->Send(absl::string_view(hello).substr(0, size));
  }
  for (const auto& stranger : strangers) EXPECT_TRUE(stranger->WaitForEnd());
}

TEST_F(StrangerTest, AHelloOneByteAtATimeIsAnswered) {
  const std::string hello = RecordHello();
  RawSocket slow(port());
  for (const char byte : hello) {
    slow.Send(absl::string_view(&byte, 1));
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_NE(slow.Receive(absl::Seconds(1)), "");
}

TEST_F(StrangerTest, NothingAfterAHelloKeepsTheConnection) {
  const std::string hello = RecordHello();
  std::vector<std::unique_ptr<RawSocket>> strangers;
  for (int i = 0; i < 10; ++i) {
    strangers.push_back(std::make_unique<RawSocket>(port()));
    strangers.back()->Send(hello);
  }
  for (const auto& stranger : strangers) EXPECT_NE(stranger->Receive(absl::Milliseconds(200)), "");
}

TEST_F(StrangerTest, GarbageAfterAHello) {
  const std::string hello = RecordHello();
  for (const char byte : {'\0', '\x01', '\x7f', '\xff'}) ExpectSentAway(hello + std::string(4096, byte));
}

}  // namespace
}  // namespace shmrpc::conformance
