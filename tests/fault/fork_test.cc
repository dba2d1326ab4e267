// Programs that fork, without exec. What the parent has is the parent's; the child is told so, and makes its own.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "child_process.h"
#include "conformance.shmrpc.pb.h"
#include "gtest/gtest.h"
#include "kill_addresses.h"
#include "kill_services.h"
#include "shmrpc/shmrpc.h"
#include "stream_services.h"
#include "sync.h"
#include "tests/sanitizers.h"

// ThreadSanitizer does not support the use of locks in a forked child of a process with threads.
#if !SHMRPC_TSAN

namespace shmrpc::conformance {
namespace {

std::shared_ptr<Channel> Connect(const Way& way) {
  ChannelOptions options;
  options.transport = way.transport;
  return Channel::Create(way.address, options);
}

absl::Status Call(const std::shared_ptr<Channel>& channel) {
  EchoRequest request;
  request.set_payload(std::string(PayloadOf(5000)));
  const absl::StatusOr<EchoReply> reply = Echo::Stub(channel).Echo(request);
  if (!reply.ok()) return reply.status();
  return reply->payload() == request.payload() ? absl::OkStatus() : absl::DataLossError("another reply");
}

// A stream that says something and hears the same.
struct Conversation {
  explicit Conversation(const std::shared_ptr<Channel>& channel) : chat(Streams::Stub(channel).Chat(&context)) {}

  bool GoesOn() {
    Item item;
    item.set_payload(std::string(PayloadOf(300)));
    Item received;
    return chat->Write(item) && chat->Read(&received) && received.payload() == item.payload();
  }

  ClientContext context;
  std::unique_ptr<ClientReaderWriter<Item, Item>> chat;
};

// Whether no other thread of this process runs, or is about to.
bool OthersSleep() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    if (entry.path().filename() == std::to_string(gettid())) continue;
    std::ifstream file(entry.path() / "stat");
    std::string stat;
    // "id (name) state ..."; a thread that has ended meanwhile has none.
    if (std::getline(file, stat) && stat.find(") S ") == std::string::npos) return false;
  }
  return true;
}

// A child that does not stay for ever.
pid_t Fork() {
  // AddressSanitizer's allocator, unlike the C library's, does not survive a fork() while another thread is inside.
  EXPECT_TRUE(!SHMRPC_ASAN || Eventually(OthersSleep));
  const pid_t child = fork();
  if (child == 0) alarm(30);
  return child;
}

// Fails the test unless `body`, in a child process, returns 0.
template <typename Body>
void ExpectInChild(const Body& body) {
  const pid_t child = Fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(body());
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "the child ended with signal " << WTERMSIG(status);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : 0, 0) << "the child's check of this number failed";
}

class ForkTest : public testing::Test {
 protected:
  ForkTest() : server_({SHMRPC_KILL_STORM_PEER, "server", addresses_.tcp(), addresses_.unix_socket()}) {
    EXPECT_EQ(server_.ReadLine().value_or(""), "ready");
  }
  ~ForkTest() override { EXPECT_EQ(server_.Stop(), 0); }

  const KillAddresses addresses_;
  ChildProcess server_;
};

TEST_F(ForkTest, StreamsThatAChildInheritsEndThereAndGoOnInTheParent) {
  for (const Way& way : addresses_.Ways()) {
    const std::shared_ptr<Channel> channel = Connect(way);
    Conversation read(channel);
    Conversation written(channel);
    Conversation cancelled(channel);
    Conversation destroyed(channel);
    for (Conversation* conversation : {&read, &written, &cancelled, &destroyed}) ASSERT_TRUE(conversation->GoesOn());
    ExpectInChild([&] {
      Item item;
      if (read.chat->Read(&item)) return 1;
      if (!absl::IsFailedPrecondition(read.chat->Finish())) return 2;
      if (written.chat->Write(item)) return 3;
      if (written.chat->WritesDone()) return 4;
      if (!absl::IsFailedPrecondition(written.chat->Finish())) return 5;
      cancelled.context.TryCancel();
      if (!absl::IsFailedPrecondition(cancelled.chat->Finish())) return 6;
      destroyed.chat.reset();
      return 0;
    });
    for (Conversation* conversation : {&read, &written, &cancelled, &destroyed}) {
      EXPECT_TRUE(conversation->GoesOn());
      conversation->chat->WritesDone();
      EXPECT_EQ(conversation->chat->Finish(), absl::OkStatus());
    }
  }
}

TEST_F(ForkTest, AnAsynchronousCallThatAChildCancelsGoesOnInTheParent) {
  for (const Way& way : addresses_.Ways()) {
    const std::shared_ptr<Channel> channel = Connect(way);
    ASSERT_EQ(Call(channel), absl::OkStatus());
    Streams::Stub stub(channel);
    ClientContext context;
    struct Reactor final : ClientBidiReactor<Item, Item> {
      void OnReadDone(bool ok) override {
        if (ok) read.Increment();
      }
      void OnDone(const absl::Status& status) override {
        result = status;
        done.Set();
      }
      Item item;
      Counter read;
      absl::Status result;
      Event done;
    } reactor;
    stub.async().Chat(&context, &reactor);
    reactor.AddHold();
    reactor.StartCall();
    ExpectInChild([&] {
      context.TryCancel();
      return reactor.done.IsSet() ? 1 : 0;
    });
    const Item item;
    reactor.StartRead(&reactor.item);
    reactor.StartWrite(&item);
    EXPECT_TRUE(reactor.read.WaitFor(1));
    reactor.StartWritesDone();
    reactor.RemoveHold();
    EXPECT_TRUE(reactor.done.Wait());
    EXPECT_EQ(reactor.result, absl::OkStatus());
  }
}

