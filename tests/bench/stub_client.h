#ifndef SHMRPC_TESTS_BENCH_STUB_CLIENT_H_
#define SHMRPC_TESTS_BENCH_STUB_CLIENT_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grpc/testing/messages.pb.h"
#include "tests/bench/payload.h"
#include "tests/bench/peer.h"
#include "tests/bench/sleeper.pb.h"

namespace shmrpc::bench {

// The client of a framework with generated stubs. shmrpc's stubs and gRPC's are used in the same way, so both clients
// are this class; `Framework` has what differs:
//
//   Channel, Stub, SleeperStub, Context                types; the stubs are constructed from a shared_ptr<Channel>
//   absl::StatusOr<shared_ptr<Channel>> Connect(address)   a channel with a connection of its own, connected
//   static void SetTimeout(Context*, absl::Duration)
//   static absl::Status ToAbsl(status)
//   static void StartUnaryCall(Stub*, Context*, const SimpleRequest*, SimpleResponse*, done)   done(absl::Status)
template <typename Framework>
class StubClient final : public ClientSide {
 public:
  StubClient(const PeerSetup& setup, Framework framework) : framework_(std::move(framework)), slots_(setup.slots) {
    for (Slot& slot : slots_) slot.request.mutable_payload()->mutable_body()->resize(setup.payload_bytes);
  }

  absl::Status Connect(const std::string& address) override {
    auto channel = framework_.Connect(address);
    if (!channel.ok()) return channel.status();
    address_ = address;
    stub_ = std::make_unique<Stub>(*channel);
    sleeper_ = std::make_unique<typename Framework::SleeperStub>(*channel);
    return absl::OkStatus();
  }

  absl::Span<char> request(int slot) override {
    std::string* const body = slots_[slot].request.mutable_payload()->mutable_body();
    return absl::MakeSpan(&(*body)[0], body->size());
  }
  absl::string_view reply(int slot) const override { return slots_[slot].response.payload().body(); }

  absl::Status Call(int slot) override { return CallOver(stub_.get(), &slots_[slot]); }

  void Start(int slot, Observer* observer) override {
    Slot& state = slots_[slot];
    state.context.emplace();
    Framework::SetTimeout(&*state.context, kCallTimeout);
    Framework::StartUnaryCall(stub_.get(), &*state.context, &state.request, &state.response,
                              [observer, slot](const absl::Status& status) { observer->OnDone(slot, status); });
  }

  absl::Status OpenStream(StreamKind kind) override {
    Slot& slot = slots_[0];
    slot.context.emplace();
    Framework::SetTimeout(&*slot.context, kStreamTimeout);
    if (kind == StreamKind::kPingPong) ping_pong_ = stub_->StreamingCall(&*slot.context);
    if (kind == StreamKind::kUpload) upload_ = stub_->StreamingFromClient(&*slot.context, &slot.response);
    if (kind == StreamKind::kDownload) download_ = stub_->StreamingFromServer(&*slot.context, slot.request);
    return absl::OkStatus();
  }

  absl::Status Write() override {
    const bool written = ping_pong_ ? ping_pong_->Write(slots_[0].request) : upload_->Write(slots_[0].request);
    return written ? absl::OkStatus() : WhyItEnded();
  }

  absl::Status Read() override {
    const bool read = ping_pong_ ? ping_pong_->Read(&slots_[0].response) : download_->Read(&slots_[0].response);
    return read ? absl::OkStatus() : WhyItEnded();
  }

  absl::Status CloseStream() override {
    absl::Status status;
    if (ping_pong_) {
      ping_pong_->WritesDone();
      status = Framework::ToAbsl(ping_pong_->Finish());
    } else if (upload_) {
      upload_->WritesDone();
      status = Framework::ToAbsl(upload_->Finish());
      if (status.ok()) status = CheckReply(request(0), reply(0));
    } else {
      slots_[0].context->TryCancel();
      status = Framework::ToAbsl(download_->Finish());
      if (absl::IsCancelled(status)) status = absl::OkStatus();
    }
    Forget();
    return status;
  }

  absl::Status Sleep(absl::Duration duration) override {
    SleepRequest request;
    SleepResponse response;
    request.set_micros(absl::ToInt64Microseconds(duration));
    typename Framework::Context context;
    Framework::SetTimeout(&context, kCallTimeout + duration);
    return Framework::ToAbsl(sleeper_->Sleep(&context, request, &response));
  }

  absl::Status ConnectMore(int connections) override {
    for (int i = 0; i < connections; ++i) {
      auto channel = framework_.Connect(address_);
      if (!channel.ok()) {
        return absl::Status(channel.status().code(),
                            absl::StrCat("connection ", i + 1, " of ", connections, ": ", channel.status().message()));
      }
      more_.push_back(std::make_unique<Stub>(*channel));
    }
    return CallOnEach();
  }

  absl::Status CallOnEach() override {
    for (const auto& stub : more_) {
      const absl::Status status = CallOver(stub.get(), &slots_[0]);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  using Stub = typename Framework::Stub;
  using Request = grpc::testing::SimpleRequest;
  using Response = grpc::testing::SimpleResponse;
  using Context = typename Framework::Context;

  struct Slot {
    Request request;
    Response response;
    std::optional<Context> context;  // of the asynchronous call or the stream in progress, or of the last one
  };

  static absl::Status CallOver(Stub* stub, Slot* slot) {
    Context context;
    Framework::SetTimeout(&context, kCallTimeout);
    return Framework::ToAbsl(stub->UnaryCall(&context, slot->request, &slot->response));
  }

  // After a Write or a Read that failed.
  absl::Status WhyItEnded() {
    absl::Status status = Framework::ToAbsl(ping_pong_ ? ping_pong_->Finish()
                                            : upload_  ? upload_->Finish()
                                                       : download_->Finish());
    Forget();
    return status.ok() ? absl::InternalError("the server ended the stream") : status;
  }

  void Forget() {
    ping_pong_ = nullptr;
    upload_ = nullptr;
    download_ = nullptr;
  }

  Framework framework_;
  std::string address_;
  std::vector<Slot> slots_;  // go last: what is below uses them
  std::unique_ptr<Stub> stub_;
  std::unique_ptr<typename Framework::SleeperStub> sleeper_;
  std::vector<std::unique_ptr<Stub>> more_;  // of the further connections
  // At most one of them is not null: the stream that is open.
  decltype(std::declval<Stub&>().StreamingCall(nullptr)) ping_pong_;
  decltype(std::declval<Stub&>().StreamingFromClient(nullptr, nullptr)) upload_;
  decltype(std::declval<Stub&>().StreamingFromServer(nullptr, std::declval<const Request&>())) download_;
};

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_STUB_CLIENT_H_
