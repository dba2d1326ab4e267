// What a server holds for a client that has gone.

#include <memory>
#include <string>

#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "gtest/gtest.h"
#include "kill_figures.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"

namespace shmrpc::conformance {
namespace {

class SessionEndTest : public testing::TestWithParam<TransportPreference> {};

// It was kept until another client went, which may be never.
TEST_P(SessionEndTest, AConnectionThatEndsBeforeItsHandlersGoesWithTheLastOfThem) {
  for (int round = 0; round < 3; ++round) {
    EchoService service;
    const auto server = ServerBuilder().Listen("127.0.0.1:0").Register(&service).Start();
    ASSERT_TRUE(server.ok()) << server.status();
    const Holdings before = Holdings::Now();
    {
      ChannelOptions options;
      options.transport = GetParam();
      const auto channel = Channel::Create((*server)->addresses().front().ToString(), options);
      EchoRequest request;
      request.set_hold(true);
      request.set_hold_regardless(true);
      ClientContext context;
      EchoReply reply;
      Event ended;
      Echo::Stub(channel).async().Echo(&context, &request, &reply, [&](absl::Status) { ended.Set(); });
      ASSERT_TRUE(service.held().WaitFor(1));
      EXPECT_FALSE(Holdings::Now() == before);
      context.TryCancel();
      EXPECT_TRUE(ended.Wait());
    }
    service.Release();
    // With the first connection of all the process gets things that it keeps.
    if (round == 0) continue;
    EXPECT_TRUE(Eventually([&] { return Holdings::Now() == before; })) << Holdings::Now() << "; before " << before;
  }
}

INSTANTIATE_TEST_SUITE_P(Over, SessionEndTest, testing::Values(TransportPreference::kShm, TransportPreference::kTcp),
                         [](const testing::TestParamInfo<TransportPreference>& info) {
                           return std::string(TransportPreferenceName(info.param));
                         });

}  // namespace
}  // namespace shmrpc::conformance
