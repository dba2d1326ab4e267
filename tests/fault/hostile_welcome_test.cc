// Servers that break a rule before the client is connected: in the answer over TCP, at the rendezvous, and at a Unix
// socket that is the address itself. The client gives the connection up, or goes on without shared memory, and
// Channel::transport() tells why.

#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hostile_descriptors.h"
#include "hostile_fixture.h"
#include "transports/tcp/listening_socket.h"

namespace shmrpc::fault {
namespace {

using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using conformance::kHangGuard;
using framed::UniqueFd;
using testing::HasSubstr;
using testing::StartsWith;

// A client of the library that makes one call, while the test is its server.
class HostileWelcomeTest : public HostileTest {
 protected:
  void StartCall(const std::string& address, absl::Duration connect_timeout = absl::Seconds(60)) {
    ChannelOptions options;
    options.connect_timeout = connect_timeout;
    channel_ = Channel::Create(address, options);
    caller_ = std::thread([this] {
      Echo::Stub stub(channel_);
      EchoRequest request;
      EchoReply reply;
      ClientContext context;
      context.set_timeout(kHangGuard);
      status_ = stub.Echo(&context, request, &reply);
    });
  }
  absl::Status EndOfCall() {
    caller_.join();
    return status_;
  }

  // Serves the call on this connection, whose hellos have been exchanged.
  void Serve(std::unique_ptr<NativeConnection> connection) {
    connection_ = std::move(connection);
    EXPECT_EQ(connection_->Receive().value_or(NativeFrame()).type, kMethodFrame);
    const std::optional<NativeFrame> request = connection_->Receive();
    ASSERT_TRUE(request.has_value());
    EXPECT_EQ(int{request->type}, int{kRequestFrame});
    connection_->Send({.type = kResponseFrame, .call_id = request->call_id});
  }
  void Serve(UniqueFd socket) { Serve(std::make_unique<NativeConnection>(std::move(socket))); }

  // The call was served without shared memory.
  void ExpectServedOver(const std::string& way, const std::string& reason) {
    const absl::Status status = EndOfCall();
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_THAT(channel_->transport(), StartsWith(absl::StrCat(way, ": ")));
    EXPECT_THAT(channel_->transport(), HasSubstr(reason));
  }

  void TearDown() override {
    if (caller_.joinable()) caller_.join();
    connection_ = nullptr;
    channel_ = nullptr;
    HostileTest::TearDown();
  }

