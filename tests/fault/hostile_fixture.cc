#include "hostile_fixture.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "process_state.h"
#include "transports/framed/unique_fd.h"
#include "transports/shm/fd_passing.h"

namespace shmrpc::fault {
namespace {

using conformance::EchoReply;
using conformance::EchoRequest;
using conformance::Eventually;
using conformance::kHangGuard;

ChannelOptions OptionsFor(TransportPreference way) {
  ChannelOptions options;
  options.transport = way;
  return options;
}

}  // namespace

Neighbour::Neighbour(const Target& address, TransportPreference way, bool held)
    : stub_(Channel::Create(address.ToString(), OptionsFor(way))) {
  EchoRequest request;
  request.set_hold(held);
  request.set_payload("held");
  stub_.async().Echo(&context_, &request, &reply_, [this](absl::Status status) {
    status_ = std::move(status);
    ended_.Set();
  });
}

Neighbour::~Neighbour() { EXPECT_TRUE(ended_.Wait()); }

void Neighbour::ExpectServed(int calls) {
  EchoRequest request;
  for (int i = 0; i < calls; ++i) {
    request.set_payload(absl::StrCat("neighbour ", i));
    ClientContext context;
    context.set_timeout(kHangGuard);
    EchoReply reply;
    const absl::Status status = stub_.Echo(&context, request, &reply);
    ASSERT_TRUE(status.ok()) << "an honest client's call failed: " << status;
    ASSERT_EQ(reply.payload(), request.payload());
  }
}

void Neighbour::ExpectHeldCallWasServed() {
  ASSERT_TRUE(ended_.Wait());
  EXPECT_TRUE(status_.ok()) << "an honest client's call was lost: " << status_;
  EXPECT_EQ(reply_.payload(), "held");
}

HostileTest::HostileTest()
    : streams_(conformance::MakeStreamService(conformance::ServerStyle::kSynchronous, &stream_counters_)) {
  unsetenv("SHMRPC_TRANSPORT");
}

void HostileTest::SetUp() {
  // What the process needs once, its timer's thread for instance, is there afterwards.
  for (int i = 0; i < 1; ++i) {
    StartServer();
    for (const Way way : {Way::kShm, Way::kTcp}) {
      const auto connection = ConnectNative(way, address());
      AnnounceMethods(*connection);
      ExpectEchoOver(*connection, 1);
    }
    Neighbour(address(), TransportPreference::kShm, /*held=*/false).ExpectServed();
    StopServer();
    shm::CloseReceived(framed::UniqueFd(eventfd(0, EFD_CLOEXEC)));
  }
  threads_before_ = conformance::CountThreads();
  StartServer();
  neighbours_.push_back(std::make_unique<Neighbour>(address(), TransportPreference::kShm));
  neighbours_.push_back(std::make_unique<Neighbour>(address(), TransportPreference::kTcp));
  ASSERT_TRUE(WaitForHeldCalls(0));
  ExpectNeighboursServed();
  holdings_before_ = CountSettled();
}

void HostileTest::TearDown() {
  if (server_ == nullptr) return;
  ExpectNeighboursServed();
  EXPECT_TRUE(Eventually([&] { return Count() == holdings_before_; }))
      << Count().descriptors << " descriptors, " << holdings_before_.descriptors << " before; " << Count().mappings
      << " mappings, " << holdings_before_.mappings << " before";
  service_.Release();
  for (const auto& neighbour : neighbours_) neighbour->ExpectHeldCallWasServed();
  neighbours_.clear();
  StopServer();
  EXPECT_TRUE(Eventually([&] { return conformance::CountThreads() <= threads_before_; }))
      << conformance::CountThreads() << " threads, " << threads_before_ << " before";
}

void HostileTest::StartServer() {
  static std::atomic<int> next{0};
  absl::StatusOr<std::unique_ptr<Server>> server =
      ServerBuilder()
          .Listen("127.0.0.1:0")
          .Listen(absl::StrCat("unix-abstract:hostile-test-", getpid(), "-", next++))
          .Register(&service_)
          .Register(streams_.get())
          .Start();
  if (!server.ok()) GTEST_FAIL() << server.status();
  server_ = *std::move(server);
}

void HostileTest::StopServer() {
  server_->Shutdown(absl::Now() + kHangGuard);
  server_ = nullptr;
}

void HostileTest::ExpectNeighboursServed(int calls) {
  for (const auto& neighbour : neighbours_) neighbour->ExpectServed(calls);
}

// Without eventfds: a thread of the library gets one when it first sleeps in a call, whoever's that is, and keeps it
// for as long as it lives.
HostileTest::Holdings HostileTest::Count() {
  Holdings holdings;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const std::string what = std::filesystem::read_symlink(entry, gone).string();
    if (!gone && !absl::StrContains(what, "[eventfd]")) ++holdings.descriptors;
  }
  holdings.mappings = conformance::CountMemfdMappings();
  return holdings;
}

HostileTest::Holdings HostileTest::CountSettled() {
  Holdings latest = Count();
  int alike = 0;
  EXPECT_TRUE(Eventually([&] {
    const Holdings now = Count();
    alike = now == latest ? alike + 1 : 0;
    latest = now;
    return alike == 10;
  }));
  return latest;
}

void AnnounceMethods(NativeConnection& connection) {
  uint16_t number = 0;
  for (const absl::string_view path : {kEchoMethod, kChatMethod, kCountMethod}) {
    EXPECT_TRUE(connection.Send({.type = kMethodFrame, .code = number++, .body = std::string(path)}));
  }
}

NativeFrame EchoRequestFrame(uint64_t call_id, const EchoRequest& request) {
  return {.type = kRequestFrame, .code = kEchoNumber, .call_id = call_id, .body = request.SerializeAsString()};
}

void ExpectEchoOver(NativeConnection& connection, uint64_t call_id) {
  EchoRequest request;
  request.set_payload("by hand");
  EXPECT_TRUE(connection.Send(EchoRequestFrame(call_id, request)));
  const NativeFrame response = connection.Expect(kResponseFrame, call_id);
  EXPECT_EQ(response.code, 0);
  EchoReply reply;
  EXPECT_TRUE(reply.ParseFromString(response.body));
  EXPECT_EQ(reply.payload(), request.payload());
}

}  // namespace shmrpc::fault
