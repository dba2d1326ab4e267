// What system calls a small message over a TCP connection is best sent and received with: ping-pong of 80 bytes, a
// frame with 64 bytes of payload, between two threads on two CPUs. docs/performance.md says what came out.

#include <arpa/inet.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "benchmark/benchmark.h"
#include "runtime/src/spin_pause.h"
#include "tests/bench/process.h"

namespace shmrpc::bench {
namespace {

constexpr size_t kMessageBytes = 80;
using Message = std::array<char, kMessageBytes>;

void PinTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

// Two connected TCP sockets; both invalid when there are none to be had.
struct Connection {
  Descriptor ends[2];

  Connection() {
    const Descriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (bind(listener.get(), generic, length) < 0 || listen(listener.get(), 1) < 0 ||
        getsockname(listener.get(), generic, &length) < 0) {
      return;
    }
    Descriptor client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(client.get(), generic, length) < 0) return;
    ends[0] = std::move(client);
    ends[1] = Descriptor(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const int on = 1;
    for (const Descriptor& end : ends) setsockopt(end.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
};

// Each of these is one end: Send and Receive say false when that fails or the connection is over.
class BlockingCalls {
 public:
  explicit BlockingCalls(int socket) : socket_(socket) {}
  bool Start() { return true; }
  bool Send(const Message& message) { return send(socket_, message.data(), message.size(), MSG_NOSIGNAL) > 0; }
  bool Receive(Message* message) { return recv(socket_, message->data(), message->size(), MSG_WAITALL) > 0; }

 private:
  const int socket_;
};

class SpinningCalls {
 public:
  explicit SpinningCalls(int socket) : socket_(socket) {}
  bool Start() { return true; }
  bool Send(const Message& message) { return send(socket_, message.data(), message.size(), MSG_NOSIGNAL) > 0; }
  bool Receive(Message* message) {
    for (;;) {
      const ssize_t received = recv(socket_, message->data(), message->size(), MSG_DONTWAIT);
      if (received >= 0) return received > 0;
      if (errno != EAGAIN) return false;
      internal::SpinPause();
    }
  }

 private:
  const int socket_;
};

// One io_uring_enter sends a message and asks for the next; then the completion is waited for, asleep in the same call,
// or looked for in the ring that the kernel shares.
class Uring {
 public:
  Uring(int socket, bool spins) : socket_(socket), spins_(spins) {}
  ~Uring() {
    if (started_) io_uring_queue_exit(&ring_);
  }

  bool Start() {
    const int result = io_uring_queue_init(8, &ring_, 0);
    errno = -result;
    started_ = result == 0;
    return started_;
  }

  bool Send(const Message& message) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_send(sqe, socket_, message.data(), message.size(), MSG_NOSIGNAL);
    io_uring_sqe_set_data64(sqe, kSending);
    return true;  // with the receive that follows
  }

  bool Receive(Message* message) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_recv(sqe, socket_, message->data(), message->size(), MSG_WAITALL);
    io_uring_sqe_set_data64(sqe, kReceiving);
    if (spins_ && io_uring_submit(&ring_) < 0) return false;
    for (;;) {
      io_uring_cqe* cqe = nullptr;
      if (spins_) {
        while (io_uring_peek_cqe(&ring_, &cqe) == -EAGAIN) internal::SpinPause();
      } else if (io_uring_submit_and_wait(&ring_, 1) < 0 || io_uring_peek_cqe(&ring_, &cqe) < 0) {
        return false;
      }
      const bool received = cqe->user_data == kReceiving;
      const int result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      if (result <= 0) return false;
      if (received) return true;
    }
  }

 private:
  static constexpr uint64_t kSending = 1;
  static constexpr uint64_t kReceiving = 2;

  const int socket_;
  const bool spins_;
  bool started_ = false;
  io_uring ring_;
};

class BlockingUring : public Uring {
 public:
  explicit BlockingUring(int socket) : Uring(socket, /*spins=*/false) {}
};
class SpinningUring : public Uring {
 public:
  explicit SpinningUring(int socket) : Uring(socket, /*spins=*/true) {}
};

template <typename End>
void BM_PingPong(benchmark::State& state) {
  Connection connection;
  End near(connection.ends[0].get());
  End far(connection.ends[1].get());
  if (connection.ends[1].get() < 0 || !near.Start() || !far.Start()) {
    state.SkipWithError(std::strerror(errno));
    return;
  }
  std::thread server([&] {
    PinTo(1);
    Message message;
    while (far.Receive(&message) && far.Send(message)) {
    }
  });
  cpu_set_t before;
  (void)pthread_getaffinity_np(pthread_self(), sizeof before, &before);
  PinTo(0);
  Message request{};
  Message reply{};
  uint64_t number = 0;
  for (auto _ : state) {
    ++number;
    std::memcpy(request.data(), &number, sizeof number);
    if (!near.Send(request) || !near.Receive(&reply) || reply != request) {
      state.SkipWithError("the message did not come back");
      break;
    }
  }
  shutdown(connection.ends[0].get(), SHUT_RDWR);
  server.join();
  (void)pthread_setaffinity_np(pthread_self(), sizeof before, &before);
}
BENCHMARK_TEMPLATE(BM_PingPong, BlockingCalls)->UseRealTime();
BENCHMARK_TEMPLATE(BM_PingPong, BlockingUring)->UseRealTime();
BENCHMARK_TEMPLATE(BM_PingPong, SpinningCalls)->UseRealTime();
BENCHMARK_TEMPLATE(BM_PingPong, SpinningUring)->UseRealTime();

}  // namespace
}  // namespace shmrpc::bench

BENCHMARK_MAIN();
