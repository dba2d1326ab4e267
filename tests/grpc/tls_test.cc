// TLS and mutual TLS on grpc: addresses: who has the right certificate is served, and who has not is told why.

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/socket.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "certificates.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "grpc_caller.h"
#include "gtest/gtest.h"
#include "shmrpc/grpc.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"
#include "transports/framed/unique_fd.h"
#include "transports/grpc/certificates.h"
#include "transports/tcp/listening_socket.h"

namespace shmrpc {
namespace {

using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using testing::AllOf;
using testing::HasSubstr;

class GrpcTlsTest : public testing::Test {
 protected:
  void StartServer(const Certificates::Identity& identity, const std::string& client_roots) {
    GrpcOptions options;
    options.server.tls = GrpcTlsServerOptions{identity.certificate, identity.key, client_roots};
    absl::StatusOr<std::unique_ptr<Server>> server =
        ServerBuilder(TransportsWithGrpc(options)).Listen("grpc:localhost:0").Register(&service_).Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const std::string address = server_->addresses().front().ToString();
    target_ = "grpc:localhost" + address.substr(address.rfind(':'));
  }

  absl::Status Call(const std::optional<GrpcTlsClientOptions>& tls) {
    GrpcOptions options;
    options.client.tls = tls;
    ChannelOptions channel_options;
    channel_options.connect_timeout = absl::Seconds(10);
    Echo::Stub stub(Channel::Create(target_, channel_options, TransportsWithGrpc(options)));
    EchoRequest request;
    request.set_payload("secret");
    ClientContext context;
    context.set_timeout(conformance::kHangGuard);
    EchoReply reply;
    absl::Status status = stub.Echo(&context, request, &reply);
    if (status.ok()) {
      EXPECT_EQ(reply.payload(), "secret");
    }
    return status;
  }

  Certificates certificates_;
  const Certificates::Identity authority_ = certificates_.MakeAuthority("authority");
  conformance::EchoService service_;
  std::unique_ptr<Server> server_;
  std::string target_;
};

TEST_F(GrpcTlsTest, AServersCertificateIsChecked) {
  StartServer(certificates_.Make("server", "authority"), "");
  EXPECT_EQ(Call(GrpcTlsClientOptions{authority_.certificate, "", "", ""}), absl::OkStatus());

  const Certificates::Identity other = certificates_.MakeAuthority("other");
  absl::Status status = Call(GrpcTlsClientOptions{other.certificate, "", "", ""});
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("(CN = server): unable to get local issuer certificate"),
                                                   HasSubstr("root_certificates")));

  GrpcTlsClientOptions wrong_name{authority_.certificate, "", "", "example.com"};
  status = Call(wrong_name);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("Peer name example.com is not in peer certificate"));

  status = Call(std::nullopt);  // plain text
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the option tls"));
  EXPECT_EQ(service_.started().value(), 1);
}

TEST_F(GrpcTlsTest, AnExpiredServerIsRefused) {
  StartServer(certificates_.Make("server", "authority", /*expired=*/true), "");
  const absl::Status status = Call(GrpcTlsClientOptions{authority_.certificate, "", "", ""});
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("(CN = server): certificate has expired"));
  EXPECT_EQ(service_.started().value(), 0);
}

TEST_F(GrpcTlsTest, AServerWithoutTlsIsRefused) {
  absl::StatusOr<std::unique_ptr<Server>> server =
      ServerBuilder(TransportsWithGrpc()).Listen("grpc:localhost:0").Register(&service_).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  target_ = (*server)->addresses().front().ToString();
  const absl::Status status = Call(GrpcTlsClientOptions{authority_.certificate, "", "", ""});
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("does the server speak TLS?"));
}

