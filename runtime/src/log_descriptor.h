#ifndef SHMRPC_RUNTIME_SRC_LOG_DESCRIPTOR_H_
#define SHMRPC_RUNTIME_SRC_LOG_DESCRIPTOR_H_

// Descriptor 2, as the library may use it: see shmrpc/log.h.

#include "absl/strings/string_view.h"

namespace shmrpc::internal {

// Notes what descriptor 2 is at present. `again`: also when that was noted before in this process.
void NoteDescriptor2(bool again);

// Writes `line`, which ends with a newline, if descriptor 2 is still what was noted, or something harmless. Waits as
// long as the other end takes nothing.
void WriteToDescriptor2(absl::string_view line);

// Whether it would take a line of up to 4096 bytes at once, as far as can be known.
bool Descriptor2HasRoom();

}  // namespace shmrpc::internal

#endif  // SHMRPC_RUNTIME_SRC_LOG_DESCRIPTOR_H_
