#ifndef SHMRPC_TESTS_BENCH_FLOOR_MESSAGES_H_
#define SHMRPC_TESTS_BENCH_FLOOR_MESSAGES_H_

// The two sides of floors that carry protobuf messages: what they do with them, on whatever way they travel.

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grpc/testing/messages.pb.h"
#include "tests/bench/floor.h"
#include "tests/bench/peer.h"

namespace shmrpc::bench {

// `Way` is one end of the way: it has a static Connect(socket, payload_bytes), which gives a StatusOr of a unique_ptr
// to it, and Send and Receive, which block and take a message.
template <typename Way>
class MessageFloorServer final : public ServerSide {
 public:
  explicit MessageFloorServer(const PeerSetup& setup) : setup_(setup) {}

  absl::StatusOr<std::string> Start() override { return std::string(); }

  absl::Status Serve() override {
    const absl::StatusOr<std::unique_ptr<Way>> way = Way::Connect(setup_.socket, setup_.payload_bytes);
    if (!way.ok()) return way.status();
    grpc::testing::SimpleRequest request;
    grpc::testing::SimpleResponse response;
    return ServeFloor(
        setup_, [&] { return (*way)->Receive(&request); }, [&] { return absl::string_view(request.payload().body()); },
        [&] {
          *response.mutable_payload() = request.payload();  // what the handlers of the other peers do
          return (*way)->Send(response);
        });
  }

 private:
  const PeerSetup setup_;
};

template <typename Way>
class MessageFloorClient final : public FloorClient {
 public:
  explicit MessageFloorClient(const PeerSetup& setup) : socket_(setup.socket) {
    request_.mutable_payload()->mutable_body()->resize(setup.payload_bytes);
  }

  absl::Status Connect(const std::string& address) override {
    absl::StatusOr<std::unique_ptr<Way>> way = Way::Connect(socket_, request_.payload().body().size());
    if (!way.ok()) return way.status();
    way_ = *std::move(way);
    return absl::OkStatus();
  }

  absl::Span<char> request(int slot) override {
    std::string* const body = request_.mutable_payload()->mutable_body();
    return absl::MakeSpan(body->data(), body->size());
  }
  absl::string_view reply(int slot) const override { return response_.payload().body(); }

  absl::Status Call(int slot) override {
    const absl::Status status = Send();
    return status.ok() ? Receive() : status;
  }

 protected:
  absl::Status Send() override { return way_->Send(request_); }
  absl::Status Receive() override { return way_->Receive(&response_); }

 private:
  const int socket_;
  std::unique_ptr<Way> way_;
  grpc::testing::SimpleRequest request_;
  grpc::testing::SimpleResponse response_;
};

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_FLOOR_MESSAGES_H_