  std::unique_ptr<NativeConnection> connection_;
  std::shared_ptr<Channel> channel_;
  std::thread caller_;
  absl::Status status_;
};

// ---- Descriptors.

enum class Door { kRendezvous, kUnix };

struct DescriptorCase {
  DescriptorAttack attack;
  Door door;
  std::string name() const { return absl::StrCat(attack.name, door == Door::kUnix ? "_unix" : "_rendezvous"); }
};
void PrintTo(const DescriptorCase& descriptor_case, std::ostream* out) { *out << descriptor_case.name(); }

std::vector<DescriptorCase> DescriptorCases() {
  std::vector<DescriptorCase> cases;
  for (const DescriptorAttack& attack : DescriptorAttacks()) {
    cases.push_back({attack, Door::kRendezvous});
    // There the connection is over, and so is the attempt to connect: the test below.
    if (!attack.too_many) cases.push_back({attack, Door::kUnix});
  }
  return cases;
}

class HostileServersDescriptor : public HostileWelcomeTest, public testing::WithParamInterface<DescriptorCase> {};

TEST_P(HostileServersDescriptor, IsRefusedAndClosed) {
  const DescriptorAttack& attack = GetParam().attack;
  NativeServer server(Way::kShm);
  const bool at_rendezvous = GetParam().door == Door::kRendezvous;
  StartCall(at_rendezvous ? server.address() : absl::StrCat("unix-abstract:", server.rendezvous_name()));
  UniqueFd tcp;
  if (at_rendezvous) {
    tcp = server.AcceptTcp();
    ASSERT_TRUE(NativeServer::AnswerHello(tcp.get(), server.Invite()));
  }
  UniqueFd socket = server.AcceptAtRendezvous();
  std::vector<UniqueFd> offered;
  ASSERT_TRUE(ReceiveHelloMessage(socket.get(), &offered).has_value());
  EXPECT_EQ(offered.size(), 1u);
  Hello answer;
  answer.shm = attack.offer;
  const std::vector<UniqueFd> fds = attack.make();
  EXPECT_TRUE(SendWithFds(socket.get(), answer.EncodeAsServer(), Numbers(fds)));
  EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
  if (!fds.empty()) (void)!ftruncate(fds[0].get(), 0);
  if (at_rendezvous) {
    Serve(std::move(tcp));
  } else {
    // Once more, without an offer.
    socket = server.AcceptAtRendezvous();
    offered.clear();
    const std::optional<std::string> message = ReceiveHelloMessage(socket.get(), &offered);
    ASSERT_TRUE(message.has_value());
    EXPECT_FALSE(Hello::FromClient(*message)->shm.has_value());
    EXPECT_THAT(offered, testing::IsEmpty());
    EXPECT_TRUE(SendWithFds(socket.get(), Hello().EncodeAsServer()));
    Serve(std::move(socket));
  }
  ExpectServedOver(at_rendezvous ? "tcp" : "unix", attack.reason);
}

INSTANTIATE_TEST_SUITE_P(Fault, HostileServersDescriptor, testing::ValuesIn(DescriptorCases()),
                         [](const auto& info) { return info.param.name(); });

TEST_F(HostileWelcomeTest, TooManyDescriptorsAtAUnixSocketEndTheAttempt) {
  NativeServer server(Way::kShm);
  StartCall(absl::StrCat("unix-abstract:", server.rendezvous_name()));
  const UniqueFd socket = server.AcceptAtRendezvous();
  ASSERT_TRUE(ReceiveHelloMessage(socket.get(), nullptr).has_value());
  Hello answer;
  answer.shm.emplace();
  const std::vector<int> fds(253, socket.get());
  EXPECT_TRUE(SendWithFds(socket.get(), answer.EncodeAsServer(), fds));
  EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
  const absl::Status status = EndOfCall();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("more descriptors"));
}

TEST_F(HostileWelcomeTest, DescriptorsWithEveryByteOfAHelloAreNotGathered) {
  NativeServer server(Way::kShm);
  StartCall(server.address());
  UniqueFd tcp = server.AcceptTcp();
  ASSERT_TRUE(NativeServer::AnswerHello(tcp.get(), server.Invite()));
  const UniqueFd socket = server.AcceptAtRendezvous();
  ASSERT_TRUE(ReceiveHelloMessage(socket.get(), nullptr).has_value());
  Hello answer;
  answer.shm.emplace();
  const std::string bytes = answer.EncodeAsServer();
  const UniqueFd memory = MakeMemfd(kSegmentBytes, RequiredSeals());
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (!SendWithFds(socket.get(), bytes.substr(i, 1), std::vector<int>(4, memory.get()))) break;
  }
  EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
  Serve(std::move(tcp));
  ExpectServedOver("tcp", "descriptors");
}

// ---- Hellos.

struct HelloAttack {
  std::string name;
  std::string bytes;   // the answer
  std::string reason;  // a part of what the client says of it
};

struct HelloCase {
  HelloAttack attack;
  bool at_rendezvous;
  std::string name() const { return absl::StrCat(attack.name, at_rendezvous ? "_rendezvous" : "_tcp"); }
};
void PrintTo(const HelloCase& hello_case, std::ostream* out) { *out << hello_case.name(); }

