#ifndef SHMRPC_TRANSPORTS_GRPC_CERTIFICATES_H_
#define SHMRPC_TRANSPORTS_GRPC_CERTIFICATES_H_

// Why a certificate is refused. The gRPC library ends the connection then, and tells neither side the reason.

#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shmrpc/grpc.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"

typedef struct x509_store_st X509_STORE;  // OpenSSL's

namespace shmrpc::grpc_transport {

// Whom a server with mutual TLS serves. The handshake only sees to it that a client has the private key of the
// certificate that it shows; whether that is a good one is decided here, for each call, so that the client can be told.
// Rules are OpenSSL's for clients of TLS. Thread-safe.
class ClientCertificates {
 public:
  // `roots`: the authorities, PEM. INVALID_ARGUMENT when there is none in it.
  static absl::StatusOr<std::shared_ptr<const ClientCertificates>> Create(const std::string& roots);
  ~ClientCertificates();
  ClientCertificates(const ClientCertificates&) = delete;
  ClientCertificates& operator=(const ClientCertificates&) = delete;

  // Of a client's certificate and what it has sent with it, PEM: OK, or UNAUTHENTICATED with the reason. An empty
  // `certificate` is none. One that expires while its connection lasts is refused from within a minute on.
  // `resumed`: in a resumed session of TLS the client does not send again what it sent with its certificate, which is
  // remembered.
  absl::Status Check(std::string_view certificate, std::string_view chain, bool resumed) const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Result {
    absl::Status status;
    SteadyTime since;
  };

  explicit ClientCertificates(X509_STORE* store) : store_(store) {}
  absl::Status CheckWith(std::string_view certificate, std::string_view chain) const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Verify(std::string_view certificate, std::string_view chain) const;

  X509_STORE* const store_;
  mutable Mutex mutex_;
  // Signatures take longer to check than calls. By everything that the client has shown.
  mutable absl::flat_hash_map<std::string, Result> known_ ABSL_GUARDED_BY(mutex_);
  // By certificates that were accepted with the help of others: those others.
  mutable absl::flat_hash_map<std::string, std::string> chains_ ABSL_GUARDED_BY(mutex_);
};

// For a client whose handshakes with the server fail, why they do: asks `grpc_target` for its certificate with a
// handshake of its own and looks at it as `tls` says. Begins with ": "; empty when there is nothing to add, or the
// target is of a kind that only the gRPC library can resolve. Blocks until `deadline` at most, or until `interrupt_fd`
// (-1: none) is readable.
std::string ExplainHandshakeFailure(const std::string& grpc_target, const GrpcTlsClientOptions& tls,
                                    SteadyTime deadline, int interrupt_fd);

}  // namespace shmrpc::grpc_transport

#endif  // SHMRPC_TRANSPORTS_GRPC_CERTIFICATES_H_
