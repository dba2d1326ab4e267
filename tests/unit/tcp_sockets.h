#ifndef SHMRPC_TESTS_UNIT_TCP_SOCKETS_H_
#define SHMRPC_TESTS_UNIT_TCP_SOCKETS_H_

// What the tests of listening and connecting share.

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/target.h"
#include "transports/framed/unique_fd.h"
#include "transports/tcp/connect_socket.h"
#include "transports/tcp/listening_socket.h"
#include "transports/tcp/socket_address.h"

namespace shmrpc::tcp {

inline constexpr absl::Duration kHangGuard = absl::Seconds(30);

inline Target T(std::string_view text) {
  absl::StatusOr<Target> target = Target::Parse(text);
  EXPECT_TRUE(target.ok()) << target.status();
  return *target;
}

inline absl::StatusOr<ListeningSocket> Listen(std::string_view text, mode_t mode = 0600) {
  absl::StatusOr<std::vector<ListeningSocket>> sockets = ListenSockets(T(text), mode);
  if (!sockets.ok()) return sockets.status();
  return std::move(sockets->front());
}

inline absl::StatusOr<framed::UniqueFd> Connect(std::string_view text, absl::Duration timeout = kHangGuard) {
  return ConnectSocket(T(text), SteadyTime::Now() + timeout);
}

inline std::string Message(const absl::Status& status) { return std::string(status.message()); }

// Waits for the connection that a client has begun.
inline framed::UniqueFd Accept(const ListeningSocket& listening) {
  pollfd readable = {listening.fd(), POLLIN, 0};
  EXPECT_EQ(poll(&readable, 1, 30'000), 1);
  absl::StatusOr<std::optional<framed::UniqueFd>> accepted = AcceptSocket(listening.fd());
  EXPECT_TRUE(accepted.ok()) << accepted.status();
  if (!accepted.ok() || !accepted->has_value()) return framed::UniqueFd();
  return std::move(**accepted);
}

inline bool Exists(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

inline ino_t Inode(const std::string& path) {
  struct stat status = {};
  EXPECT_EQ(lstat(path.c_str(), &status), 0) << path;
  return status.st_ino;
}

// The socket file that a process leaves behind which was killed.
inline void MakeStaleFile(const std::string& path, int type = SOCK_STREAM) {
  const framed::UniqueFd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  const SocketAddress address = *SocketAddress::FromUnixPath(path);
  ASSERT_EQ(bind(socket.get(), address.data(), address.length()), 0) << strerror(errno);
}

inline bool HasIpv6() {
  const framed::UniqueFd socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const SocketAddress address = *SocketAddress::FromLiteral("::1", 0);
  return socket.valid() && bind(socket.get(), address.data(), address.length()) == 0;
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "shmrpc-test-XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }

  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }
  bool empty() const { return std::filesystem::is_empty(path_); }

 private:
  std::string path_;
};

inline void ExpectReadyForUse(int fd, bool tcp) {
  EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  int no_delay = 0;
  socklen_t length = sizeof(no_delay);
  if (tcp) {
    EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &length), 0);
    EXPECT_EQ(no_delay, 1);
  }
}

inline void ExpectConnects(const ListeningSocket& listening, std::string_view address, bool tcp) {
  const absl::StatusOr<framed::UniqueFd> client = Connect(address);
  ASSERT_TRUE(client.ok()) << client.status();
  const framed::UniqueFd server = Accept(listening);
  ASSERT_TRUE(server.valid());
  ExpectReadyForUse(client->get(), tcp);
  ExpectReadyForUse(server.get(), tcp);
  EXPECT_EQ(PeerAddress(server.get()), LocalAddress(client->get()));
  ASSERT_EQ(send(client->get(), "x", 1, MSG_NOSIGNAL), 1);
  pollfd readable = {server.get(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 30'000), 1);
  char byte = 0;
  EXPECT_EQ(recv(server.get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'x');
}

// A server that does not accept, with a queue that is full: whoever connects now has to wait.
class FullServer {
 public:
  explicit FullServer(const SocketAddress& address)
      : socket_(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    EXPECT_EQ(bind(socket_.get(), address.data(), address.length()), 0);
    EXPECT_EQ(listen(socket_.get(), 0), 0);
    address_ = LocalAddress(socket_.get());
    const SocketAddress bound = Resolve(T(address_))->front();
    // The kernel's queue has one place more than listen() says, and TCP drops what does not fit.
    for (int i = 0; i < 4; ++i) {
      clients_.emplace_back(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      connect(clients_.back().get(), bound.data(), bound.length());
    }
  }

  const std::string& address() const { return address_; }
  int fd() const { return socket_.get(); }

 private:
  framed::UniqueFd socket_;
  std::string address_;
  std::vector<framed::UniqueFd> clients_;
};

}  // namespace shmrpc::tcp

#endif  // SHMRPC_TESTS_UNIT_TCP_SOCKETS_H_
