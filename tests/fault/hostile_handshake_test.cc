// Clients that break a rule before they are connected: at the TCP port, at the rendezvous, and at a Unix socket. The
// server closes, refuses, or goes on without shared memory, and says why.

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "captured_log.h"
#include "hostile_descriptors.h"
#include "hostile_fixture.h"

namespace shmrpc::fault {
namespace {

using conformance::Eventually;
using framed::UniqueFd;
using testing::HasSubstr;
using testing::StartsWith;

// Where a client says hello.
enum class Door { kTcp, kRendezvous, kUnix };

std::string DoorName(Door door) {
  switch (door) {
    case Door::kTcp:
      return "tcp";
    case Door::kRendezvous:
      return "rendezvous";
    case Door::kUnix:
      return "unix";
  }
  return "";
}

// A socket at one of the server's doors, before anything is said there.
struct AtTheDoor {
  Invitation invitation;  // to the rendezvous
  UniqueFd socket;
  Hello hello;  // what an honest client would say, with an offer where one may be made
  bool may_offer = false;
};

class HostileHandshakeTest : public HostileTest {
 protected:
  AtTheDoor GoTo(Door door) {
    AtTheDoor there;
    switch (door) {
      case Door::kTcp:
        there.socket = ConnectTcpSocket(port());
        return there;
      case Door::kRendezvous:
        there.invitation = AskForInvitation(port());
        there.hello = there.invitation.Acceptance();
        there.socket = ConnectAbstractSocket(there.invitation.hello.rendezvous->abstract_name);
        break;
      case Door::kUnix:
        there.socket = ConnectSocketTo(unix_address());
        break;
    }
    there.may_offer = true;
    there.hello.shm.emplace();
    return there;
  }

  // The connection that was to become shared memory and did not is closed at the rendezvous, and goes on at the Unix
  // socket.
  static void ExpectWithoutSharedMemory(Door door, UniqueFd socket) {
    if (door == Door::kRendezvous) {
      EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
      return;
    }
    NativeConnection connection(std::move(socket));
    AnnounceMethods(connection);
    ExpectEchoOver(connection, 1);
  }
};

// ---- Descriptors.

struct DescriptorCase {
  DescriptorAttack attack;
  Door door;
  std::string name() const { return absl::StrCat(attack.name, "_", DoorName(door)); }
};
void PrintTo(const DescriptorCase& descriptor_case, std::ostream* out) { *out << descriptor_case.name(); }

std::vector<DescriptorCase> DescriptorCases() {
  std::vector<DescriptorCase> cases;
  for (const DescriptorAttack& attack : DescriptorAttacks()) {
    cases.push_back({attack, Door::kRendezvous});
    cases.push_back({attack, Door::kUnix});
  }
  return cases;
}

class HostileClientsDescriptor : public HostileHandshakeTest, public testing::WithParamInterface<DescriptorCase> {};

TEST_P(HostileClientsDescriptor, IsRefusedAndClosed) {
  const Door door = GetParam().door;
  const DescriptorAttack& attack = GetParam().attack;
  AtTheDoor there = GoTo(door);
  there.hello.shm = attack.offer;
  const std::vector<UniqueFd> fds = attack.make();
  std::vector<UniqueFd> received;
  const std::optional<Hello> answer = ExchangeHellos(there.socket.get(), there.hello, Numbers(fds), &received);
  EXPECT_THAT(received, testing::IsEmpty());
  if (attack.too_many) {
    ASSERT_TRUE(answer.has_value());
    EXPECT_THAT(answer->refused, HasSubstr(attack.reason));
    EXPECT_TRUE(SocketSeesTheEnd(there.socket.get()));
    return;
  }
  ASSERT_TRUE(answer.has_value());
  EXPECT_FALSE(answer->shm.has_value());
  EXPECT_THAT(answer->no_shm_reason, HasSubstr(attack.reason));
  // Memory that is taken away must be nobody's loss.
  if (!fds.empty()) (void)!ftruncate(fds[0].get(), 0);
  ExpectWithoutSharedMemory(door, std::move(there.socket));
}

INSTANTIATE_TEST_SUITE_P(Fault, HostileClientsDescriptor, testing::ValuesIn(DescriptorCases()),
                         [](const auto& info) { return info.param.name(); });

TEST_F(HostileHandshakeTest, DescriptorsWithEveryByteOfAHelloAreNotGathered) {
  for (const Door door : {Door::kRendezvous, Door::kUnix}) {
    AtTheDoor there = GoTo(door);
    const UniqueFd memory = MakeMemfd(kSegmentBytes, RequiredSeals());
    const std::vector<int> four(4, memory.get());
    bool closed = false;
    const std::string hello = there.hello.EncodeAsClient();
    for (size_t i = 0; i < hello.size() && !closed; ++i)
      closed = !SendWithFds(there.socket.get(), hello.substr(i, 1), four);
    std::vector<UniqueFd> received;
    const std::optional<std::string> message =
        closed ? std::nullopt : ReceiveHelloMessage(there.socket.get(), &received);
    EXPECT_TRUE(!message.has_value() || !Hello::FromServer(*message)->refused.empty());
    EXPECT_THAT(received, testing::IsEmpty());
  }
}

// The kernel cuts off what does not fit the receiver's table of descriptors.
TEST_F(HostileHandshakeTest, DescriptorsThatDoNotAllArriveAreClosed) {
  for (const Door door : {Door::kRendezvous, Door::kUnix}) {
    AtTheDoor there = GoTo(door);
    std::vector<UniqueFd> memory;
    for (int i = 0; i < 3; ++i) memory.push_back(MakeMemfd(kSegmentBytes, RequiredSeals()));
    rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    // Room for one: the limit is on numbers, and this is the lowest that is free.
    UniqueFd lowest(dup(there.socket.get()));
    std::vector<UniqueFd> holes;  // numbers below the highest that is in use
    const int highest = std::max(lowest.get(), memory.back().get());
    while (lowest.get() < highest) {
      holes.push_back(std::move(lowest));
      lowest = UniqueFd(dup(there.socket.get()));
    }
    rlimit room_for_one = before;
    room_for_one.rlim_cur = static_cast<rlim_t>(lowest.get()) + 1;
    lowest.Reset();
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &room_for_one), 0);
    const std::string hello = there.hello.EncodeAsClient();
    EXPECT_TRUE(SendWithFds(there.socket.get(), hello, Numbers(memory)));
    holes.clear();
    ExpectNeighboursServed(1);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    // Whether it was cut off depends on who else opened something; refused it is in any case.
    std::vector<UniqueFd> received;
    const std::optional<std::string> message = ReceiveHelloMessage(there.socket.get(), &received);
    EXPECT_FALSE(message.has_value() && Hello::FromServer(*message)->shm.has_value());
  }
}

