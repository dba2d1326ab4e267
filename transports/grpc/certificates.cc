#include "transports/grpc/certificates.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/src/absl_strings.h"
#include "shmrpc/target.h"
#include "transports/tcp/connect_socket.h"
#include "transports/tcp/socket_address.h"

namespace shmrpc::grpc_transport {
namespace {

template <auto free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    free(object);
  }
};
using X509Ptr = std::unique_ptr<X509, Deleter<X509_free>>;
using X509StorePtr = std::unique_ptr<X509_STORE, Deleter<X509_STORE_free>>;
using X509StoreContextPtr = std::unique_ptr<X509_STORE_CTX, Deleter<X509_STORE_CTX_free>>;
using BioPtr = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using SslContextPtr = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, Deleter<SSL_free>>;

// Results are kept for this long, and this many of them.
constexpr absl::Duration kKnownFor = absl::Minutes(1);
constexpr size_t kMaxKnown = 1000;

// All that can be read.
std::vector<X509Ptr> ReadCertificates(std::string_view pem) {
  std::vector<X509Ptr> certificates;
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(certificate);
  }
  ERR_clear_error();  // it ends with one
  return certificates;
}

// Whether a client has sent more than its own certificate.
bool SentWithOthers(std::string_view certificate, std::string_view chain) {
  return !chain.empty() && chain != certificate;
}

X509StorePtr MakeStore(const std::vector<X509Ptr>& roots) {
  X509StorePtr store(X509_STORE_new());
  for (const X509Ptr& root : roots) X509_STORE_add_cert(store.get(), root.get());
  ERR_clear_error();
  return store;
}

// "CN = client, O = example"; all of it printable, and not too long for headers.
std::string SubjectOf(X509* certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), X509_get_subject_name(certificate), 0, XN_FLAG_ONELINE);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  constexpr long kMaxBytes = 200;
  return std::string(text, static_cast<size_t>(std::clamp(size, 0L, kMaxBytes)));
}

// `culprit`: the certificate of the chain that is to blame, where that is known.
std::string Reason(long error, X509* certificate, X509* culprit) {
  std::string reason = absl::StrCat(" (", SubjectOf(certificate), "): ", X509_verify_cert_error_string(error));
  if (culprit != nullptr && X509_cmp(culprit, certificate) != 0) {
    absl::StrAppend(&reason, " (its authority's certificate, ", SubjectOf(culprit), ")");
  }
  return reason;
}

// How weak keys and digests may be: as in handshakes, where the system's configuration of OpenSSL has a say.
int SecurityLevel() {
  static const int level = [] {
    const SslContextPtr context(SSL_CTX_new(TLS_method()));
    return context == nullptr ? 2 : SSL_CTX_get_security_level(context.get());
  }();
  return level;
}

// What OpenSSL objects to first in the server's certificate.
struct Objection {
  long error = X509_V_OK;
  X509Ptr certificate;
  X509Ptr culprit;
};

