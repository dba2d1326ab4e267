#ifndef SHMRPC_TESTS_SOAK_METADATA_KEYS_H_
#define SHMRPC_TESTS_SOAK_METADATA_KEYS_H_

namespace shmrpc::soak {

// The Job of a call whose client streams.
inline constexpr char kJobKey[] = "soak-job-bin";
// The call's id, in both directions, in calls with Plan::metadata.
inline constexpr char kIdKey[] = "soak-id";

}  // namespace shmrpc::soak

#endif  // SHMRPC_TESTS_SOAK_METADATA_KEYS_H_
