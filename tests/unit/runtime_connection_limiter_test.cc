// Who counts, and who is refused.

#include "runtime/src/connection_limiter.h"

#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/src/option_checks.h"
#include "shmrpc/server.h"
#include "tests/conformance/sync.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::internal {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Origin = ConnectionLimiter::Origin;
using PlacePtr = ConnectionLimiter::PlacePtr;

Origin User(uid_t uid) { return {.user = uid, .address = ""}; }
Origin Address(const std::string& address) { return {.user = {}, .address = address}; }

class ConnectionLimiterTest : public ::testing::Test {
 protected:
  void Limit(const ConnectionLimits& limits) { limiter_ = std::make_shared<ConnectionLimiter>(limits); }
  bool Admit(Origin origin) {
    absl::StatusOr<PlacePtr> place = limiter_->Admit(std::move(origin));
    if (place.ok()) places_.push_back(*std::move(place));
    return place.ok();
  }
  std::string Refusal(Origin origin) {
    const absl::Status status = limiter_->Admit(std::move(origin)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    return std::string(status.message());
  }

  std::shared_ptr<ConnectionLimiter> limiter_;
  std::vector<PlacePtr> places_;
};

TEST_F(ConnectionLimiterTest, CountsAllTogether) {
  Limit({.max_connections = 3, .max_connections_per_user = 3, .max_connections_per_address = 3});
  EXPECT_TRUE(Admit(User(1)) && Admit(Address("192.0.2.1")) && Admit(Origin()));
  EXPECT_THAT(Refusal(User(2)), AllOf(HasSubstr("has 3 connections"), HasSubstr("the option max_connections (3)"),
                                      HasSubstr("the option connection_limits")));
  EXPECT_EQ(limiter_->connections(), 3);
  places_.pop_back();
  EXPECT_EQ(limiter_->connections(), 2);
  EXPECT_TRUE(Admit(User(2)));
}

TEST_F(ConnectionLimiterTest, CountsWhatOthersCloseUntilTheyDo) {
  Limit({.max_connections = 2, .max_connections_per_user = 1, .max_connections_per_address = 2});
  std::vector<framed::UniqueFd> sockets;
  for (const Origin& origin : {User(1), Address("192.0.2.1")}) {
    sockets.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_TRUE(Admit(origin));
    places_.back()->KeepUntilClosed(sockets.back().get());
    places_.clear();
  }
  EXPECT_EQ(limiter_->connections(), 2);
  EXPECT_THAT(Refusal(User(2)), HasSubstr("max_connections (2)"));
  // Its number is given out again at once, but to another one.
  const int number = sockets[0].get();
  sockets[0].Reset(-1);
  sockets[0].Reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(sockets[0].get(), number);
  const auto admitted = [this] { return Admit(User(1)); };  // it is not looked up without pause
  EXPECT_TRUE(conformance::Eventually(admitted));
  EXPECT_THAT(Refusal(User(2)), HasSubstr("max_connections (2)"));
  places_.clear();
  EXPECT_TRUE(Admit(User(2)));
  EXPECT_EQ(limiter_->connections(), 2);
}

TEST_F(ConnectionLimiterTest, CountsEachUserAndEachAddress) {
  Limit({.max_connections = 100, .max_connections_per_user = 2, .max_connections_per_address = 1});
  EXPECT_TRUE(Admit(User(1)) && Admit(User(1)) && Admit(User(2)));
  EXPECT_THAT(Refusal(User(1)),
              AllOf(HasSubstr("2 connections of uid 1,"), HasSubstr("the option max_connections_per_user (2)")));
  EXPECT_TRUE(Admit(Address("192.0.2.1")) && Admit(Address("2001:db8::/64")));
  EXPECT_THAT(Refusal(Address("192.0.2.1")), AllOf(HasSubstr("1 connections from 192.0.2.1,"),
                                                   HasSubstr("the option max_connections_per_address (1)")));
  places_.clear();
  EXPECT_TRUE(Admit(User(1)) && Admit(User(1)) && Admit(Address("192.0.2.1")));
}

TEST_F(ConnectionLimiterTest, WhoMovesOnIsLetInBeyondTheTotalButNotWithoutEnd) {
  Limit({.max_connections = 2, .max_connections_per_user = 10, .max_connections_per_address = 2});
  EXPECT_TRUE(Admit(Address("127.0.0.1")) && Admit(Address("127.0.0.1")));
  const Origin second = {.user = 1, .address = "", .second = true};
  EXPECT_TRUE(Admit(second) && Admit(second));
  EXPECT_THAT(Refusal(second), HasSubstr("max_connections (2)"));
  EXPECT_THAT(Refusal(User(1)), HasSubstr("has 4 connections"));
}

TEST_F(ConnectionLimiterTest, BelowTheTotalOneUserOrAddressHasHalfByDefault) {
  Limit({.max_connections = 5});
  EXPECT_TRUE(Admit(User(1)) && Admit(User(1)) && Admit(User(1)));
  EXPECT_THAT(Refusal(User(1)), HasSubstr("max_connections_per_user (3)"));
  Limit({.max_connections = 1});
  EXPECT_TRUE(Admit(User(1)));
}

TEST_F(ConnectionLimiterTest, TheTotalFollowsTheDescriptorsByDefault) {
  rlimit old = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit few = {.rlim_cur = 40, .rlim_max = old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  Limit({.max_connections_per_user = 100});
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(Admit(User(1))) << i;
  EXPECT_THAT(Refusal(User(1)), HasSubstr("max_connections (30)"));
}

TEST_F(ConnectionLimiterTest, SharedMemoryIsCountedUntilThePlaceGoes) {
  Limit({.max_connections = 10, .max_shared_memory_bytes = 250});
  EXPECT_TRUE(Admit(User(1)) && Admit(User(2)) && Admit(User(3)));
  EXPECT_TRUE(places_[0]->TakeSharedMemory(100).ok());
  EXPECT_TRUE(places_[1]->TakeSharedMemory(150).ok());
  const absl::Status status = places_[2]->TakeSharedMemory(1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("250 bytes"), HasSubstr("the option max_shared_memory_bytes (250)")));
  places_.erase(places_.begin());
  EXPECT_TRUE(places_[1]->TakeSharedMemory(100).ok());
  EXPECT_FALSE(places_[1]->TakeSharedMemory(static_cast<size_t>(-1)).ok());
}

TEST(ConnectionLimitsTest, LimitsThatCannotBeAreNamed) {
  EXPECT_TRUE(CheckConnectionLimits({}).ok());
  const auto message = [](const ConnectionLimits& limits) {
    const absl::Status status = CheckConnectionLimits(limits);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message({.max_connections = 0}), HasSubstr("max_connections is 0"));
  EXPECT_THAT(message({.max_connections_per_user = -1}), HasSubstr("max_connections_per_user is -1"));
  EXPECT_THAT(message({.max_connections_per_address = 0}), HasSubstr("max_connections_per_address is 0"));
  EXPECT_THAT(message({.handshake_timeout = absl::ZeroDuration()}), HasSubstr("handshake_timeout is 0"));
  EXPECT_THAT(message({.max_calls_per_connection = 0}), HasSubstr("max_calls_per_connection is 0"));
  EXPECT_THAT(message({.hold_back_bytes = 10, .max_unsent_bytes = 9}),
              AllOf(HasSubstr("max_unsent_bytes is 9"), HasSubstr("hold_back_bytes, 10")));
  const absl::Status status = ServerBuilder().SetConnectionLimits({.max_connections = 0}).Start().status();
  EXPECT_THAT(std::string(status.ToString()), HasSubstr("no service")) << "the first mistake is the one that is told";
}

}  // namespace
}  // namespace shmrpc::internal
