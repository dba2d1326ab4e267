// A plug-in that has the library inside.

#include "absl/time/clock.h"
#include "shmrpc/shmrpc.h"

extern "C" [[gnu::visibility("default")]] int Connect(const char* address) {
  return shmrpc::Channel::Create(address)->WaitForConnected(absl::Now() + absl::Seconds(20)).ok() ? 0 : 1;
}
