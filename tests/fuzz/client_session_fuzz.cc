// A client's session whose server is the input. Calls of all kinds are in progress.

#include <array>
#include <atomic>
#include <memory>
#include <utility>

#include "google/protobuf/wrappers.pb.h"
#include "shmrpc/message.h"
#include "tests/fuzz/session_link.h"
#include "transports/framed/client_session.h"

namespace shmrpc::fuzz {
namespace {

// Holds events to their grammar: [Headers Message*] Status.
class Events final : public CallEvents {
 public:
  explicit Events(bool runs_user_code) : runs_user_code_(runs_user_code) {}
  void OnHeaders(Metadata) override {
    Check(!headers_ && !over_);
    headers_ = true;
  }
  void OnMessage(const IncomingMessage&) override {
    Check(headers_ && !over_);
    ++messages_;
  }
  void OnSendable() override {}
  void OnStatus(CallEnd) override {
    Check(!over_);
    over_ = true;
  }
  bool RunsUserCode() const override { return runs_user_code_; }

  bool over() const { return over_; }
  int messages() const { return messages_; }

 private:
  const bool runs_user_code_;
  bool headers_ = false;
  bool over_ = false;
  int messages_ = 0;
};

}  // namespace
}  // namespace shmrpc::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shmrpc;
  fuzz::Input input(data, size);
  // The first call has the slot 0 and the generation 1.
  constexpr uint64_t kFirstCallId = uint64_t{1} << 20;
  constexpr FlowControlOptions kWindows = {.stream_bytes = 16 * 1024, .connection_bytes = 64 * 1024};
  const framed::SessionOptions options = {.spin_policy = framed::SpinPolicy(WaitMode::kEfficient, /*may_spin=*/false),
                                          .granted_by_peer = kWindows,
                                          .granted_to_peer = kWindows};
  const auto session = std::make_shared<framed::ClientSession>(
      std::make_unique<fuzz::SessionLink>(&input, kFirstCallId), fuzz::StoppedPoller().get(), options);

  const google::protobuf::BytesValue empty;
  const OutgoingProto message(empty);
  constexpr int kCalls = 8;
  std::array<std::unique_ptr<fuzz::Events>, kCalls> events;
  std::array<std::atomic<Call*>, kCalls> calls = {};
  const uint8_t how = input.Take<uint8_t>();
  for (int i = 0; i < kCalls; ++i) {
    const bool streams = (i & 2) != 0;
    events[i] = std::make_unique<fuzz::Events>(/*runs_user_code=*/(i & 1) != 0);
    CallSpec spec;
    spec.method = "/a.Service/Method";
    spec.client_streams = streams;
    spec.server_streams = streams;
    spec.max_receive_message_bytes = 128 * 1024;
    session->StartCall(spec, streams ? nullptr : &message, events[i].get(), &calls[i]);
    if (streams && (how & 1) != 0) calls[i].load()->Receive();
    if (streams && (how & 2) != 0) (void)calls[i].load()->Send(message, (how & 4) != 0);
  }
  if ((how & 8) != 0) {
    calls[4].load()->Cancel(absl::CancelledError("enough"));
    calls[6].load()->Cancel(absl::CancelledError("enough"));
  }
  fuzz::PollToTheEnd(session.get());
  for (int i = 0; i < kCalls; ++i) {
    if ((i & 2) != 0) calls[i].load()->DropMessages();
  }
  fuzz::PollToTheEnd(session.get());
  session->Close();
  for (int i = 0; i < kCalls; ++i) {
    fuzz::Check(events[i]->over());
    calls[i].load()->Release();
  }
  fuzz::StoppedPoller()->Stop();
  return 0;
}