TEST_F(GrpcTlsTest, AClientsCertificateIsCheckedWhereTheServerSaysSo) {
  StartServer(certificates_.Make("server", "authority"), authority_.certificate);
  const auto call_as = [this](const Certificates::Identity& identity) {
    return Call(GrpcTlsClientOptions{authority_.certificate, identity.certificate, identity.key, ""});
  };
  EXPECT_EQ(call_as(certificates_.Make("client", "authority")), absl::OkStatus());
  // By way of another authority, which the client shows as well.
  const Certificates::Identity department =
      certificates_.Make("department", "authority", /*expired=*/false, "basicConstraints=CA:true");
  Certificates::Identity member = certificates_.Make("member", "department");
  const Certificates::Identity alone = member;
  member.certificate += department.certificate;
  EXPECT_EQ(call_as(member), absl::OkStatus());

  certificates_.MakeAuthority("other");
  const struct {
    Certificates::Identity identity;
    const char* reason;
  } cases[] = {
      {certificates_.Make("stranger", "other"), "(CN = stranger): unable to get local issuer certificate"},
      {certificates_.Make("old", "authority", /*expired=*/true), "(CN = old): certificate has expired"},
      {certificates_.Make("site", "authority", /*expired=*/false, "extendedKeyUsage=serverAuth"),
       "(CN = site): unsuitable certificate purpose"},
      {alone, "(CN = member): unable to get local issuer certificate"},
      {{}, "the client has shown no certificate, and this server demands one"},
  };
  for (const auto& wrong : cases) {
    testing::internal::CaptureStderr();
    const absl::Status status = call_as(wrong.identity);
    EXPECT_TRUE(absl::IsUnauthenticated(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(wrong.reason));
    // A limited log may leave out the lines of others.
    const std::string log = testing::internal::GetCapturedStderr();
    if (&wrong == &cases[0]) {
      EXPECT_THAT(log, AllOf(HasSubstr("refused a call from "), HasSubstr(wrong.reason)));
    }
  }
  EXPECT_EQ(service_.started().value(), 2);
}

// What is told is told to everybody's clients.
TEST_F(GrpcTlsTest, OtherGrpcClientsAreToldTheSame) {
  StartServer(certificates_.Make("server", "authority"), authority_.certificate);
  const Certificates::Identity old = certificates_.Make("old", "authority", /*expired=*/true);
  EchoReply reply;
  const grpc::Status status =
      conformance::GrpcEchoCaller(target_.substr(5),
                                  grpc::SslCredentials({authority_.certificate, old.key, old.certificate}))
          .Call(EchoRequest(), &reply);
  EXPECT_EQ(status.error_code(), grpc::UNAUTHENTICATED);
  EXPECT_THAT(status.error_message(), HasSubstr("(CN = old): certificate has expired"));
  const Certificates::Identity good = certificates_.Make("client", "authority");
  EXPECT_TRUE(conformance::GrpcEchoCaller(target_.substr(5),
                                          grpc::SslCredentials({authority_.certificate, good.key, good.certificate}))
                  .Call(EchoRequest(), &reply)
                  .ok());
  EXPECT_EQ(service_.started().value(), 1);
}

// The gRPC library's servers end the connection without a word. What a client can say is what that may mean.
TEST_F(GrpcTlsTest, AGrpcServerThatRefusesTheClientIsSaidToHangUp) {
  const Certificates::Identity identity = certificates_.Make("server", "authority");
  grpc::SslServerCredentialsOptions ssl(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  ssl.pem_root_certs = authority_.certificate;
  ssl.pem_key_cert_pairs.push_back({identity.key, identity.certificate});
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("localhost:0", grpc::SslServerCredentials(ssl), &port);
  grpc::CallbackGenericService generic;
  builder.RegisterCallbackGenericService(&generic);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  target_ = absl::StrCat("grpc:localhost:", port);
  for (const Certificates::Identity& wrong :
       {certificates_.Make("old", "authority", /*expired=*/true), Certificates::Identity()}) {
    const absl::Status status = Call(GrpcTlsClientOptions{authority_.certificate, wrong.certificate, wrong.key, ""});
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("does not accept the client's certificate, or demands one"));
  }
  const Certificates::Identity good = certificates_.Make("client", "authority");
  EXPECT_TRUE(
      absl::IsUnimplemented(Call(GrpcTlsClientOptions{authority_.certificate, good.certificate, good.key, ""})));
}

// Servers of other implementations say other things, and not all of them anything.
TEST_F(GrpcTlsTest, WhateverAServerWithTlsSaysToPlainTextTheHintIsThere) {
  const struct {
    const char* whose;
    std::string answer;
  } cases[] = {
      {"closes", ""},
      {"an alert", std::string("\x15\x03\x01\x00\x02\x02\x46", 7)},
      {"an alert of TLS 1.2", std::string("\x15\x03\x03\x00\x02\x02\x50", 7)},
      {"net/http of Go", "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"},
  };
  for (const auto& each : cases) {
    absl::StatusOr<std::vector<tcp::ListeningSocket>> sockets = tcp::ListenSockets(*Target::Parse("127.0.0.1:0"), 0600);
    ASSERT_TRUE(sockets.ok()) << sockets.status();
    const int listening = sockets->front().fd();
    std::thread server([&] {
      pollfd readable = {listening, POLLIN, 0};
      while (poll(&readable, 1, -1) > 0 && (readable.revents & (POLLHUP | POLLERR)) == 0) {
        absl::StatusOr<std::optional<framed::UniqueFd>> accepted = tcp::AcceptSocket(listening);
        if (!accepted.ok()) return;
        if (!accepted->has_value()) continue;
        pollfd said = {(*accepted)->get(), POLLIN, 0};
        poll(&said, 1, 10'000);
        char buffer[4096];
        while (recv(said.fd, buffer, sizeof buffer, MSG_DONTWAIT) > 0) {
        }
        send(said.fd, each.answer.data(), each.answer.size(), MSG_NOSIGNAL);
      }
    });
    for (const std::string& scheme : {"grpc:", ""}) {
      target_ = scheme + sockets->front().bound().ToString();
      const absl::Status status = Call(std::nullopt);
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("the option tls")) << each.whose;
    }
    shutdown(listening, SHUT_RDWR);
    server.join();
  }
}

// In a resumed session of TLS the gRPC library knows the client's certificate only.
TEST_F(GrpcTlsTest, WhatCameWithACertificateIsRememberedForResumedSessions) {
  const auto certificates = grpc_transport::ClientCertificates::Create(authority_.certificate);
  ASSERT_TRUE(certificates.ok()) << certificates.status();
  const Certificates::Identity department =
      certificates_.Make("department", "authority", /*expired=*/false, "basicConstraints=CA:true");
  const Certificates::Identity member = certificates_.Make("member", "department");
  const Certificates::Identity other = certificates_.Make("other", "department");
  constexpr bool kResumed = true;
  EXPECT_TRUE(absl::IsUnauthenticated((*certificates)->Check(member.certificate, "", kResumed)));
  EXPECT_EQ((*certificates)->Check(member.certificate, department.certificate, !kResumed), absl::OkStatus());
  EXPECT_EQ((*certificates)->Check(member.certificate, "", kResumed), absl::OkStatus());
  EXPECT_TRUE(absl::IsUnauthenticated((*certificates)->Check(member.certificate, "", !kResumed)));
  EXPECT_TRUE(absl::IsUnauthenticated((*certificates)->Check(other.certificate, "", kResumed)));
}

TEST_F(GrpcTlsTest, WhatIsNotPemIsSaidAtOnce) {
  GrpcOptions options;
  options.server.tls = GrpcTlsServerOptions{"nonsense", "nonsense", ""};
  const absl::Status listening =
      ServerBuilder(TransportsWithGrpc(options)).Listen("grpc:localhost:0").Register(&service_).Start().status();
  EXPECT_TRUE(absl::IsInvalidArgument(listening)) << listening;
  EXPECT_THAT(std::string(listening.message()), HasSubstr("GrpcTlsServerOptions"));

  const Certificates::Identity identity = certificates_.Make("server", "authority");
  options.server.tls = GrpcTlsServerOptions{identity.certificate, identity.key, "nonsense"};
  const absl::Status without_roots =
      ServerBuilder(TransportsWithGrpc(options)).Listen("grpc:localhost:0").Register(&service_).Start().status();
  EXPECT_TRUE(absl::IsInvalidArgument(without_roots)) << without_roots;
  EXPECT_THAT(std::string(without_roots.message()), HasSubstr("client_root_certificates"));

  target_ = "grpc:localhost:1";
  absl::Status status = Call(GrpcTlsClientOptions{"nonsense", "", "", ""});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  status = Call(GrpcTlsClientOptions{authority_.certificate, authority_.certificate, "", ""});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("private_key"));
}

}  // namespace
}  // namespace shmrpc
