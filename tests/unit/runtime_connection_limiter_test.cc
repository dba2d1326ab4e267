// Who counts, and who is refused.

#include "runtime/src/connection_limiter.h"

#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
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

Origin User(uid_t uid) { return {.user = uid}; }
Origin Address(const std::string& address) { return {.address = address}; }

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
  Limit({.max_connections = 2, .max_connections_per_user = 1000, .max_connections_per_address = 2});
  EXPECT_TRUE(Admit(Address("192.0.2.1")) && Admit(Address("192.0.2.1")));
  const Origin second = {.user = 1, .second = true};
  EXPECT_TRUE(Admit(second) && Admit(second));
  EXPECT_THAT(Refusal(second), HasSubstr("max_connections (2)"));
  EXPECT_THAT(Refusal(User(1)), HasSubstr("has 4 connections"));
  places_.clear();
  // A few of many: those that nobody has given up yet must not take all descriptors.
  Limit({.max_connections = 160, .max_connections_per_user = 1000});
  for (int i = 0; i < 160; ++i) ASSERT_TRUE(Admit(User(1)));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(Admit(second));
  EXPECT_THAT(Refusal(second), HasSubstr("max_connections (160)"));
}

TEST_F(ConnectionLimiterTest, NarrowerNetworksHaveSmallerShares) {
  Limit({.max_connections = 100, .max_connections_per_address = 8});
  const auto host = [](int home, int network) {
    const std::string site = "2001:db8::";
    return Origin{.address = absl::StrCat(site, home, ":", network, "/64"),
                  .wider = {absl::StrCat(site, home, "/56"), site + "/48"}};
  };
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(Admit(host(0, 0))) << i;
  EXPECT_THAT(Refusal(host(0, 0)), AllOf(HasSubstr("4 connections from 2001:db8::0:0/64,"),
                                         HasSubstr("max_connections_per_address (4 for this network, of 8)")));
  EXPECT_TRUE(Admit(host(0, 1)) && Admit(host(0, 2)));
  EXPECT_THAT(Refusal(host(0, 3)), AllOf(HasSubstr("6 connections from 2001:db8::0/56,"), HasSubstr("(6 for")));
  EXPECT_TRUE(Admit(host(1, 0)) && Admit(host(2, 0)));
  EXPECT_THAT(Refusal(host(3, 0)),
              AllOf(HasSubstr("8 connections from 2001:db8::/48,"), HasSubstr("max_connections_per_address (8)")));
  EXPECT_TRUE(Admit(Address("192.0.2.1")));
  places_.clear();
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(Admit(host(0, 0))) << i;
}

// A connection that gives way when it is asked to, or has begun a call by then.
struct Tenant final : ConnectionLimiter::Tenant {
  absl::optional<SteadyTime> IdleSince(SteadyTime) override { return idle_since; }
  void GiveWay() override {
    asked = true;
    if (gives_way) place = nullptr;
  }
  absl::optional<SteadyTime> idle_since;
  bool gives_way = true;
  bool asked = false;
  PlacePtr place;
};

TEST_F(ConnectionLimiterTest, WhenThereIsNoPlaceTheLongestIdleGivesWay) {
  Limit({.max_connections = 3, .max_connections_per_user = 2, .max_connections_per_address = 3});
  std::vector<std::shared_ptr<Tenant>> tenants;
  for (const Origin& origin : {User(1), User(1), Address("192.0.2.1")}) {
    tenants.push_back(std::make_shared<Tenant>());
    absl::StatusOr<PlacePtr> place = limiter_->Admit(origin);
    ASSERT_TRUE(place.ok());
    (*place)->SetTenant(tenants.back());
    tenants.back()->place = *std::move(place);
  }
  EXPECT_THAT(Refusal(User(2)), HasSubstr("max_connections (3)"));  // all have calls
  const SteadyTime now = SteadyTime::Now();
  tenants[0]->idle_since = now;  // a moment ago does not count
  tenants[1]->idle_since = now - absl::Seconds(20);
  tenants[2]->idle_since = now - absl::Seconds(30);
  const auto admits = [this](Origin origin) { return Admit(std::move(origin)); };  // it is not looked without pause
  // One of the same user's, though another is idle for longer.
  EXPECT_TRUE(conformance::Eventually([&] { return admits(User(1)); }));
  EXPECT_TRUE(tenants[1]->asked);
  EXPECT_FALSE(tenants[0]->asked || tenants[2]->asked);
  // Beyond the total anybody's.
  EXPECT_TRUE(conformance::Eventually([&] { return admits(User(2)); }));
  EXPECT_TRUE(tenants[2]->asked);
  // One that is needed again does not.
  tenants[0]->idle_since = now - absl::Seconds(20);
  tenants[0]->gives_way = false;
  EXPECT_TRUE(conformance::Eventually([&] {
    EXPECT_FALSE(admits(User(3)));
    return tenants[0]->asked;
  }));
  EXPECT_EQ(limiter_->connections(), 3);
}

TEST_F(ConnectionLimiterTest, MemoryIsTakenForEachAndRefusedWhenItIsFull) {
  Limit({.max_connections = 10, .max_memory_bytes = 1 << 20});
  EXPECT_TRUE(Admit(User(1)) && Admit(User(1)));
  EXPECT_EQ(limiter_->memory()->used(), 2 * kConnectionBytes);
  places_.clear();
  EXPECT_EQ(limiter_->memory()->used(), 0u);
  limiter_->memory()->Take(1 << 20);
  EXPECT_THAT(Refusal(User(1)),
              AllOf(HasSubstr("the option max_memory_bytes (1048576)"), HasSubstr("the option connection_limits")));
  limiter_->memory()->Return(1 << 20);
  EXPECT_TRUE(Admit(User(1)));
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
  // Three quarters of them, two for each connection, and two of these places for who moves on.
  for (int i = 0; i < 13; ++i) EXPECT_TRUE(Admit(User(1))) << i;
  EXPECT_THAT(Refusal(User(1)), HasSubstr("max_connections (13)"));
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
  EXPECT_THAT(message({.max_memory_bytes = 1000}), HasSubstr("max_memory_bytes is 1000"));
  EXPECT_THAT(message({.max_connection_idle = absl::Milliseconds(99)}), HasSubstr("max_connection_idle is 99ms"));
  const absl::Status status = ServerBuilder().SetConnectionLimits({.max_connections = 0}).Start().status();
  EXPECT_THAT(std::string(status.ToString()), HasSubstr("no service")) << "the first mistake is the one that is told";
}

}  // namespace
}  // namespace shmrpc::internal
