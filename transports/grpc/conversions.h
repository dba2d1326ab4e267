#ifndef SHMRPC_TRANSPORTS_GRPC_CONVERSIONS_H_
#define SHMRPC_TRANSPORTS_GRPC_CONVERSIONS_H_

// Between this library's values and the gRPC library's. Pure functions.

#include <grpc/support/time.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>
#include <grpcpp/support/status.h>
#include <grpcpp/support/string_ref.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "shmrpc/message.h"
#include "shmrpc/metadata.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::grpc_transport {

// InfiniteFuture and InfinitePast become gRPC's own infinities, and back; what is between them is on
// GPR_CLOCK_MONOTONIC.
gpr_timespec ToGrpcTime(SteadyTime time);
SteadyTime FromGrpcTime(gpr_timespec time);

// The payloads of an absl::Status travel as gRPC's error details do: as a google.rpc.Status with one Any each, whose
// type_url is the payload's. What cannot be read back as such is left out. A code that is none of the sixteen is
// UNKNOWN, as gRPC has it. A message of more than 16 KiB is cut, and details of more than 12 KiB are left out.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// Without what the library has put there for itself: keys that begin with "grpc-", "shmrpc-" or ":", and user-agent.
// The order of pairs with the same key is kept; pairs come sorted by key, because that is how the gRPC library hands
// them over.
Metadata FromGrpcMetadata(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata);

// The same for what comes with a request: there, kPreviousAttempts may be among it, and comes last. It is sent as
// kSentPreviousAttempts by this library, because the gRPC library's client drops a count that is not its own.
Metadata FromGrpcRequestMetadata(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata);

// The message serialised straight into the memory that the gRPC library sends from.
grpc::ByteBuffer ToByteBuffer(const OutgoingMessage& message);

// A message that has arrived, in the gRPC library's memory.
class ReceivedBuffer {
 public:
  // Takes the contents of `buffer`.
  explicit ReceivedBuffer(grpc::ByteBuffer* buffer);
  ReceivedBuffer(ReceivedBuffer&&) = default;
  ReceivedBuffer& operator=(ReceivedBuffer&&) = default;

  size_t size() const { return size_; }
  // Of memory that this object holds. No piece is empty.
  const std::vector<std::string_view>& pieces() const { return pieces_; }

 private:
  std::vector<grpc::Slice> slices_;  // once filled never changed: pieces_ may point into the elements themselves
  std::vector<std::string_view> pieces_;
  size_t size_ = 0;
};

inline constexpr char kSentPreviousAttempts[] = "shmrpc-previous-rpc-attempts";

// In the trailing metadata of a call that no handler has begun with: see CallEnd::not_processed.
inline constexpr char kNotProcessedKey[] = "shmrpc-not-processed";

// "ipv6:%5B::1%5D:443" becomes "ipv6:[::1]:443".
std::string DecodePeer(std::string_view peer);

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_CONVERSIONS_H_
