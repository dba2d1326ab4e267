#include "runtime/src/peer_text.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::internal {
namespace {

using ::testing::EndsWith;
using ::testing::Le;
using ::testing::SizeIs;
using ::testing::StartsWith;

TEST(PeerTextTest, WhatIsShortIsRepeatedWhole) {
  EXPECT_EQ(PeerText(""), "");
  EXPECT_EQ(PeerText("/a.B/C"), "/a.B/C");
  EXPECT_EQ(PeerText("\xff\n\""), "\\xff\\n\\\"");
  const std::string longest(kMostPeerText, 'a');
  EXPECT_EQ(PeerText(longest), longest);
}

TEST(PeerTextTest, WhatIsLongIsCutAfterItWasEscaped) {
  for (const char c : {'a', '\xff'}) {
    for (const size_t size : {kMostPeerText / 4 + 1, kMostPeerText + 1, size_t{4096}, size_t{1} << 24}) {
      if (c == 'a' && size <= kMostPeerText) continue;
      const std::string text = PeerText(std::string(size, c));
      EXPECT_THAT(text, SizeIs(Le(kMostPeerText)));
      EXPECT_THAT(text, EndsWith("... (" + std::to_string(size) + " bytes)"));
      EXPECT_THAT(text, StartsWith(c == 'a' ? "aaaa" : "\\xff\\xff"));
    }
  }
}

}  // namespace
}  // namespace shmrpc::internal
