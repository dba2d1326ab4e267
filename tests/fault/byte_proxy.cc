#include "byte_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "loopback.h"

namespace shmrpc::conformance {
namespace {

sockaddr_un UnixAddress(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  EXPECT_LT(path.size(), sizeof(address.sun_path)) << path;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  return address;
}

// A write that does not block fails until there is room; only one that has to be repeated is not an error.
bool HasToWait() { return errno == EAGAIN || errno == EINTR; }

}  // namespace

// One connection. Used by one thread.
class ByteProxy::Relay {
 public:
  Relay(int client, int server, int stop, const Rules& rules)
      : stop_(stop),
        rules_(rules),
        up_{client, server, rules.client_bytes},
        down_{server, client, rules.server_bytes} {}
  ~Relay() {
    close(up_.from);
    close(up_.to);
  }
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // Until the connection is over.
  void Run() {
    while (!up_.over || !down_.over) {
      if (up_.LimitReached() || down_.LimitReached()) return Break();
      pollfd polled[] = {{up_.from, Wanted(up_, down_), 0}, {up_.to, Wanted(down_, up_), 0}, {stop_, POLLIN, 0}};
      for (pollfd& each : polled) {
        if (each.events == 0) each.fd = -1;  // would be reported again and again once it is hung up
      }
      if (poll(polled, 3, -1) < 0 && errno != EINTR) return;
      if (polled[2].revents != 0) return;
      if (!Move(&up_) || !Move(&down_)) return;
    }
  }

  uint64_t client_bytes() const { return up_.passed; }
  uint64_t server_bytes() const { return down_.passed; }

 private:
  struct Direction {
    int from;
    int to;
    size_t limit;
    size_t passed = 0;
    std::string waiting = {};  // was received, and is not sent yet
    bool ended = false;        // `from` has half-closed
    bool over = false;         // and `to` has been told

    bool LimitReached() const { return passed >= limit; }
  };

  // What to wait for at the socket that `in` comes from and `out` goes to.
  static int16_t Wanted(const Direction& in, const Direction& out) {
    return static_cast<int16_t>((in.ended || !in.waiting.empty() ? 0 : POLLIN) | (out.waiting.empty() ? 0 : POLLOUT));
  }

  // Passes on what there is. False when the connection is broken.
  bool Move(Direction* direction) {
    if (direction->waiting.empty() && !direction->ended) {
      char buffer[64 * 1024];
      const ssize_t size =
          recv(direction->from, buffer, std::min(sizeof(buffer), direction->limit - direction->passed), MSG_DONTWAIT);
      if (size < 0 && !HasToWait()) return false;
      if (size == 0) direction->ended = true;
      if (size > 0) direction->waiting.assign(buffer, size);
    }
    while (!direction->waiting.empty()) {
      const ssize_t size = send(direction->to, direction->waiting.data(),
                                std::min(direction->waiting.size(), rules_.segment_bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (size < 0) return HasToWait();
      direction->passed += size;
      direction->waiting.erase(0, size);
    }
    if (direction->ended && !direction->over) {
      direction->over = true;
      shutdown(direction->to, SHUT_WR);
    }
    return true;
  }

  void Break() {
    if (rules_.end == End::kReset) {
      const linger at_once = {1, 0};
      for (const int socket : {up_.from, up_.to}) setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
      return;
    }
    // To close with something unread would reset the connection, and could destroy what is on its way. So both get the
    // end, and what they still say is read until they have closed as well.
    for (const int socket : {up_.from, up_.to}) shutdown(socket, SHUT_WR);
    for (const int socket : {up_.from, up_.to}) {
      for (;;) {
        pollfd polled[] = {{socket, POLLIN, 0}, {stop_, POLLIN, 0}};
        if (poll(polled, 2, -1) < 0 && errno != EINTR) return;
        if (polled[1].revents != 0) return;
        char ignored[64 * 1024];
        const ssize_t size = recv(socket, ignored, sizeof(ignored), MSG_DONTWAIT);
        if (size == 0 || (size < 0 && !HasToWait())) break;
      }
    }
  }

  const int stop_;
  const Rules rules_;
  Direction up_;    // from the client
  Direction down_;  // from the server
};

ByteProxy::ByteProxy(absl::string_view server_address, std::function<Rules()> rules) : rules_(std::move(rules)) {
  stop_ = eventfd(0, EFD_CLOEXEC);
  constexpr absl::string_view kUnix = "unix:";
  const size_t scheme = server_address.find(kUnix);
  if (scheme != absl::string_view::npos) {
    server_path_ = std::string(server_address.substr(scheme + kUnix.size()));
    own_path_ = server_path_ + ".proxy";
    address_ = absl::StrCat(server_address, ".proxy");
    const sockaddr_un address = UnixAddress(own_path_);
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0) << strerror(errno);
  } else {
    const size_t colon = server_address.rfind(':');
    uint32_t port = 0;
    if (colon == absl::string_view::npos || !absl::SimpleAtoi(server_address.substr(colon + 1), &port)) {
      ADD_FAILURE() << "no port in " << server_address;
    }
    server_port_ = static_cast<uint16_t>(port);
    sockaddr_in address = fault::Loopback(0);
    socklen_t size = sizeof(address);
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), size), 0) << strerror(errno);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0) << strerror(errno);
    address_ = absl::StrCat(server_address.substr(0, colon + 1), ntohs(address.sin_port));
  }
  EXPECT_EQ(listen(listener_, SOMAXCONN), 0) << strerror(errno);
  acceptor_ = std::thread([this] { Accept(); });
}

