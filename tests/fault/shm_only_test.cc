// A server that insists on shared memory: what cannot come over it is refused, with the reason, at every door.

#include <sys/socket.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hostile_fixture.h"

namespace shmrpc::fault {
namespace {

using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using framed::UniqueFd;
using testing::HasSubstr;
using testing::StartsWith;

class ShmOnlyTest : public testing::Test {
 protected:
  ShmOnlyTest() {
    unsetenv("SHMRPC_TRANSPORT");
    absl::StatusOr<std::unique_ptr<Server>> server = ServerBuilder()
                                                         .Listen("127.0.0.1:0")
                                                         .Listen(absl::StrCat("unix-abstract:shm-only-", getpid()))
                                                         .SetTransport(TransportPreference::kShm)
                                                         .Register(&service_)
                                                         .Start();
    EXPECT_TRUE(server.ok()) << server.status();
    if (server.ok()) server_ = *std::move(server);
  }

  const Target& tcp_address() const { return server_->addresses()[0]; }
  const Target& unix_address() const { return server_->addresses()[1]; }

  static absl::Status Call(const std::string& address, TransportPreference preference,
                           std::string* transport = nullptr) {
    ChannelOptions options;
    options.transport = preference;
    const auto channel = Channel::Create(address, options);
    ClientContext context;
    context.set_timeout(conformance::kHangGuard);
    EchoRequest request;
    EchoReply reply;
    const absl::Status status = Echo::Stub(channel).Echo(&context, request, &reply);
    if (transport != nullptr) *transport = channel->transport();
    return status;
  }

  conformance::EchoService service_;
  std::unique_ptr<Server> server_;
};

TEST_F(ShmOnlyTest, CallsOverSharedMemoryAreServed) {
  for (const Target& address : {tcp_address(), unix_address()}) {
    for (const TransportPreference preference : {TransportPreference::kAuto, TransportPreference::kShm}) {
      std::string transport;
      const absl::Status status = Call(address.ToString(), preference, &transport);
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_EQ(transport, "shm");
    }
  }
}

TEST_F(ShmOnlyTest, AClientThatWantsTheSocketIsRefusedAndToldWhy) {
  const absl::Status tcp = Call(tcp_address().ToString(), TransportPreference::kTcp);
  EXPECT_EQ(tcp.code(), absl::StatusCode::kUnavailable) << tcp;
  EXPECT_THAT(std::string(tcp.message()), HasSubstr("takes calls over shared memory only"));
  const absl::Status unix_socket = Call(unix_address().ToString(), TransportPreference::kUnix);
  EXPECT_EQ(unix_socket.code(), absl::StatusCode::kUnavailable) << unix_socket;
  EXPECT_THAT(std::string(unix_socket.message()), HasSubstr("takes calls over shared memory only"));
}

TEST_F(ShmOnlyTest, AClientOfAnotherHostIsRefusedAndToldWhy) {
  const UniqueFd socket = ConnectTcpSocket(tcp_address().port);
  Hello hello;
  hello.host_id = "another host's";
  const std::optional<Hello> answer = ExchangeHellos(socket.get(), hello);
  ASSERT_TRUE(answer.has_value());
  EXPECT_THAT(answer->refused, testing::AllOf(HasSubstr("shared memory only"), HasSubstr("peer on another host")));
  EXPECT_FALSE(answer->rendezvous.has_value());
  EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
}

TEST_F(ShmOnlyTest, NoFramesAreTakenWhereTheTokenIsGiven) {
  const UniqueFd socket = ConnectTcpSocket(tcp_address().port);
  // With the first call behind it, as no honest client does.
  NativeFrame method = {.type = kMethodFrame, .body = std::string(kEchoMethod)};
  EXPECT_TRUE(SendWithFds(
      socket.get(), Hello().EncodeAsClient() + EncodeFrame(method) + EncodeFrame(EchoRequestFrame(1, EchoRequest()))));
  const std::optional<std::string> message = ReceiveHelloMessage(socket.get(), nullptr);
  ASSERT_TRUE(message.has_value());
  EXPECT_TRUE(Hello::FromServer(*message)->shm_only);
  EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
  EXPECT_EQ(service_.started().value(), 0);
}

TEST_F(ShmOnlyTest, AnOfferThatIsNoneIsRefused) {
  const UniqueFd socket = ConnectSocketTo(unix_address());
  Hello hello;
  hello.shm.emplace();
  const std::optional<Hello> answer = ExchangeHellos(socket.get(), hello);
  ASSERT_TRUE(answer.has_value());
  EXPECT_THAT(answer->refused, testing::AllOf(HasSubstr("shared memory only"), HasSubstr("0 descriptors")));
  EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
}

}  // namespace
}  // namespace shmrpc::fault