std::vector<HelloCase> HelloCases() {
  const auto with = [](const std::function<void(Hello&)>& change) {
    Hello hello;
    change(hello);
    return hello.EncodeAsServer();
  };
  std::string wrong_magic = Hello().EncodeAsServer();
  wrong_magic[6] = '2';
  std::string other_byte_order = Hello().EncodeAsServer();
  other_byte_order.replace(kMagic.size(), 4, U32(40u << 24));
  const std::vector<HelloAttack> attacks = {
      {"Version0", with([](Hello& hello) { hello.version = 0; }), "version 0"},
      {"Version2", with([](Hello& hello) { hello.version = 2; }), "version 2"},
      {"Refused", with([](Hello& hello) { hello.refused = "go away"; }), "go away"},
      {"NoWindow", with([](Hello& hello) { hello.window.reset(); }), "window"},
      {"WindowTooSmall", with([](Hello& hello) {
         hello.window = {16383, 1 << 20};
       }),
       "window"},
      {"WindowOf2To64Minus1", with([](Hello& hello) {
         hello.window = {~uint64_t{0}, ~uint64_t{0}};
       }),
       "window"},
      {"WrongMagic", wrong_magic, "does not speak shmrpc"},
      {"OtherByteOrder", other_byte_order, "does not speak shmrpc"},
      {"LengthOf4GiBAnnounced", absl::StrCat(kMagic, U32(0xffffffff)), "does not speak shmrpc"},
      {"MessageThatCannotBeRead", Hello::Encode("\xff\xff\xff\xff"), "cannot be read"},
      {"MessageThatIsNotUtf8", Hello::Encode(Proto().Number(1, 1).Bytes(2, "\xc3\x28").bytes()), "cannot be read"},
      {"Garbage", std::string(64, '\xa5'), "does not speak shmrpc"},
      {"Http1Response", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "HTTP/1"},
      {"Http2Settings", std::string("\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0", 15), "HTTP/2"},
      {"TlsAlert", std::string("\x15\x03\x01\x00\x02\x02\x46 and more", 16), "does not speak shmrpc"},
      {"Nothing", "", "closed the connection"},
      {"HalfAHello", Hello().EncodeAsServer().substr(0, 30), "closed the connection"},
  };
  std::vector<HelloCase> cases;
  for (const HelloAttack& attack : attacks) {
    cases.push_back({attack, false});
    cases.push_back({attack, true});
  }
  return cases;
}

class HostileServersHello : public HostileWelcomeTest, public testing::WithParamInterface<HelloCase> {};

TEST_P(HostileServersHello, EndsTheAttemptOrStaysOnTcp) {
  const HelloAttack& attack = GetParam().attack;
  NativeServer server(Way::kShm);
  StartCall(server.address());
  UniqueFd tcp = server.AcceptTcp();
  ASSERT_TRUE(!GetParam().at_rendezvous || NativeServer::AnswerHello(tcp.get(), server.Invite()));
  {
    const UniqueFd socket = GetParam().at_rendezvous ? server.AcceptAtRendezvous() : std::move(tcp);
    ASSERT_TRUE(ReceiveHelloMessage(socket.get(), nullptr).has_value());
    EXPECT_TRUE(SendWithFds(socket.get(), attack.bytes));
    shutdown(socket.get(), SHUT_WR);
    EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
  }
  if (GetParam().at_rendezvous) {
    Serve(std::move(tcp));
    ExpectServedOver("tcp", attack.reason);
    return;
  }
  const absl::Status status = EndOfCall();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(attack.reason));
}

INSTANTIATE_TEST_SUITE_P(Fault, HostileServersHello, testing::ValuesIn(HelloCases()),
                         [](const auto& info) { return info.param.name(); });

TEST_F(HostileWelcomeTest, AHelloOfAnotherHostStaysOnTcp) {
  NativeServer server(Way::kTcp);
  StartCall(server.address());
  UniqueFd tcp = server.AcceptTcp();
  Hello answer;
  answer.host_id = "another host's";
  ASSERT_TRUE(NativeServer::AnswerHello(tcp.get(), answer));
  Serve(std::move(tcp));
  ExpectServedOver("tcp", "peer on another host");
}

// Names that nobody listens at, that are no names, or that are too long for one.
TEST_F(HostileWelcomeTest, ARendezvousThatCannotBeReachedStaysOnTcp) {
  for (const std::string& name :
       {std::string(), absl::StrCat("nobody-listens-here-", getpid()), std::string(107, 'n'), std::string(108, 'n'),
        std::string(3000, 'n'), std::string(20, '\0'), std::string("/etc/passwd")}) {
    NativeServer server(Way::kTcp);
    StartCall(server.address());
    UniqueFd tcp = server.AcceptTcp();
    Hello answer;
    answer.rendezvous = {name, std::string(16, 't')};
    ASSERT_TRUE(NativeServer::AnswerHello(tcp.get(), answer));
    Serve(std::move(tcp));
    ExpectServedOver("tcp", "rendezvous");
  }
}

