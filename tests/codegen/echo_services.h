#ifndef SHMRPC_TESTS_CODEGEN_ECHO_SERVICES_H_
#define SHMRPC_TESTS_CODEGEN_ECHO_SERVICES_H_

// The service Echo of behaviour.proto in the three styles, which clients cannot tell apart. Say without a text fails;
// Forgotten is not implemented.

#include <string>

#include "behaviour.shmrpc.pb.h"

namespace behaviour {

Request MakeRequest(const std::string& text);
Reply MakeReply(const std::string& text);

class SyncEcho final : public Echo::Service {
 public:
  absl::Status Say(shmrpc::ServerContext* context, const Request* request, Reply* reply) override;
  absl::Status class_(shmrpc::ServerContext* context, const Request* request, Reply* reply) override;
  absl::Status Spell(shmrpc::ServerContext* context, const Request* request,
                     shmrpc::ServerWriter<Reply>* stream) override;
  absl::Status Join(shmrpc::ServerContext* context, shmrpc::ServerReader<Request>* stream, Reply* reply) override;
  absl::Status Talk(shmrpc::ServerContext* context, shmrpc::ServerReaderWriter<Reply, Request>* stream) override;
};

class CallbackEcho final : public Echo::CallbackService {
 public:
  shmrpc::ServerUnaryReactor* Say(shmrpc::ServerContext* context, const Request* request, Reply* reply) override;
  shmrpc::ServerUnaryReactor* class_(shmrpc::ServerContext* context, const Request* request, Reply* reply) override;
  shmrpc::ServerWriteReactor<Reply>* Spell(shmrpc::ServerContext* context, const Request* request) override;
  shmrpc::ServerReadReactor<Request>* Join(shmrpc::ServerContext* context, Reply* reply) override;
  shmrpc::ServerBidiReactor<Request, Reply>* Talk(shmrpc::ServerContext* context) override;
};

class CoEcho final : public Echo::CoService {
 public:
  shmrpc::Task<absl::Status> Say(shmrpc::ServerContext* context, const Request* request, Reply* reply) override;
  shmrpc::Task<absl::Status> class_(shmrpc::ServerContext* context, const Request* request, Reply* reply) override;
  shmrpc::Task<absl::Status> Spell(shmrpc::ServerContext* context, const Request* request,
                                   shmrpc::CoServerWriter<Reply>* stream) override;
  shmrpc::Task<absl::Status> Join(shmrpc::ServerContext* context, shmrpc::CoServerReader<Request>* stream,
                                  Reply* reply) override;
  shmrpc::Task<absl::Status> Talk(shmrpc::ServerContext* context,
                                  shmrpc::CoServerReaderWriter<Reply, Request>* stream) override;
};

}  // namespace behaviour

#endif  // SHMRPC_TESTS_CODEGEN_ECHO_SERVICES_H_