TEST_F(ForkTest, AChildAndItsChildMakeTheirOwnChannels) {
  for (const Way& way : addresses_.Ways()) {
    std::shared_ptr<Channel> channel = Connect(way);
    ASSERT_EQ(Call(channel), absl::OkStatus());
    Conversation conversation(channel);
    ASSERT_TRUE(conversation.GoesOn());
    ExpectInChild([&] {
      if (!absl::IsFailedPrecondition(Call(channel))) return 1;
      std::shared_ptr<Channel> own = Connect(way);
      if (!Call(own).ok()) return 2;
      if (own->transport() != channel->transport() && channel->transport().rfind("none", 0) != 0) return 3;
      channel.reset();
      Conversation chat(own);
      if (!chat.GoesOn()) return 4;
      const pid_t grandchild = Fork();
      if (grandchild == 0) {
        if (!absl::IsFailedPrecondition(Call(own))) _exit(11);
        _exit(Call(Connect(way)).ok() ? 0 : 12);
      }
      int status = -1;
      if (waitpid(grandchild, &status, 0) != grandchild || status != 0) return 5;
      return chat.GoesOn() && Call(own).ok() ? 0 : 6;
    });
    EXPECT_TRUE(conversation.GoesOn());
    EXPECT_EQ(Call(channel), absl::OkStatus());
  }
}

TEST_F(ForkTest, AServerThatAChildInheritsIsTheParents) {
  WholeEcho echo;
  auto server = ServerBuilder().Listen("127.0.0.1:0").Register(&echo).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string address = (*server)->addresses().front().ToString();
  for (const TransportPreference transport : {TransportPreference::kShm, TransportPreference::kTcp}) {
    const std::shared_ptr<Channel> channel = Connect({transport, address});
    ASSERT_EQ(Call(channel), absl::OkStatus());
    ExpectInChild([&] {
      // Its own server, and what it calls there is itself.
      WholeEcho own_echo;
      const auto own = ServerBuilder().Listen("127.0.0.1:0").Register(&own_echo).Start();
      if (!own.ok()) return 1;
      if (!Call(Connect({transport, (*own)->addresses().front().ToString()})).ok()) return 2;
      if (own_echo.calls().value() != 1) return 3;
      // The parent's is another process's.
      if (!Call(Connect({transport, address})).ok()) return 4;
      server->reset();
      return own_echo.calls().value() == 1 ? 0 : 5;
    });
    EXPECT_EQ(Call(channel), absl::OkStatus());
    EXPECT_EQ(Call(Connect({transport, address})), absl::OkStatus());
  }
}

// The child that a program has forked, by what it prints. Ends it.
class Orphan {
 public:
  explicit Orphan(ChildProcess& parent) {
    const absl::StatusOr<std::string> line = parent.ReadLine();
    EXPECT_TRUE(line.ok()) << line.status();
    absl::string_view text = line.ok() ? absl::string_view(*line) : "";
    EXPECT_TRUE(absl::ConsumePrefix(&text, "forked ") && absl::SimpleAtoi(text, &pid_)) << text;
  }
  ~Orphan() {
    if (!Lives()) ADD_FAILURE() << "the child has not outlived what it was to outlive";
    if (pid_ > 0) kill(pid_, SIGKILL);
  }
  bool Lives() const { return pid_ > 0 && kill(pid_, 0) == 0; }

 private:
  pid_t pid_ = -1;
};

TEST(ForkAndDieTest, AClientThatIsKilledIsMissedThoughItsChildLives) {
  const KillAddresses addresses;
  WholeEcho echo;
  StreamCounters counters;
  const auto streams = MakeStreamService(ServerStyle::kCallback, &counters);
  const auto server = ServerBuilder()
                          .Listen(addresses.tcp())
                          .Listen(addresses.unix_socket())
                          .Register(&echo)
                          .Register(streams.get())
                          .SetKeepaliveTimeout(absl::InfiniteDuration())
                          .Start();
  ASSERT_TRUE(server.ok()) << server.status();
  int clients = 0;
  for (const Way& way : addresses.Ways()) {
    ChildProcess client(
        {SHMRPC_KILL_STORM_PEER, "forking-client", std::string(TransportPreferenceName(way.transport)), way.address});
    const Orphan child(client);
    EXPECT_EQ(counters.ended.value(), clients);
    client.Kill();
    EXPECT_TRUE(counters.ended.WaitFor(++clients)) << "over " << TransportPreferenceName(way.transport);
  }
}

TEST(ForkAndDieTest, AServerThatIsKilledIsMissedAndReplacedThoughItsChildLives) {
  const KillAddresses addresses;
  for (const Way& way : addresses.Ways()) {
    ChildProcess server({SHMRPC_KILL_STORM_PEER, "forking-server", addresses.tcp(), addresses.unix_socket()});
    ASSERT_EQ(server.ReadLine().value_or(""), "ready");
    ChannelOptions options;
    options.transport = way.transport;
    options.keepalive_timeout = absl::InfiniteDuration();
    const auto channel = Channel::Create(way.address, options);
    Conversation conversation(channel);
    ASSERT_TRUE(conversation.GoesOn());
    const Orphan child(server);
    ASSERT_TRUE(conversation.GoesOn());
    server.Kill();
    Item item;
    EXPECT_FALSE(conversation.chat->Read(&item));
    EXPECT_TRUE(absl::IsUnavailable(conversation.chat->Finish()));
    ChildProcess next({SHMRPC_KILL_STORM_PEER, "server", addresses.tcp(), addresses.unix_socket()});
    EXPECT_EQ(next.ReadLine().value_or(""), "ready");
    EXPECT_EQ(Call(channel), absl::OkStatus());
    EXPECT_EQ(next.Stop(), 0);
  }
}

}  // namespace
}  // namespace shmrpc::conformance

#endif