// ---- Hellos.

struct HelloAttack {
  std::string name;
  // Changes the hello of an honest client, or its bytes.
  std::function<void(Hello&)> change = [](Hello&) {};
  std::function<void(std::string&)> damage = [](std::string&) {};
  // What the server's refusal says; null: it closes without an answer.
  const char* refused = nullptr;
  // What the server's answer in another protocol begins with.
  std::string answer = {};
};

struct HelloCase {
  HelloAttack attack;
  Door door;
  std::string name() const { return absl::StrCat(attack.name, "_", DoorName(door)); }
};
void PrintTo(const HelloCase& hello_case, std::ostream* out) { *out << hello_case.name(); }

// A hello that is in order but for its length: with a field that nobody knows.
std::string MessageOf(size_t size) {
  const std::string message = Hello().ClientMessage();
  std::string padding(size - message.size(), 'u');
  while (Proto().Bytes(1000, padding).bytes().size() + message.size() > size) padding.pop_back();
  return message + Proto().Bytes(1000, padding).bytes();
}

std::vector<HelloCase> HelloCases() {
  const auto window = [](uint64_t call, uint64_t connection) {
    return [=](Hello& hello) { hello.window = {call, connection}; };
  };
  const auto version = [](uint64_t number) { return [number](Hello& hello) { hello.version = number; }; };
  const auto length = [](uint32_t announced) {
    return [announced](std::string& bytes) { bytes.replace(kMagic.size(), 4, U32(announced)); };
  };
  const auto message = [](const std::string& text) {
    return [text](std::string& bytes) { bytes = Hello::Encode(text); };
  };
  const auto instead = [](const std::string& text) { return [text](std::string& bytes) { bytes = text; }; };
  const auto nothing = [](Hello&) {};
  std::vector<HelloAttack> attacks = {
      {"Version0", version(0), {}, "version"},
      {"Version2", version(2), {}, "version"},
      {"Version2To64Minus1", version(~uint64_t{0}), {}, "version"},
      {"MessageOfNothing", nothing, message(""), "version"},
      {"MessageThatCannotBeRead", nothing, message("\xff\xff\xff\xff")},
      {"MessageThatIsNotUtf8", nothing, message(Proto().Number(1, 1).Bytes(2, "\xc3\x28").bytes())},
      {"MessageOf4097Bytes", nothing, message(MessageOf(4097))},
      {"LengthOf4097Announced", nothing, length(4097)},
      {"LengthOf4GiBAnnounced", nothing, length(0xffffffff)},
      // 40 bytes, said by a host that begins with the most significant one.
      {"OtherByteOrder", nothing, length(40u << 24)},
      {"NoWindow", [](Hello& hello) { hello.window.reset(); }, {}, "window"},
      {"WindowTooSmall", window(16383, 1 << 20), {}, "window"},
      {"WindowOfCallAboveConnection", window(1 << 20, 1 << 19), {}, "window"},
      {"WindowOf2To64Minus1", window(~uint64_t{0}, ~uint64_t{0}), {}, "window"},
      {"Garbage", nothing, instead(std::string(64, '\xa5'))},
      {"Http1Request", nothing, instead("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), nullptr, "HTTP/1.1 400 "},
      {"Http1PostOfMuch", nothing, instead("POST /x HTTP/1.1\r\n\r\n" + std::string(30'000, 'x')), nullptr,
       "HTTP/1.1 400 "},
      {"Http1Word", nothing, instead("GETAWAY FROM HERE")},
      {"Http2Preface", nothing, instead("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")},
      {"TlsClientHello", nothing,
       instead(std::string("\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03", 11) + std::string(250, 'r'))},
  };
  for (int i = 0; i < 8; ++i) {
    attacks.push_back({absl::StrCat("MagicWrongAt", i), nothing, [i](std::string& bytes) { bytes[i] ^= 0x55; }});
  }
  std::vector<HelloCase> cases;
  for (const HelloAttack& attack : attacks) {
    for (const Door door : {Door::kTcp, Door::kRendezvous, Door::kUnix}) cases.push_back({attack, door});
  }
  return cases;
}

class HostileClientsHello : public HostileHandshakeTest, public testing::WithParamInterface<HelloCase> {};

TEST_P(HostileClientsHello, IsSentAway) {
  AtTheDoor there = GoTo(GetParam().door);
  const HelloAttack& attack = GetParam().attack;
  attack.change(there.hello);
  std::string bytes = there.hello.EncodeAsClient();
  if (attack.damage) attack.damage(bytes);
  std::vector<UniqueFd> memory;
  if (there.may_offer) memory.push_back(MakeMemfd(kSegmentBytes, RequiredSeals()));
  EXPECT_TRUE(SendWithFds(there.socket.get(), bytes, Numbers(memory)));
  if (attack.refused != nullptr) {
    std::vector<UniqueFd> received;
    const std::optional<std::string> message = ReceiveHelloMessage(there.socket.get(), &received);
    ASSERT_TRUE(message.has_value());
    EXPECT_THAT(Hello::FromServer(*message)->refused, HasSubstr(attack.refused));
    EXPECT_THAT(received, testing::IsEmpty());
  }
  if (!attack.answer.empty() && GetParam().door != Door::kRendezvous) {
    std::string answer;
    bool ended = false;
    while (!ended) answer += ReceiveSome(there.socket.get(), 4096, nullptr, &ended);
    EXPECT_THAT(answer, StartsWith(attack.answer));
    EXPECT_THAT(answer, HasSubstr("shmrpc"));
    shutdown(there.socket.get(), SHUT_WR);
    return;
  }
  bool ended = false;
  EXPECT_EQ(ReceiveSome(there.socket.get(), 1, nullptr, &ended), "");
  EXPECT_TRUE(ended);
}

INSTANTIATE_TEST_SUITE_P(Fault, HostileClientsHello, testing::ValuesIn(HelloCases()),
                         [](const auto& info) { return info.param.name(); });

TEST_F(HostileHandshakeTest, AHelloOfAnotherHostStaysOnTcp) {
  for (const std::string& host_id : {std::string("another host's"), std::string()}) {
    UniqueFd socket = ConnectTcpSocket(port());
    Hello hello;
    hello.host_id = host_id;
    const std::optional<Hello> answer = ExchangeHellos(socket.get(), hello);
    ASSERT_TRUE(answer.has_value());
    EXPECT_FALSE(answer->rendezvous.has_value());
    NativeConnection connection(std::move(socket));
    AnnounceMethods(connection);
    ExpectEchoOver(connection, 1);
  }
}

TEST_F(HostileHandshakeTest, UnknownFieldsOfAHelloAreIgnored) {
  for (const Door door : {Door::kTcp, Door::kUnix}) {
    AtTheDoor there = GoTo(door);
    there.hello.shm.reset();
    const std::string message =
        Proto().Number(1000, 1).Bytes(1001, std::string(3000, 'u')).bytes() + there.hello.ClientMessage();
    EXPECT_TRUE(SendWithFds(there.socket.get(), Hello::Encode(message)));
    EXPECT_TRUE(ReceiveHelloMessage(there.socket.get(), nullptr).has_value());
    NativeConnection connection(std::move(there.socket));
    AnnounceMethods(connection);
    ExpectEchoOver(connection, 1);
  }
}

TEST_F(HostileHandshakeTest, AHelloOf4096BytesIsTaken) {
  const UniqueFd socket = ConnectTcpSocket(port());
  ASSERT_EQ(MessageOf(4096).size(), 4096u);
  EXPECT_TRUE(SendWithFds(socket.get(), Hello::Encode(MessageOf(4096))));
  const std::optional<std::string> message = ReceiveHelloMessage(socket.get(), nullptr);
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(Hello::FromServer(*message)->refused, "");
}

TEST_F(HostileHandshakeTest, AHelloOneByteAtATimeLeadsToSharedMemory) {
  for (const Door door : {Door::kRendezvous, Door::kUnix}) {
    AtTheDoor there = GoTo(door);
    NativeSegment own = NativeSegment::Own();
    const std::string hello = there.hello.EncodeAsClient();
    for (size_t i = 0; i < hello.size(); ++i) {
      const std::vector<int> fds(i == 0 ? 1 : 0, own.fd());
      EXPECT_TRUE(SendWithFds(there.socket.get(), hello.substr(i, 1), fds));
      std::this_thread::yield();
    }
    std::vector<UniqueFd> fds;
    ASSERT_TRUE(ReceiveHelloMessage(there.socket.get(), &fds).has_value());
    ASSERT_EQ(fds.size(), 1u);
    NativeConnection connection(std::move(there.socket), std::move(own), NativeSegment::OfPeer(std::move(fds[0])));
    AnnounceMethods(connection);
    ExpectEchoOver(connection, 1);
  }
}

// The server waits five seconds for a hello.
TEST_F(HostileHandshakeTest, HalfAHelloThenSilenceIsClosedWithItsDescriptor) {
  std::vector<AtTheDoor> doors;
  for (const Door door : {Door::kTcp, Door::kRendezvous, Door::kUnix}) {
    for (const size_t bytes : {0, 1, 11, 12, 13, 40}) {
      doors.push_back(GoTo(door));
      std::vector<UniqueFd> memory;
      if (doors.back().may_offer) memory.push_back(MakeMemfd(kSegmentBytes, RequiredSeals()));
      EXPECT_TRUE(SendWithFds(doors.back().socket.get(), doors.back().hello.EncodeAsClient().substr(0, bytes),
                              Numbers(memory)));
    }
  }
  ExpectNeighboursServed();
  for (const AtTheDoor& there : doors) EXPECT_TRUE(SocketSeesTheEnd(there.socket.get()));
}

TEST_F(HostileHandshakeTest, HalfAHelloThenTheEndIsClosedWithItsDescriptor) {
  for (const Door door : {Door::kTcp, Door::kRendezvous, Door::kUnix}) {
    for (size_t bytes = 1; bytes < 80; ++bytes) {
      const AtTheDoor there = GoTo(door);
      std::vector<UniqueFd> memory;
      if (there.may_offer) memory.push_back(MakeMemfd(kSegmentBytes, RequiredSeals()));
      const std::string hello = there.hello.EncodeAsClient();
      EXPECT_TRUE(SendWithFds(there.socket.get(), hello.substr(0, std::min(bytes, hello.size() - 1)), Numbers(memory)));
    }
  }
}

TEST_F(HostileHandshakeTest, OneLineOfLogForAStranger) {
  static constexpr char kLine[] = "it does not speak shmrpc";
  // At most one in a second: another test in this process may just have had one.
  EXPECT_TRUE(Eventually([&] {
    const CapturedLog log;
    for (int i = 0; i < 10; ++i) {
      const UniqueFd socket = ConnectTcpSocket(port());
      EXPECT_TRUE(SendWithFds(socket.get(), "GET / HTTP/1.1\r\n\r\n"));
      shutdown(socket.get(), SHUT_WR);
      EXPECT_TRUE(SocketSeesTheEnd(socket.get()));
    }
    const bool told = log.WaitFor(kLine, absl::Seconds(1));
    EXPECT_LE(log.lines().size(), 2u) << log.text();  // the second, if ten strangers take a second
    return told && log.text().find("\"GET / HTTP/1") != std::string::npos;
  }));
}

// ---- Tokens.

class HostileTokenTest : public HostileHandshakeTest {
 protected:
  // What the rendezvous says to one who was invited and says this there.
  std::string RefusalOf(
      const Invitation& invitation, const std::function<void(Hello&)>& change = [](Hello&) {}) {
    UniqueFd socket = ConnectAbstractSocket(invitation.hello.rendezvous->abstract_name);
    const NativeSegment own = NativeSegment::Own();
    Hello hello = invitation.Acceptance();
    hello.shm.emplace();
    change(hello);
    std::vector<UniqueFd> fds;
    const std::optional<Hello> answer = ExchangeHellos(socket.get(), hello, {own.fd()}, &fds);
    if (!answer.has_value()) return "closed";
    EXPECT_EQ(answer->shm.has_value(), answer->refused.empty());
    EXPECT_EQ(fds.size(), answer->refused.empty() ? 1u : 0u);
    EXPECT_TRUE(answer->refused.empty() || SocketSeesTheEnd(socket.get()));
    return answer->refused;
  }
};

TEST_F(HostileTokenTest, NoneAWrongOneAndOneOfAnotherLengthAreRefused) {
  const Invitation invitation = AskForInvitation(port());
  const std::string& right = invitation.hello.rendezvous->token;
  EXPECT_EQ(right.size(), 16u);
  std::string other = right;
  other.back() = static_cast<char>(other.back() ^ 1);
  for (const std::string& token :
       {std::string(), other, right.substr(0, 15), right + "x", std::string(16, '\0'), std::string(3900, 't')}) {
    EXPECT_THAT(RefusalOf(invitation, [&](Hello& hello) { hello.token = token; }), HasSubstr("token")) << token.size();
  }
  EXPECT_EQ(RefusalOf(invitation), "");
}

TEST_F(HostileTokenTest, OneThatWasUsedIsRefused) {
  const Invitation invitation = AskForInvitation(port());
  EXPECT_EQ(RefusalOf(invitation), "");
  EXPECT_THAT(RefusalOf(invitation), HasSubstr("token"));
}

// It lives for five seconds, whether or not another one is given out.
TEST_F(HostileTokenTest, OneThatIsOldIsRefused) {
  const Invitation invitation = AskForInvitation(port());
  const Invitation later = [&] {
    absl::SleepFor(absl::Milliseconds(5100));
    EXPECT_THAT(RefusalOf(invitation), HasSubstr("token"));
    return AskForInvitation(port());
  }();
  EXPECT_EQ(RefusalOf(later), "");
}

TEST_F(HostileTokenTest, OneOfAnotherConnectionIsRefused) {
  const UniqueFd other = ConnectTcpSocket(port());
  const Hello::Connection others = ConnectionOf(other.get());
  const std::function<void(Hello&)> changes[] = {
      [](Hello& hello) { hello.token_connection.reset(); },
      [](Hello& hello) { hello.token_connection.emplace(); },
      [&](Hello& hello) { hello.token_connection = others; },
      [&](Hello& hello) { hello.token_connection->client = others.client; },
      [](Hello& hello) { hello.token_connection->server.back() ^= 1; },
      [](Hello& hello) { hello.token_connection->client += 'x'; },
      [](Hello& hello) { std::swap(hello.token_connection->client, hello.token_connection->server); },
  };
  for (const auto& change : changes) {
    const Invitation invitation = AskForInvitation(port());
    EXPECT_THAT(RefusalOf(invitation, change), HasSubstr("another TCP connection"));
    EXPECT_THAT(RefusalOf(invitation), HasSubstr("used"));
  }
}

TEST_F(HostileTokenTest, OfManyThatComeAtOnceWithTheSameOneIsServed) {
  const Invitation invitation = AskForInvitation(port());
  std::atomic<int> served{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] {
      if (RefusalOf(invitation).empty()) ++served;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(served, 1);
}

}  // namespace
}  // namespace shmrpc::fault
