#include "tests/bench/client_process.h"

#include <errno.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shmrpc::bench {
namespace {

// What goes over the socket, between two processes of one program.
struct Order {
  enum class Kind { kRun, kConnectMore, kCallOnEach };
  Kind kind = Kind::kRun;
  int connections = 0;
  int64_t duration_nanos = 0;
  int64_t begin_nanos = 0;  // on Clock
};

struct AnswerHeader {
  bool ok = false;
  int64_t bytes = 0;  // that follow: a result, or why it is not OK
};

absl::Status SendAnswer(int socket, const absl::StatusOr<std::string>& result) {
  const std::string body = result.ok() ? *result : result.status().ToString();
  const AnswerHeader header{.ok = result.ok(), .bytes = static_cast<int64_t>(body.size())};
  const absl::Status status = SendAll(socket, reinterpret_cast<const char*>(&header), sizeof(header));
  return status.ok() ? SendAll(socket, body.data(), body.size()) : status;
}

std::string Encode(const CaseResult& result) {
  const int64_t elapsed_nanos = absl::ToInt64Nanoseconds(result.elapsed);
  return absl::StrCat(absl::string_view(reinterpret_cast<const char*>(&elapsed_nanos), sizeof(elapsed_nanos)),
                      result.latencies.Encode());
}

absl::StatusOr<CaseResult> Decode(absl::string_view bytes) {
  CaseResult result;
  int64_t elapsed_nanos = 0;
  if (bytes.size() < sizeof(elapsed_nanos) || !result.latencies.Decode(bytes.substr(sizeof(elapsed_nanos)))) {
    return absl::InternalError("a client process has sent a malformed result");
  }
  std::memcpy(&elapsed_nanos, bytes.data(), sizeof(elapsed_nanos));
  result.elapsed = absl::Nanoseconds(elapsed_nanos);
  return result;
}

absl::StatusOr<std::string> Obey(const Order& order, const ClientPlan& plan, ClientSide& client) {
  absl::Status status;
  switch (order.kind) {
    case Order::Kind::kRun: {
      std::this_thread::sleep_until(Clock::time_point(std::chrono::nanoseconds(order.begin_nanos)));
      const absl::StatusOr<CaseResult> result =
          plan.load->run(client, plan.shape, absl::Nanoseconds(order.duration_nanos));
      if (!result.ok()) return result.status();
      return Encode(*result);
    }
    case Order::Kind::kConnectMore:
      status = client.ConnectMore(order.connections);
      break;
    case Order::Kind::kCallOnEach:
      status = client.CallOnEach();
      break;
  }
  if (!status.ok()) return status;
  return std::string();
}

// The client process, until the other end of the socket is closed.
void RunClient(const ClientPlan& plan, int socket) {
  std::string address = plan.address;
  std::unique_ptr<ServerSide> server;  // outlives the client
  absl::Status status;
  if (plan.peer->in_process) {
    server = plan.peer->make_server(plan.setup);
    const absl::StatusOr<std::string> started = server->Start();
    status = started.status();
    if (started.ok()) address = *started;
  }
  const std::unique_ptr<ClientSide> client = plan.peer->make_client(plan.setup);
  if (status.ok()) status = client->Connect(address);
  if (status.ok()) FillRequests(*client, plan.setup.slots);
  absl::StatusOr<std::string> answer = std::string();
  if (!status.ok()) answer = status;
  while (SendAnswer(socket, answer).ok()) {
    Order order;
    if (!ReceiveAll(socket, reinterpret_cast<char*>(&order), sizeof(order)).ok()) return;
    answer = Obey(order, plan, *client);
  }
}

absl::Status Give(const Order& order, int socket) {
  return SendAll(socket, reinterpret_cast<const char*>(&order), sizeof(order));
}

}  // namespace

absl::StatusOr<ClientProcess> ClientProcess::Start(const ClientPlan& plan) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
    return absl::ErrnoToStatus(errno, "cannot make a pair of sockets");
  }
  Descriptor own(ends[0]);
  const Descriptor child_end(ends[1]);
  absl::StatusOr<ChildProcess> child = ChildProcess::Fork([&] {
    own.Close();
    RunClient(plan, child_end.get());
  });
  if (!child.ok()) return child.status();
  return ClientProcess(*std::move(child), std::move(own));
}

absl::Status ClientProcess::OrderRun(absl::Duration duration, Clock::time_point begin) {
  return Give({.kind = Order::Kind::kRun,
               .duration_nanos = absl::ToInt64Nanoseconds(duration),
               .begin_nanos = NanosBetween(Clock::time_point(), begin)},
              socket_.get());
}

absl::Status ClientProcess::OrderConnectMore(int connections) {
  return Give({.kind = Order::Kind::kConnectMore, .connections = connections}, socket_.get());
}

absl::Status ClientProcess::OrderCallOnEach() { return Give({.kind = Order::Kind::kCallOnEach}, socket_.get()); }

absl::StatusOr<std::string> ClientProcess::AwaitAnswer() {
  AnswerHeader header;
  absl::Status status = ReceiveAll(socket_.get(), reinterpret_cast<char*>(&header), sizeof(header));
  std::string body(status.ok() ? header.bytes : 0, '\0');
  if (status.ok()) status = ReceiveAll(socket_.get(), &body[0], body.size());
  if (!status.ok()) return absl::InternalError("a client process died; its own output says why");
  if (!header.ok) return absl::UnknownError(body);
  return body;
}

absl::StatusOr<CaseResult> ClientProcess::AwaitResult() {
  const absl::StatusOr<std::string> answer = AwaitAnswer();
  return answer.ok() ? Decode(*answer) : answer.status();
}

absl::Status ClientProcess::AwaitDone() { return AwaitAnswer().status(); }

}  // namespace shmrpc::bench
