// The first bytes of a connection, in whatever pieces they come, for both sides.

#include <string>

#include "runtime/src/absl_strings.h"
#include "tests/fuzz/input.h"
#include "transports/auto/hello.h"

namespace shmrpc::fuzz {
namespace {

template <typename Hello>
void ReadMessage(absl::string_view body) {
  Hello hello;
  if (!hello.ParseFromArray(body.data(), static_cast<int>(body.size()))) return;
  const absl::StatusOr<FlowControlOptions> window = autoselect::GetWindow(hello.window());
  if (window.ok()) {
    Check(window->stream_bytes >= FlowControlOptions::kMinStreamBytes);
    Check(window->connection_bytes >= window->stream_bytes);
    Check(window->connection_bytes <= FlowControlOptions::kMaxBytes);
  }
  const std::optional<absl::Duration> keepalive = autoselect::GetKeepaliveTimeout(hello);
  Check(!keepalive.has_value() || *keepalive > absl::ZeroDuration());
}

}  // namespace
}  // namespace shmrpc::fuzz

// The first byte says how many bytes the socket yields at a time.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shmrpc;
  fuzz::Input input(data, size);
  const size_t step = size_t{input.Take<uint8_t>()} + 1;
  autoselect::HelloReader reader;
  while (!input.empty() && reader.state() == autoselect::HelloReader::State::kMore) {
    const size_t wanted = reader.Wanted();
    fuzz::Check(wanted > 0 && wanted <= autoselect::kMaxHelloBytes + 64);
    const std::string piece(input.TakeBytes(std::min(step, wanted)));  // a copy of exactly this size
    reader.Feed(piece);
  }
  if (reader.state() != autoselect::HelloReader::State::kComplete) return 0;
  fuzz::Check(reader.body().size() <= autoselect::kMaxHelloBytes);
  fuzz::ReadMessage<wire::ClientHello>(ToAbsl(reader.body()));
  fuzz::ReadMessage<wire::ServerHello>(ToAbsl(reader.body()));
  return 0;
}