// Notes the first objection, and has the handshake go on: nothing will be sent.
int NoteObjection(int good, X509_STORE_CTX* context) {
  auto* const ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(context, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* const objection = static_cast<Objection*>(SSL_get_app_data(ssl));
  if (good != 0 || objection->error != X509_V_OK) return 1;
  objection->error = X509_STORE_CTX_get_error(context);
  X509* const certificate = X509_STORE_CTX_get0_cert(context);
  X509* const culprit = X509_STORE_CTX_get_current_cert(context);
  X509_up_ref(certificate);
  objection->certificate.reset(certificate);
  if (culprit != nullptr) X509_up_ref(culprit);
  objection->culprit.reset(culprit);
  return 1;
}

// Of a client over a non-blocking socket; over memory, because OpenSSL's own writing could raise SIGPIPE. False when it
// has not come to an end, one way or another.
bool Handshake(SSL* ssl, int socket, SteadyTime deadline, int interrupt_fd) {
  BIO* const received = BIO_new(BIO_s_mem());
  BIO* const to_send = BIO_new(BIO_s_mem());
  BIO_set_mem_eof_return(received, -1);  // "more may come"
  SSL_set_bio(ssl, received, to_send);   // which owns them
  ERR_clear_error();
  for (;;) {
    const int result = SSL_connect(ssl);
    const int error = SSL_get_error(ssl, result);
    char buffer[4096];
    while (const int size = std::max(0, BIO_read(to_send, buffer, sizeof buffer))) {
      // It is little, and the socket's buffer empty.
      if (send(socket, buffer, static_cast<size_t>(size), MSG_NOSIGNAL) != size) return false;
    }
    if (error != SSL_ERROR_WANT_READ) return true;
    pollfd fds[2] = {{socket, POLLIN, 0}, {interrupt_fd, POLLIN, 0}};
    if (poll(fds, 2, tcp::PollTimeout(deadline)) <= 0 || fds[1].revents != 0) return false;
    const ssize_t size = recv(socket, buffer, sizeof buffer, 0);
    if (size <= 0) return false;
    BIO_write(received, buffer, static_cast<int>(size));
  }
}

// One handshake, of which only the server's certificate matters.
std::string ExplainHandshakeWith(const Target& target, const GrpcTlsClientOptions& tls, SteadyTime deadline,
                                 int interrupt_fd) {
  absl::StatusOr<framed::UniqueFd> socket = tcp::ConnectSocket(target, deadline, interrupt_fd);
  if (!socket.ok()) return std::string();
  const SslContextPtr context(SSL_CTX_new(TLS_client_method()));
  const SslPtr ssl(context == nullptr ? nullptr : SSL_new(context.get()));
  if (ssl == nullptr) return std::string();
  if (tls.root_certificates.empty()) {
    SSL_CTX_set_default_verify_paths(context.get());
  } else {
    SSL_set1_verify_cert_store(ssl.get(), MakeStore(ReadCertificates(tls.root_certificates)).get());
  }
  Objection objection;
  SSL_set_app_data(ssl.get(), &objection);
  SSL_set_verify(ssl.get(), SSL_VERIFY_PEER, &NoteObjection);
  const std::string name = tls.server_name.empty() ? target.host : tls.server_name;
  in6_addr address;
  if (inet_pton(AF_INET, name.c_str(), &address) == 1 || inet_pton(AF_INET6, name.c_str(), &address) == 1) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), name.c_str());
  } else if (!name.empty()) {
    SSL_set_tlsext_host_name(ssl.get(), name.c_str());
    SSL_set1_host(ssl.get(), name.c_str());
  }
  if (!Handshake(ssl.get(), socket->get(), deadline, interrupt_fd)) return std::string();
  const unsigned long failure = ERR_peek_error();
  ERR_clear_error();
  if (objection.error == X509_V_OK) {
    const char* const words = failure == 0 ? nullptr : ERR_reason_error_string(failure);
    if (words == nullptr) return std::string();
    return absl::StrCat(": ", target.ToString(), ": ", words, "; does the server speak TLS?");
  }
  std::string explanation = absl::StrCat(": the certificate of ", target.ToString(), " is not accepted",
                                         Reason(objection.error, objection.certificate.get(), objection.culprit.get()),
                                         "; see the option root_certificates");
  if (objection.error == X509_V_ERR_HOSTNAME_MISMATCH || objection.error == X509_V_ERR_IP_ADDRESS_MISMATCH) {
    absl::StrAppend(&explanation, ", or server_name, which is \"", name, "\" now");
  }
  return explanation;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ClientCertificates>> ClientCertificates::Create(const std::string& roots) {
  const std::vector<X509Ptr> certificates = ReadCertificates(roots);
  if (certificates.empty()) {
    return absl::InvalidArgumentError("the option client_root_certificates has no certificate as PEM");
  }
  return std::shared_ptr<const ClientCertificates>(new ClientCertificates(MakeStore(certificates).release()));
}

