// floor-unix and floor-tcp: the payload there and back over a blocking stream socket, without a codec.

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/bench/floor.h"
#include "tests/bench/peer.h"
#include "tests/bench/process.h"

namespace shmrpc::bench {
namespace {

// Until the client closes the connection.
absl::Status ServeSocket(const PeerSetup& setup, int socket) {
  std::vector<char> payload(setup.payload_bytes);
  const absl::Status status = ServeFloor(
      setup, [&] { return ReceiveAll(socket, payload.data(), payload.size()); },
      [&] { return absl::string_view(payload.data(), payload.size()); },
      [&] { return SendAll(socket, payload.data(), payload.size()); });
  return absl::IsUnavailable(status) ? absl::OkStatus() : status;
}

absl::Status SendWithoutDelay(int socket) {
  const int on = 1;
  if (setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0) {
    return absl::ErrnoToStatus(errno, "cannot set TCP_NODELAY");
  }
  return absl::OkStatus();
}

class SocketClient : public FloorClient {
 public:
  explicit SocketClient(const PeerSetup& setup)
      : socket_(setup.socket), request_(setup.payload_bytes), reply_(setup.payload_bytes) {}

  absl::Status Connect(const std::string& address) override { return absl::OkStatus(); }
  absl::Span<char> request(int slot) override { return absl::MakeSpan(request_); }
  absl::string_view reply(int slot) const override { return absl::string_view(reply_.data(), reply_.size()); }

  absl::Status Call(int slot) override {
    const absl::Status status = Send();
    return status.ok() ? Receive() : status;
  }

 protected:
  absl::Status Send() final { return SendAll(socket_, request_.data(), request_.size()); }
  absl::Status Receive() final { return ReceiveAll(socket_, reply_.data(), reply_.size()); }

  int socket_;

 private:
  std::vector<char> request_;
  std::vector<char> reply_;
};

// The pair of Unix sockets that every peer is given is what is measured.
class UnixServer final : public ServerSide {
 public:
  explicit UnixServer(const PeerSetup& setup) : setup_(setup) {}
  absl::StatusOr<std::string> Start() override { return std::string(); }
  absl::Status Serve() override { return ServeSocket(setup_, setup_.socket); }

 private:
  const PeerSetup setup_;
};

class TcpServer final : public ServerSide {
 public:
  explicit TcpServer(const PeerSetup& setup) : setup_(setup) {}

  // The address is the port.
  absl::StatusOr<std::string> Start() override {
    listener_ = Descriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (listener_.get() < 0 || bind(listener_.get(), generic, length) < 0 || listen(listener_.get(), 1) < 0 ||
        getsockname(listener_.get(), generic, &length) < 0) {
      return absl::ErrnoToStatus(errno, "cannot listen on the loopback interface");
    }
    return absl::StrCat(ntohs(address.sin_port));
  }

  absl::Status Serve() override {
    const Descriptor connection(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (connection.get() < 0) return absl::ErrnoToStatus(errno, "cannot accept a connection");
    const absl::Status status = SendWithoutDelay(connection.get());
    return status.ok() ? ServeSocket(setup_, connection.get()) : status;
  }

 private:
  const PeerSetup setup_;
  Descriptor listener_;
};

class TcpClient final : public SocketClient {
 public:
  using SocketClient::SocketClient;

  absl::Status Connect(const std::string& address) override {
    int port = 0;
    if (!absl::SimpleAtoi(address, &port)) return absl::InternalError(absl::StrCat("no port: \"", address, "\""));
    connection_ = Descriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in server{};
    server.sin_family = AF_INET;
    server.sin_port = htons(static_cast<uint16_t>(port));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connection_.get() < 0 ||
        connect(connection_.get(), reinterpret_cast<const sockaddr*>(&server), sizeof(server)) < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot connect to 127.0.0.1:", port));
    }
    socket_ = connection_.get();
    return SendWithoutDelay(socket_);
  }

 private:
  Descriptor connection_;
};

}  // namespace

std::vector<PeerInfo> SocketFloorPeers() {
  std::vector<PeerInfo> peers = {DescribePeer<UnixServer, SocketClient>("floor-unix"),
                                 DescribePeer<TcpServer, TcpClient>("floor-tcp")};
  for (PeerInfo& peer : peers) peer.abilities = kFloorAbilities;
  return peers;
}

}  // namespace shmrpc::bench
