// Whom a policy lets in.

#include "runtime/src/access_check.h"

#include <unistd.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::internal {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uid_t kOwn = 1000;
constexpr uid_t kOther = 2000;
constexpr uint32_t kOverflow = 65534;

// A process that sees all users there are.
constexpr Viewpoint Whole(uid_t uid) { return {.uid = uid, .overflow_uid = {}, .overflow_gid = {}}; }
// One in a user namespace that does not have all of them.
constexpr Viewpoint Partial(uid_t uid) { return {.uid = uid, .overflow_uid = kOverflow, .overflow_gid = kOverflow}; }

PeerCredentials User(uid_t uid) { return {.uid = uid, .gid = uid}; }

TEST(AccessCheckTest, TheSameUserAndRootAreAlwaysLetIn) {
  for (const AccessPolicy& policy : {AccessPolicy::SameUser(), AccessPolicy::Users({7}), AccessPolicy::Groups({7})}) {
    for (const Viewpoint& own : {Whole(kOwn), Partial(kOwn)}) {
      EXPECT_TRUE(LetsIn(policy, User(kOwn), own));
      EXPECT_TRUE(LetsIn(policy, User(0), own));
      EXPECT_FALSE(LetsIn(policy, User(kOther), own));
    }
  }
  // Root does not trust everybody.
  EXPECT_FALSE(LetsIn(AccessPolicy::SameUser(), User(kOther), Whole(0)));
}

TEST(AccessCheckTest, WhoIsUnknownIsLetInOnlyIfAnybodyIs) {
  for (const Viewpoint& own : {Whole(kOwn), Partial(kOwn), Whole(0)}) {
    EXPECT_FALSE(LetsIn(AccessPolicy::SameUser(), std::nullopt, own));
    EXPECT_FALSE(LetsIn(AccessPolicy::Users({0, kOwn}), std::nullopt, own));
    EXPECT_FALSE(LetsIn(AccessPolicy::Groups({0}), std::nullopt, own));
    EXPECT_TRUE(LetsIn(AccessPolicy::AnyUser(), std::nullopt, own));
    EXPECT_TRUE(LetsIn(AccessPolicy::AnyUser(), User(kOther), own));
  }
}

TEST(AccessCheckTest, ListedUsersAreLetIn) {
  const AccessPolicy policy = AccessPolicy::Users({kOther, 3000});
  EXPECT_TRUE(LetsIn(policy, User(kOther), Whole(kOwn)));
  EXPECT_TRUE(LetsIn(policy, User(3000), Whole(kOwn)));
  EXPECT_FALSE(LetsIn(policy, User(3001), Whole(kOwn)));
  // A group of that number is something else.
  EXPECT_FALSE(LetsIn(policy, PeerCredentials{.uid = 3001, .gid = kOther, .groups = {3000}}, Whole(kOwn)));
}

TEST(AccessCheckTest, ListedGroupsAreLetInByGroupAndSupplementaryGroups) {
  const AccessPolicy policy = AccessPolicy::Groups({50, 60});
  EXPECT_TRUE(LetsIn(policy, PeerCredentials{.uid = kOther, .gid = 60}, Whole(kOwn)));
  EXPECT_TRUE(LetsIn(policy, PeerCredentials{.uid = kOther, .gid = 1, .groups = {2, 50}}, Whole(kOwn)));
  EXPECT_FALSE(LetsIn(policy, PeerCredentials{.uid = kOther, .gid = 1, .groups = {2, 51}}, Whole(kOwn)));
  EXPECT_FALSE(LetsIn(policy, PeerCredentials{.uid = 50, .gid = 1}, Whole(kOwn)));
  EXPECT_FALSE(LetsIn(policy, PeerCredentials{.uid = kOther}, Whole(kOwn))) << "over gRPC no group is known";
}

// Where all users exist, 65534 is the user "nobody", and one like the others.
TEST(AccessCheckTest, NobodyIsAUserWhereAllUsersExist) {
  EXPECT_TRUE(LetsIn(AccessPolicy::SameUser(), User(kOverflow), Whole(kOverflow)));
  EXPECT_TRUE(LetsIn(AccessPolicy::Users({kOverflow}), User(kOverflow), Whole(kOwn)));
  EXPECT_TRUE(LetsIn(AccessPolicy::Groups({kOverflow}), User(kOverflow), Whole(kOwn)));
  EXPECT_FALSE(LetsIn(AccessPolicy::SameUser(), User(kOverflow), Whole(kOwn)));
}

TEST(AccessCheckTest, TheOverflowIdIsNobodyInParticular) {
  EXPECT_FALSE(LetsIn(AccessPolicy::SameUser(), User(kOverflow), Partial(kOverflow)));
  EXPECT_FALSE(LetsIn(AccessPolicy::Users({kOverflow}), User(kOverflow), Partial(kOwn)));
  EXPECT_FALSE(LetsIn(AccessPolicy::Groups({kOverflow}), User(kOverflow), Partial(kOwn)));
  EXPECT_FALSE(LetsIn(AccessPolicy::Groups({kOverflow}),
                      PeerCredentials{.uid = kOther, .gid = 1, .groups = {kOverflow}}, Partial(kOwn)));
  EXPECT_TRUE(LetsIn(AccessPolicy::AnyUser(), User(kOverflow), Partial(kOwn)));
  // A group that exists says what it says, whoever the user is.
  EXPECT_TRUE(LetsIn(AccessPolicy::Groups({50}), PeerCredentials{.uid = kOverflow, .gid = 50}, Partial(kOwn)));
}

TEST(AccessCheckTest, ARefusalSaysWhoIsRefusedAndWhatToDo) {
  const std::string why_not =
      WhyNotLetIn(AccessPolicy::Users({7}), User(geteuid() + 1), "the client", "the server likes", "Options::friends");
  EXPECT_THAT(why_not, AllOf(HasSubstr("the client runs as another user (uid " + std::to_string(geteuid() + 1) + ")"),
                             HasSubstr("than those that the server likes"), HasSubstr("Options::friends"),
                             HasSubstr("(uid " + std::to_string(geteuid()) + ")")));
  EXPECT_EQ(WhyNotLetIn(AccessPolicy::SameUser(), User(geteuid()), "a", "b", "c"), "");
  EXPECT_THAT(DescribeUser(User(kOverflow), Partial(kOwn)), HasSubstr("other user namespaces"));
  EXPECT_EQ(DescribeUser(User(kOverflow), Whole(kOwn)), "uid 65534");
  EXPECT_EQ(DescribeUser(std::nullopt, Whole(kOwn)), "unknown to the kernel");
}

TEST(AccessCheckTest, TheViewpointIsThisProcesss) { EXPECT_EQ(Viewpoint::OfThisProcess().uid, geteuid()); }

}  // namespace
}  // namespace shmrpc::internal