// A server elsewhere could name any socket of this host, where somebody might take what is said there for something
// else.
TEST_F(HostileWelcomeTest, NoSocketOfAnotherNameIsConnectedTo) {
  for (const std::string& suffix : {std::string(32, 'g'), std::string(31, 'a'), std::string(33, 'a')}) {
    const std::string name = absl::StrCat("shmrpc-", suffix);
    absl::StatusOr<std::vector<tcp::ListeningSocket>> named =
        tcp::ListenSockets(*Target::Parse(absl::StrCat("unix-abstract:", name)), 0600);
    ASSERT_TRUE(named.ok()) << named.status();
    NativeServer server(Way::kTcp);
    StartCall(server.address());
    UniqueFd tcp = server.AcceptTcp();
    Hello answer;
    answer.rendezvous = {name, std::string(16, 't')};
    ASSERT_TRUE(NativeServer::AnswerHello(tcp.get(), answer));
    Serve(std::move(tcp));
    ExpectServedOver("tcp", "rendezvous socket is not what servers of this library say");
    const absl::StatusOr<std::optional<UniqueFd>> come = tcp::AcceptSocket(named->front().fd());
    ASSERT_TRUE(come.ok()) << come.status();
    EXPECT_FALSE(come->has_value());
  }
}

TEST_F(HostileWelcomeTest, ATokenOfAnotherLengthLeadsNowhere) {
  for (const size_t bytes : {0, 15, 17, 4000}) {
    NativeServer server(Way::kShm);
    StartCall(server.address());
    UniqueFd tcp = server.AcceptTcp();
    Hello answer = server.Invite();
    answer.rendezvous->token = std::string(bytes, 't');
    if (bytes == 4000) answer.rendezvous->token.resize(3500);
    ASSERT_TRUE(NativeServer::AnswerHello(tcp.get(), answer));
    Serve(std::move(tcp));
    ExpectServedOver("tcp", "rendezvous");
  }
}

// A process at a port of this host that passes on the hellos of another server, so that this server's memory would be
// shared by clients that do not mean it.
TEST_F(HostileWelcomeTest, AServerThatPassesOnAnothersHelloKeepsTheCalls) {
  NativeServer relay(Way::kTcp);
  StartCall(relay.address());
  UniqueFd client = relay.AcceptTcp();
  const std::optional<std::string> hello = ReceiveHelloMessage(client.get(), nullptr);
  ASSERT_TRUE(hello.has_value());
  const UniqueFd server = ConnectTcpSocket(port());
  ASSERT_TRUE(SendWithFds(server.get(), Hello::Encode(*hello)));
  const std::optional<std::string> answer = ReceiveHelloMessage(server.get(), nullptr);
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(Hello::FromServer(*answer)->rendezvous.has_value());
  ASSERT_TRUE(SendWithFds(client.get(), Hello::Encode(*answer)));
  Serve(std::move(client));
  ExpectServedOver("tcp", "another TCP connection");
}

TEST_F(HostileWelcomeTest, AnotherServerAtTheRendezvousSharesNoMemory) {
  NativeServer server(Way::kShm);
  StartCall(server.address());
  UniqueFd tcp = server.AcceptTcp();
  ASSERT_TRUE(NativeServer::AnswerHello(tcp.get(), server.Invite()));
  UniqueFd socket = server.AcceptAtRendezvous();
  ASSERT_TRUE(ReceiveHelloMessage(socket.get(), nullptr).has_value());
  const NativeSegment own = NativeSegment::Own();
  Hello answer;
  answer.shm.emplace();
  answer.instance_id = std::string(16, 'o');
  EXPECT_TRUE(SendWithFds(socket.get(), answer.EncodeAsServer(), {own.fd()}));
  EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
  Serve(std::move(tcp));
  ExpectServedOver("tcp", "another server answers at the rendezvous socket");
}

