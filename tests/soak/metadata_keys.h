#ifndef SHMRPC_TESTS_SOAK_METADATA_KEYS_H_
#define SHMRPC_TESTS_SOAK_METADATA_KEYS_H_

#include "absl/strings/string_view.h"

namespace shmrpc::soak {

// The Job of a call whose client streams.
inline constexpr absl::string_view kJobKey = "soak-job-bin";
// The call's id, in both directions, in calls with Plan::metadata.
inline constexpr absl::string_view kIdKey = "soak-id";

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_METADATA_KEYS_H_