ByteProxy::~ByteProxy() {
  eventfd_write(stop_, 1);
  acceptor_.join();
  std::list<std::thread> threads;
  {
    MutexLock lock(&mutex_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  close(listener_);
  close(stop_);
  if (!own_path_.empty()) unlink(own_path_.c_str());
}

uint64_t ByteProxy::client_bytes() const {
  MutexLock lock(&mutex_);
  return client_bytes_;
}

uint64_t ByteProxy::server_bytes() const {
  MutexLock lock(&mutex_);
  return server_bytes_;
}

int ByteProxy::taken() const {
  MutexLock lock(&mutex_);
  return taken_;
}

int ByteProxy::open() const {
  MutexLock lock(&mutex_);
  return open_;
}

void ByteProxy::Accept() {
  for (;;) {
    pollfd polled[] = {{listener_, POLLIN, 0}, {stop_, POLLIN, 0}};
    if (poll(polled, 2, -1) < 0 && errno != EINTR) return;
    if (polled[1].revents != 0) return;
    if (polled[0].revents == 0) continue;
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    MutexLock lock(&mutex_);
    ++taken_;
    ++open_;
    threads_.emplace_back([this, client] { Run(client); });
  }
}

int ByteProxy::Connect() const {
  const int server = socket(server_path_.empty() ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int result;
  if (server_path_.empty()) {
    const sockaddr_in address = fault::Loopback(server_port_);
    result = connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  } else {
    const sockaddr_un address = UnixAddress(server_path_);
    result = connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  if (result == 0) return server;
  close(server);
  return -1;
}

void ByteProxy::Run(int client) {
  const int server = Connect();
  if (server < 0) {
    close(client);
    MutexLock lock(&mutex_);
    --open_;
    return;
  }
  if (server_path_.empty()) {
    const int on = 1;
    for (const int socket : {client, server}) setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  uint64_t client_bytes, server_bytes;
  {
    Relay relay(client, server, stop_, rules_());
    relay.Run();
    client_bytes = relay.client_bytes();
    server_bytes = relay.server_bytes();
  }
  MutexLock lock(&mutex_);
  client_bytes_ += client_bytes;
  server_bytes_ += server_bytes;
  --open_;
}

}  // namespace shmrpc::conformance