TEST_F(HostileWelcomeTest, AReasonThatIsNotUtf8IsAReason) {
  NativeServer server(Way::kTcp);
  StartCall(server.address());
  UniqueFd tcp = server.AcceptTcp();
  Hello answer;
  answer.no_shm_reason = "because \xc3\x28";
  ASSERT_TRUE(NativeServer::AnswerHello(tcp.get(), answer));
  Serve(std::move(tcp));
  ExpectServedOver("tcp", "because");
}

// What says where the client is, and what it runs on, is for servers of this host. (Another one is in
// network_namespace_test.sh.)
TEST_F(HostileWelcomeTest, TheBootIdIsNotTold) {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot_id;
  std::getline(file, boot_id);
  ASSERT_EQ(boot_id.size(), 36u);
  NativeServer server(Way::kTcp);
  StartCall(server.address());
  UniqueFd tcp = server.AcceptTcp();
  const std::optional<std::string> hello = ReceiveHelloMessage(tcp.get(), nullptr);
  ASSERT_TRUE(hello.has_value());
  EXPECT_EQ(Hello::FromClient(*hello)->host_id, OwnHostId());
  EXPECT_EQ(hello->find(boot_id), std::string::npos);
  EXPECT_TRUE(SendWithFds(tcp.get(), Hello().EncodeAsServer()));
  Serve(std::move(tcp));
  EXPECT_TRUE(EndOfCall().ok());
}

TEST_F(HostileWelcomeTest, AHelloOneByteAtATimeLeadsToSharedMemory) {
  NativeServer server(Way::kShm);
  StartCall(server.address());
  UniqueFd tcp = server.AcceptTcp();
  ASSERT_TRUE(ReceiveHelloMessage(tcp.get(), nullptr).has_value());
  const std::string invitation = server.Invite().EncodeAsServer();
  for (const char byte : invitation) EXPECT_TRUE(SendWithFds(tcp.get(), absl::string_view(&byte, 1)));
  UniqueFd socket = server.AcceptAtRendezvous();
  std::vector<UniqueFd> fds;
  ASSERT_TRUE(ReceiveHelloMessage(socket.get(), &fds).has_value());
  NativeSegment own = NativeSegment::Own();
  Hello answer;
  answer.shm.emplace();
  const std::string bytes = answer.EncodeAsServer();
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_TRUE(SendWithFds(socket.get(), bytes.substr(i, 1), std::vector<int>(i == 0 ? 1 : 0, own.fd())));
  }
  ASSERT_EQ(fds.size(), 1u);
  Serve(
      std::make_unique<NativeConnection>(std::move(socket), std::move(own), NativeSegment::OfPeer(std::move(fds[0]))));
  const absl::Status status = EndOfCall();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(channel_->transport(), "shm");
}

TEST_F(HostileWelcomeTest, HalfAHelloThenSilenceEndsTheAttempt) {
  NativeServer server(Way::kTcp);
  StartCall(server.address(), absl::Milliseconds(300));
  const UniqueFd tcp = server.AcceptTcp();
  ASSERT_TRUE(ReceiveHelloMessage(tcp.get(), nullptr).has_value());
  EXPECT_TRUE(SendWithFds(tcp.get(), Hello().EncodeAsServer().substr(0, 30)));
  const absl::Status status = EndOfCall();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("did not answer the hello in time"));
}

TEST_F(HostileWelcomeTest, SilenceAtTheRendezvousStaysOnTcp) {
  NativeServer server(Way::kShm);
  StartCall(server.address(), absl::Milliseconds(300));
  UniqueFd tcp = server.AcceptTcp();
  ASSERT_TRUE(NativeServer::AnswerHello(tcp.get(), server.Invite()));
  const UniqueFd socket = server.AcceptAtRendezvous();
  EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
  Serve(std::move(tcp));
  ExpectServedOver("tcp", "did not answer the hello in time");
}

}  // namespace
}  // namespace shmrpc::fault
