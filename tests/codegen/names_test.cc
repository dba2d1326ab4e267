#include "codegen/names.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::codegen {
namespace {

using ::testing::ElementsAre;

TEST(NamesTest, OrdinaryNamesStay) { EXPECT_THAT(EscapeNames({"Get", "Put"}, {}), ElementsAre("Get", "Put")); }

TEST(NamesTest, KeywordsAndTakenNamesGetAnUnderscore) {
  EXPECT_THAT(EscapeNames({"class", "co_await", "Stub", "Class"}, {"Stub"}),
              ElementsAre("class_", "co_await_", "Stub_", "Class"));
}

TEST(NamesTest, EscapedNamesDifferFromAllOthers) {
  EXPECT_THAT(EscapeNames({"class", "class_", "class__"}, {}), ElementsAre("class___", "class_", "class__"));
  EXPECT_THAT(EscapeNames({"class_", "class"}, {}), ElementsAre("class_", "class__"));
  EXPECT_THAT(EscapeNames({"async", "async_"}, {"async", "async_"}), ElementsAre("async__", "async___"));
}

TEST(NamesTest, IncludeGuardsOfSimilarPathsDiffer) {
  EXPECT_EQ(IncludeGuard("a/b.h"), "SHMRPC_GENERATED_a_2fb_2eh_INCLUDED");
  EXPECT_NE(IncludeGuard("a-b.h"), IncludeGuard("a_b.h"));
  EXPECT_NE(IncludeGuard("a/b.h"), IncludeGuard("a_b.h"));
  EXPECT_NE(IncludeGuard("a_2fb.h"), IncludeGuard("a/b.h"));
}

}  // namespace
}  // namespace shmrpc::codegen
