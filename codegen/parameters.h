#ifndef SHMRPC_CODEGEN_PARAMETERS_H_
#define SHMRPC_CODEGEN_PARAMETERS_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shmrpc::codegen {

// What protoc passes on from --shmrpc_out=PARAMETERS:DIRECTORY or --shmrpc_opt=PARAMETERS.
struct Parameters {
  bool mock = false;  // mock=true: also write NAME.shmrpc.mock.pb.h
};

// Takes "name=value,name=value" apart. INVALID_ARGUMENT, naming the parameter and what would be right, when one is
// unknown, malformed or given twice.
absl::StatusOr<Parameters> ParseParameters(absl::string_view text);

}  // namespace shmrpc::codegen

#endif  // SHMRPC_CODEGEN_PARAMETERS_H_
