// A server's session whose client is the input.

#include <memory>
#include <utility>
#include <vector>

#include "google/protobuf/wrappers.pb.h"
#include "shmrpc/message.h"
#include "tests/fuzz/session_link.h"
#include "transports/framed/server_session.h"

namespace shmrpc::fuzz {
namespace {

// A handler that reads all messages and answers each.
class Echo final : public ServerCallEvents {
 public:
  explicit Echo(ServerCallPtr call) : call_(std::move(call)) {}
  void Begin() {
    ServerCall* const call = call_.get();
    call->Start(this);  // may deliver OnCancelled, and with Finish OnDone
    if (!finished_) call->Receive();
  }
  void OnMessage(const IncomingMessage&) override {
    const google::protobuf::BytesValue reply;
    (void)call_->Send(OutgoingProto(reply));
    call_->Receive();
  }
  void OnHalfClose() override { Finish(); }
  void OnSendable() override {}
  void OnCancelled() override { Finish(); }
  void OnDone() override { done_ = true; }
  bool RunsUserCode() const override { return false; }

  bool done() const { return done_; }

 private:
  void Finish() {
    finished_ = true;
    FinishCall(std::move(call_), ServerCall::Reply());
  }

  ServerCallPtr call_;
  bool finished_ = false;
  bool done_ = false;
};

// What becomes of a call depends on how many came before.
class Handler final : public CallHandler {
 public:
  ~Handler() override {
    for (const std::unique_ptr<Echo>& echo : echoes_) Check(echo->done());  // exactly one end
  }
  void OnCall(ServerCallPtr call, const IncomingMessage*) override {
    switch (calls_++ % 3) {
      case 0:
        return FinishCall(std::move(call), ServerCall::Reply());
      case 1:
        kept_.push_back(std::move(call));
        return;
      default:
        echoes_.push_back(std::make_unique<Echo>(std::move(call)));
        return echoes_.back()->Begin();
    }
  }
  void DropCalls() { kept_.clear(); }

 private:
  int calls_ = 0;
  std::vector<ServerCallPtr> kept_;
  std::vector<std::unique_ptr<Echo>> echoes_;
};

}  // namespace
}  // namespace shmrpc::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shmrpc;
  fuzz::Input input(data, size);
  fuzz::Handler handler;
  constexpr FlowControlOptions kWindows = {.stream_bytes = 16 * 1024, .connection_bytes = 64 * 1024};
  int ends = 0;
  framed::ServerSession::Options options = {
      .handler = &handler,
      .max_receive_message_bytes = 128 * 1024,
      .session = {.spin_policy = framed::SpinPolicy(WaitMode::kEfficient, /*may_spin=*/false),
                  .granted_by_peer = kWindows,
                  .granted_to_peer = kWindows},
      .on_over = [&ends](framed::ServerSession*) { ++ends; },
  };
  const auto session = std::make_shared<framed::ServerSession>(
      std::make_unique<fuzz::SessionLink>(&input, /*first_call_id=*/1), fuzz::StoppedPoller(), std::move(options));
  fuzz::PollToTheEnd(session.get());
  fuzz::Check(ends == 1);
  handler.DropCalls();
  fuzz::Check(session->IsIdle());
  return 0;
}
