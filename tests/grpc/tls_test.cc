// TLS and mutual TLS on grpc: addresses: who has the right certificate is served, and who has not is told why.

#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "certificates.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/grpc.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"

namespace shmrpc {
namespace {

using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using testing::AnyOf;
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

  absl::Status Call(const absl::optional<GrpcTlsClientOptions>& tls) {
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
  EXPECT_THAT(std::string(status.message()), HasSubstr("handshake"));

  GrpcTlsClientOptions wrong_name{authority_.certificate, "", "", "example.com"};
  status = Call(wrong_name);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("example.com"));

  status = Call(absl::nullopt);  // plain text
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(service_.started().value(), 1);
}

TEST_F(GrpcTlsTest, AnExpiredServerIsRefused) {
  StartServer(certificates_.Make("server", "authority", /*expired=*/true), "");
  const absl::Status status = Call(GrpcTlsClientOptions{authority_.certificate, "", "", ""});
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("handshake"));
  EXPECT_EQ(service_.started().value(), 0);
}

TEST_F(GrpcTlsTest, AClientsCertificateIsCheckedWhereTheServerSaysSo) {
  StartServer(certificates_.Make("server", "authority"), authority_.certificate);
  const auto call_as = [this](const Certificates::Identity& identity) {
    return Call(GrpcTlsClientOptions{authority_.certificate, identity.certificate, identity.key, ""});
  };
  EXPECT_EQ(call_as(certificates_.Make("client", "authority")), absl::OkStatus());

  const Certificates::Identity other = certificates_.MakeAuthority("other");
  const Certificates::Identity wrong[] = {
      certificates_.Make("stranger", "other"),                   // another authority's
      certificates_.Make("old", "authority", /*expired=*/true),  // expired
      {},                                                        // none
  };
  for (const Certificates::Identity& identity : wrong) {
    const absl::Status status = call_as(identity);
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()), AnyOf(HasSubstr("handshake"), HasSubstr("certificate"))) << status;
  }
  EXPECT_EQ(service_.started().value(), 1);
}

TEST_F(GrpcTlsTest, WhatIsNotPemIsSaidAtOnce) {
  GrpcOptions options;
  options.server.tls = GrpcTlsServerOptions{"nonsense", "nonsense", ""};
  const absl::Status listening =
      ServerBuilder(TransportsWithGrpc(options)).Listen("grpc:localhost:0").Register(&service_).Start().status();
  EXPECT_TRUE(absl::IsInvalidArgument(listening)) << listening;
  EXPECT_THAT(std::string(listening.message()), HasSubstr("GrpcTlsServerOptions"));

  target_ = "grpc:localhost:1";
  absl::Status status = Call(GrpcTlsClientOptions{"nonsense", "", "", ""});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  status = Call(GrpcTlsClientOptions{authority_.certificate, authority_.certificate, "", ""});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("private_key"));
}

}  // namespace
}  // namespace shmrpc
