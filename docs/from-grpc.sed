# Moves a C++ program from gRPC to shmrpc, as far as renaming goes: see from-grpc.md.
#
#   sed -E -z -i -f docs/from-grpc.sed server.cc client.cc
#
# -z because calls may be spread over several lines.

# Headers.
s/#include [<"]grpc(pp|\+\+)\/[^>"]*[>"]/#include "shmrpc\/shmrpc.h"/g
s/(#include "shmrpc\/shmrpc\.h"\n)+/\1/g
s/\.grpc\.pb\.h/.shmrpc.pb.h/g
s/(^|[^A-Za-z0-9_>]):: *grpc::/\1grpc::/g

# Status. The codes first: a name of theirs may be what follows Status.
s/\<using grpc::Status;/using absl::Status;/g
s/\<using grpc::StatusCode;/using absl::StatusCode;/g
s/\<(grpc::)?Status::OK\>/absl::OkStatus()/g
s/\<(grpc::)?Status::CANCELLED\>/absl::CancelledError()/g
s/\<(grpc::)?StatusCode::OK\>/absl::StatusCode::kOk/g
s/\<(grpc::)?StatusCode::CANCELLED\>/absl::StatusCode::kCancelled/g
s/\<(grpc::)?StatusCode::UNKNOWN\>/absl::StatusCode::kUnknown/g
s/\<(grpc::)?StatusCode::INVALID_ARGUMENT\>/absl::StatusCode::kInvalidArgument/g
s/\<(grpc::)?StatusCode::DEADLINE_EXCEEDED\>/absl::StatusCode::kDeadlineExceeded/g
s/\<(grpc::)?StatusCode::NOT_FOUND\>/absl::StatusCode::kNotFound/g
s/\<(grpc::)?StatusCode::ALREADY_EXISTS\>/absl::StatusCode::kAlreadyExists/g
s/\<(grpc::)?StatusCode::PERMISSION_DENIED\>/absl::StatusCode::kPermissionDenied/g
s/\<(grpc::)?StatusCode::RESOURCE_EXHAUSTED\>/absl::StatusCode::kResourceExhausted/g
s/\<(grpc::)?StatusCode::FAILED_PRECONDITION\>/absl::StatusCode::kFailedPrecondition/g
s/\<(grpc::)?StatusCode::ABORTED\>/absl::StatusCode::kAborted/g
s/\<(grpc::)?StatusCode::OUT_OF_RANGE\>/absl::StatusCode::kOutOfRange/g
s/\<(grpc::)?StatusCode::UNIMPLEMENTED\>/absl::StatusCode::kUnimplemented/g
s/\<(grpc::)?StatusCode::INTERNAL\>/absl::StatusCode::kInternal/g
s/\<(grpc::)?StatusCode::UNAVAILABLE\>/absl::StatusCode::kUnavailable/g
s/\<(grpc::)?StatusCode::DATA_LOSS\>/absl::StatusCode::kDataLoss/g
s/\<(grpc::)?StatusCode::UNAUTHENTICATED\>/absl::StatusCode::kUnauthenticated/g
s/\<grpc::(StatusCode|Status)\>/absl::\1/g
s/return \{(absl::StatusCode::)/return absl::Status{\1/g
s/\<([A-Za-z_][A-Za-z0-9_]*)\.error_message\(\)/std::string(\1.message())/g
s/\.error_code\(\)/.code()/g

# Clients.
s/\<grpc::CreateChannel\(([^(),]*(\([^()]*\))?),[[:space:]]*grpc::InsecureChannelCredentials\(\)\)/shmrpc::Channel::Create(\1)/g
s/\<([A-Za-z_][A-Za-z0-9_:]*)::NewStub\(/std::make_unique<\1::Stub>(/g
s/\<set_deadline\(([^;]*)\);/set_deadline(absl::FromChrono(\1));/g
s/(->|\.)async\(\)->/\1async()./g
s/,[[:space:]]*grpc::WriteOptions\(\)\)/)/g

# Servers.
s/[[:space:]]*\<grpc::EnableDefaultHealthCheckService\(true\);//g
s/\<AddListeningPort\(([^(),]*(\([^()]*\))?),[[:space:]]*grpc::InsecureServerCredentials\(\)\)/Listen(\1)/g
s/(->|\.)RegisterService\(/\1Register(/g
s/(->|\.)SetMax(Receive|Send)MessageSize\(/\1SetMax\2MessageBytes(/g
s/(->|\.)BuildAndStart\(\)/\1Start().value()/g
s/(->|\.)Shutdown\(\);/\1Shutdown(absl::InfiniteFuture());/g
s/\<grpc::CallbackServerContext\>/shmrpc::ServerContext/g
s/\<using shmrpc::ServerContext;([[:space:]]*using grpc::ServerContext;)/\1/g
s/\<CallbackServerContext\>/ServerContext/g

# What is called the same.
s/\<grpc::/shmrpc::/g
