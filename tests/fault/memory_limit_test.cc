// A process at its limit of memory (RLIMIT_AS) when shared memory is to be agreed on: the connection stays with the
// socket, says why, and the next one gets shared memory when there is room again.

#include <memory>
#include <string>
#include <vector>

#include "address_space.h"
#include "child_process.h"
#include "conformance.shmrpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server_process.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"
#include "tests/sanitizers.h"

namespace shmrpc::conformance {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class MemoryLimitTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (SHMRPC_ASAN || SHMRPC_TSAN) GTEST_SKIP() << "the sanitizers map memory as they like";
    const std::string name = GetParam() == "tcp" ? "127.0.0.1:0" : "unix-abstract:memory-" + std::to_string(getpid());
    server_ = std::make_unique<ServerProcess>(SHMRPC_LIMITS_PEER, std::vector<std::string>{"server", name});
    // The threads that both sides need for a connection, and their stacks, are there from now on.
    for (const TransportPreference preference : {TransportPreference::kAuto, Socket()}) {
      for (int i = 0; i < 3; ++i) ASSERT_EQ(Call(*NewChannel(preference), ""), absl::OkStatus());
    }
  }

  TransportPreference Socket() const {
    return GetParam() == "tcp" ? TransportPreference::kTcp : TransportPreference::kUnix;
  }
  std::shared_ptr<Channel> NewChannel(TransportPreference preference = TransportPreference::kAuto) {
    ChannelOptions options;
    options.transport = preference;
    return Channel::Create(server_->address(), options);
  }
  static absl::Status Call(Channel& channel, const std::string& payload) {
    EchoRequest request;
    request.set_payload(payload);
    EchoReply reply;
    return UnaryCall(channel, "/shmrpc.conformance.Echo/Echo", nullptr, request, &reply);
  }

  std::unique_ptr<ServerProcess> server_;
};

INSTANTIATE_TEST_SUITE_P(Ways, MemoryLimitTest, testing::Values("tcp", "unix"),
                         [](const auto& info) { return info.param; });

TEST_P(MemoryLimitTest, AClientWithoutRoomForSharedMemoryStaysWithTheSocketAndSaysWhy) {
  ASSERT_EQ(tests::FreezeAddressSpace(), absl::OkStatus());
  const auto channel = NewChannel();
  const absl::Status status = Call(*channel, "");
  const std::string transport = channel->transport();
  const auto insisting = NewChannel(TransportPreference::kShm);
  const absl::Status refused = Call(*insisting, "");
  ASSERT_EQ(tests::ThawAddressSpace(), absl::OkStatus());
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_THAT(transport, AllOf(StartsWith(GetParam() + ": "), HasSubstr("mmap (ENOMEM)"), HasSubstr("RLIMIT_AS")));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("RLIMIT_AS"));

  const auto later = NewChannel();
  EXPECT_EQ(Call(*later, ""), absl::OkStatus());
  EXPECT_EQ(later->transport(), "shm");
}

TEST_P(MemoryLimitTest, AServerWithoutRoomForSharedMemoryTellsItsClientWhy) {
  const auto control = NewChannel(Socket());
  ASSERT_EQ(Call(*control, "tight"), absl::OkStatus());
  const auto channel = NewChannel();
  EXPECT_EQ(Call(*channel, ""), absl::OkStatus());
  EXPECT_THAT(channel->transport(),
              AllOf(StartsWith(GetParam() + ": "), HasSubstr("the server"), HasSubstr("mmap (ENOMEM)")));
  const auto insisting = NewChannel(TransportPreference::kShm);
  EXPECT_EQ(Call(*insisting, "").code(), absl::StatusCode::kUnavailable);
  ASSERT_EQ(Call(*control, "loose"), absl::OkStatus());
  const auto later = NewChannel();
  EXPECT_EQ(Call(*later, ""), absl::OkStatus());
  EXPECT_EQ(later->transport(), "shm");
}

}  // namespace
}  // namespace shmrpc::conformance

int main(int argc, char** argv) {
  shmrpc::tests::ReserveHeapAndStacks();
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
