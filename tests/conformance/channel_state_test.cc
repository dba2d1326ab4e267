// What a channel says of its state.

#include <memory>
#include <string>

#include "fixture.h"

namespace shmrpc::conformance {
namespace {

bool WaitForReady(Channel& channel) {
  const absl::Time deadline = absl::Now() + kHangGuard;
  ChannelState state;
  while ((state = channel.GetState(/*try_to_connect=*/true)) != ChannelState::kReady) {
    if (!channel.WaitForStateChange(state, deadline)) return false;
  }
  return true;
}

TEST_P(ConformanceTest, ChannelStateFollowsTheServer) {
  StartServer();
  const std::string address = server_address();
  const auto channel = NewChannel();
  EXPECT_EQ(channel->GetState(false), ChannelState::kIdle);
  ExpectEcho(channel);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(channel->GetState(false), ChannelState::kReady);
    EXPECT_FALSE(channel->WaitForStateChange(ChannelState::kReady, absl::Now() + absl::Milliseconds(1)));

    // Nobody calls.
    server_ = nullptr;
    EXPECT_TRUE(channel->WaitForStateChange(ChannelState::kReady, absl::Now() + kHangGuard));
    EXPECT_EQ(channel->GetState(false), ChannelState::kIdle);

    // Nobody is there: attempts fail, and the back-offs end.
    bool failed = false;
    EXPECT_TRUE(Eventually([&] {
      failed |= channel->GetState(/*try_to_connect=*/true) == ChannelState::kTransientFailure;
      return failed;
    }));
    EXPECT_TRUE(Eventually([&] { return channel->GetState(false) == ChannelState::kIdle; }));

    StartServer(NewServerBuilder(), address);
    EXPECT_TRUE(WaitForReady(*channel));
    EXPECT_EQ(channel->transport(), GetParam().expected);
    ExpectEcho(channel);
  }
}

}  // namespace
}  // namespace shmrpc::conformance
