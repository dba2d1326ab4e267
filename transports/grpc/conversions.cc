#include "transports/grpc/conversions.h"

#include <grpc/slice.h>

#include <chrono>
#include <cstdint>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"
#include "shmrpc/rpc_status.pb.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::grpc_transport {
namespace {

std::string_view ToView(grpc::string_ref text) { return std::string_view(text.data(), text.size()); }

absl::StatusCode ToCode(int code) {
  return code >= 0 && code <= 16 ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown;
}

// A status has to fit into HTTP/2's headers, whose size the receiver limits.
constexpr size_t kMaxMessageBytes = 16 * 1024;
constexpr size_t kMaxDetailsBytes = 12 * 1024;

// Of the one-byte alphabet of hexadecimal digits; -1 for any other character.
int HexDigit(char character) {
  if (character >= '0' && character <= '9') return character - '0';
  if (character >= 'a' && character <= 'f') return character - 'a' + 10;
  if (character >= 'A' && character <= 'F') return character - 'A' + 10;
  return -1;
}

}  // namespace

gpr_timespec ToGrpcTime(SteadyTime time) {
  // Beyond this, arithmetic on deadlines might overflow; a century is as good as for ever.
  static constexpr std::chrono::hours kFarFuture(24 * 365 * 100);
  const std::chrono::nanoseconds since_zero = time.ToChrono().time_since_epoch();
  if (since_zero >= kFarFuture) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  if (since_zero.count() <= 0) return gpr_inf_past(GPR_CLOCK_MONOTONIC);
  return gpr_time_from_nanos(since_zero.count(), GPR_CLOCK_MONOTONIC);
}

SteadyTime FromGrpcTime(gpr_timespec time) {
  if (gpr_time_cmp(time, gpr_inf_future(time.clock_type)) == 0) return SteadyTime::InfiniteFuture();
  if (gpr_time_cmp(time, gpr_inf_past(time.clock_type)) == 0) return SteadyTime::InfinitePast();
  const gpr_timespec steady = gpr_convert_clock_type(time, GPR_CLOCK_MONOTONIC);
  return SteadyTime::FromChrono(std::chrono::steady_clock::time_point(std::chrono::seconds(steady.tv_sec) +
                                                                      std::chrono::nanoseconds(steady.tv_nsec)));
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const grpc::StatusCode code = static_cast<grpc::StatusCode>(ToCode(status.raw_code()));
  wire::RpcStatus details;
  status.ForEachPayload([&details](absl::string_view type_url, const absl::Cord& value) {
    wire::RpcStatus::Any* const any = details.add_details();
    any->set_type_url(std::string(type_url));
    any->set_value(std::string(value));
  });
  std::string message(status.message());
  if (message.size() > kMaxMessageBytes) {
    message.resize(kMaxMessageBytes);
    message.append(" [cut]");
  }
  if (details.details_size() > 0 && details.ByteSizeLong() > kMaxDetailsBytes) {
    details.clear_details();
    message.append(" [its details are too large and were left out]");
  }
  if (details.details_size() == 0) return grpc::Status(code, message);
  details.set_code(code);
  details.set_message(message);
  return grpc::Status(code, message, details.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(ToCode(status.error_code()), status.error_message());
  wire::RpcStatus details;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details())) {
    for (const wire::RpcStatus::Any& any : details.details()) {
      result.SetPayload(any.type_url(), absl::Cord(any.value()));
    }
  }
  return result;
}

Metadata FromGrpcMetadata(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata) {
  Metadata result;
  for (const auto& [key, value] : metadata) {
    const std::string_view name = ToView(key);
    if (name.starts_with("grpc-") || name.starts_with("shmrpc-") || name.starts_with(':') || name == "user-agent") {
      continue;
    }
    result.Add(name, ToView(value));
  }
  return result;
}

Metadata FromGrpcRequestMetadata(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata) {
  Metadata result = FromGrpcMetadata(metadata);
  auto found = metadata.find(kSentPreviousAttempts);
  if (found == metadata.end()) {
    found = metadata.find(grpc::string_ref(kPreviousAttempts.data(), kPreviousAttempts.size()));
  }
  uint32_t attempts = 0;
  if (found != metadata.end() && absl::SimpleAtoi(ToAbsl(ToView(found->second)), &attempts) && attempts > 0) {
    result.Add(kPreviousAttempts, absl::StrCat(attempts));
  }
  return result;
}

grpc::ByteBuffer ToByteBuffer(const OutgoingMessage& message) {
  grpc_slice memory = grpc_slice_malloc(message.size());
  message.SerializeToArray(GRPC_SLICE_START_PTR(memory));
  const grpc::Slice slice(memory, grpc::Slice::STEAL_REF);
  return grpc::ByteBuffer(&slice, 1);
}

ReceivedBuffer::ReceivedBuffer(grpc::ByteBuffer* buffer) {
  if (!buffer->Valid() || !buffer->Dump(&slices_).ok()) return;
  buffer->Clear();
  for (const grpc::Slice& slice : slices_) {
    if (slice.size() == 0) continue;
    pieces_.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
    size_ += slice.size();
  }
}

std::string DecodePeer(std::string_view peer) {
  std::string result;
  for (size_t i = 0; i < peer.size(); ++i) {
    if (peer[i] == '%' && i + 2 < peer.size() && HexDigit(peer[i + 1]) >= 0 && HexDigit(peer[i + 2]) >= 0) {
      result.push_back(static_cast<char>(HexDigit(peer[i + 1]) * 16 + HexDigit(peer[i + 2])));
      i += 2;
    } else {
      result.push_back(peer[i]);
    }
  }
  return result;
}

}  // namespace shmrpc::grpc_transport
