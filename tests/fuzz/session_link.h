#ifndef SHMRPC_TESTS_FUZZ_SESSION_LINK_H_
#define SHMRPC_TESTS_FUZZ_SESSION_LINK_H_

// What the fuzzers of both kinds of session share: a link whose peer is the input, and a loop that does the poller's
// work on the calling thread, so that the same input always does the same.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/fuzz/input.h"
#include "transports/framed/frame.h"
#include "transports/framed/link.h"
#include "transports/framed/poller.h"

namespace shmrpc::fuzz {

// Receives frames made of the input, and then the end; takes everything that is sent. A frame in the input: type, flags
// (one byte each), code (two), call (one, see CallId), the size of what follows the header (two), and that; where the
// input ends zeros follow, so that little input makes large frames.
class SessionLink final : public framed::Link {
 public:
  SessionLink(Input* input, uint64_t first_call_id) : input_(input), first_call_id_(first_call_id) {}

  const std::string& name() const override { return name_; }
  uint8_t* Reserve(size_t size) override {
    Check(size >= framed::kFrameHeaderBytes && size <= framed::kMaxFrameBytes);
    sent_ = std::make_unique<uint8_t[]>(size);  // of exactly this size, for AddressSanitizer
    return sent_.get();
  }
  void Commit(size_t) override {}
  void Flush(bool) override {}
  bool SendBufferFull() const override { return false; }
  bool HasRoom() const override { return true; }
  bool AskForRoom() override { return false; }
  void RingIfPeerBehind() override {}
  void FinishSending() override {}

  ReceiveResult Receive(framed::Chunk* chunk) override {
    if (input_->empty() || shut_down_) return ReceiveResult::kEnd;
    framed::FrameHeader header;
    header.type = static_cast<framed::FrameType>(input_->Take<uint8_t>());
    header.flags = input_->Take<uint8_t>();
    header.code = input_->Take<uint16_t>();
    header.call_id = CallId(input_->Take<uint8_t>());
    const size_t size = std::min<size_t>(input_->Take<uint16_t>(), framed::kMaxFrameBytes - framed::kFrameHeaderBytes);
    const absl::string_view body = input_->TakeBytes(size);
    header.length = static_cast<uint32_t>(framed::kFrameHeaderBytes + size);
    std::memcpy(chunk->data, &header, sizeof header);
    std::memcpy(chunk->data + framed::kFrameHeaderBytes, body.data(), body.size());
    std::memset(chunk->data + framed::kFrameHeaderBytes + body.size(), 0, size - body.size());
    return ReceiveResult::kFrame;
  }
  bool HasFrame() override { return !input_->empty(); }
  bool PrepareToPark() override { return input_->empty(); }
  void Unpark() override {}
  void DrainWakeups(bool) override {}
  absl::Status end_status() const override { return absl::UnavailableError("the input is at its end"); }

  bool PeerBehind() const override { return false; }
  int fd() const override { return -1; }
  bool CheapToPoll() const override { return true; }
  void Shutdown() override { shut_down_ = true; }

 private:
  uint64_t CallId(uint8_t call) const { return call < 16 ? first_call_id_ + call : call; }

  const std::string name_ = "fuzz";
  Input* const input_;
  const uint64_t first_call_id_;
  std::unique_ptr<uint8_t[]> sent_;
  bool shut_down_ = false;
};

// A poller that polls nothing.
inline const std::shared_ptr<framed::Poller>& StoppedPoller() {
  static const auto* const poller = [] {
    auto created = framed::Poller::Create("fuzz", 2);
    Check(created.ok());
    (*created)->Stop();
    return new std::shared_ptr<framed::Poller>(*std::move(created));
  }();
  return *poller;
}

// Does what a poller does until the session is over.
inline void PollToTheEnd(framed::Pollable* session) {
  for (;;) {
    framed::Task* task = nullptr;
    framed::Visit visit(/*scanning=*/false, /*may_run=*/true);
    switch (session->Poll(&visit, &task)) {
      case framed::Pollable::Outcome::kTask:
      case framed::Pollable::Outcome::kTaskMore:
        task->Run();
        continue;
      case framed::Pollable::Outcome::kOver:
        StoppedPoller()->Stop();  // forgets whom it was to poll
        return;
      default:
        continue;
    }
  }
}

}  // namespace shmrpc::fuzz

#endif  // SHMRPC_TESTS_FUZZ_SESSION_LINK_H_