ClientCertificates::~ClientCertificates() { X509_STORE_free(store_); }

absl::Status ClientCertificates::Check(std::string_view certificate, std::string_view chain, bool resumed) const {
  absl::Status status = CheckWith(certificate, chain);
  if (status.ok() || !resumed) return status;
  std::string remembered;
  {
    MutexLock lock(&mutex_);
    const auto found = chains_.find(std::string(certificate));
    if (found != chains_.end()) remembered = found->second;
  }
  return remembered.empty() ? status : CheckWith(certificate, remembered);
}

absl::Status ClientCertificates::CheckWith(std::string_view certificate, std::string_view chain) const {
  const std::string key = absl::StrCat(certificate, "/", chain);
  const SteadyTime now = SteadyTime::Now();
  {
    MutexLock lock(&mutex_);
    const auto found = known_.find(key);
    if (found != known_.end() && now - found->second.since < kKnownFor) return found->second.status;
  }
  absl::Status status = Verify(certificate, chain);
  MutexLock lock(&mutex_);
  if (known_.size() >= kMaxKnown) known_.clear();
  known_[key] = {status, now};
  if (status.ok() && SentWithOthers(certificate, chain)) {
    if (chains_.size() >= kMaxKnown) chains_.clear();
    chains_.insert_or_assign(std::string(certificate), std::string(chain));
  }
  return status;
}

absl::Status ClientCertificates::Verify(std::string_view certificate, std::string_view chain) const {
  if (certificate.empty()) {
    return absl::UnauthenticatedError(
        "the client has shown no certificate, and this server demands one (mutual TLS; clients of shmrpc: "
        "the option certificate_chain)");
  }
  const std::vector<X509Ptr> own = ReadCertificates(certificate);
  if (own.size() != 1) return absl::UnauthenticatedError("the client's certificate cannot be read");
  const std::vector<X509Ptr> others = ReadCertificates(chain);
  const std::unique_ptr<STACK_OF(X509), Deleter<[](STACK_OF(X509) * stack) { sk_X509_free(stack); }>> untrusted(
      sk_X509_new_null());
  for (const X509Ptr& other : others) sk_X509_push(untrusted.get(), other.get());
  const X509StoreContextPtr context(X509_STORE_CTX_new());
  if (context == nullptr || X509_STORE_CTX_init(context.get(), store_, own[0].get(), untrusted.get()) != 1 ||
      X509_STORE_CTX_set_default(context.get(), "ssl_client") != 1) {
    return absl::UnauthenticatedError("the client's certificate cannot be checked");
  }
  X509_VERIFY_PARAM_set_auth_level(X509_STORE_CTX_get0_param(context.get()), SecurityLevel());
  const bool good = X509_verify_cert(context.get()) == 1;
  ERR_clear_error();
  if (good) return absl::OkStatus();
  return absl::UnauthenticatedError(absl::StrCat(
      "the server does not accept the client's certificate",
      Reason(X509_STORE_CTX_get_error(context.get()), own[0].get(), X509_STORE_CTX_get_current_cert(context.get()))));
}

std::string ExplainHandshakeFailure(const std::string& grpc_target, const GrpcTlsClientOptions& tls,
                                    SteadyTime deadline, int interrupt_fd) {
  const absl::StatusOr<std::vector<Target>> targets = Target::ParseList(grpc_target);
  if (!targets.ok()) return std::string();
  for (const Target& target : *targets) {
    if (target.kind == Target::Kind::kInproc || target.kind == Target::Kind::kGrpc) continue;
    std::string explanation = ExplainHandshakeWith(target, tls, deadline, interrupt_fd);
    if (!explanation.empty()) return explanation;
  }
  return std::string();
}

}  // namespace shmrpc::grpc_transport
