#include "codegen/parameters.h"

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::codegen {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void ExpectError(absl::string_view text, absl::string_view part) {
  const absl::Status status = ParseParameters(text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(std::string(part)), HasSubstr("mock=true|false")));
}

TEST(ParametersTest, NoneAreNeeded) {
  ASSERT_TRUE(ParseParameters("").ok());
  EXPECT_FALSE(ParseParameters("")->mock);
}

TEST(ParametersTest, Mock) {
  EXPECT_TRUE(ParseParameters("mock=true").value().mock);
  EXPECT_FALSE(ParseParameters("mock=false").value().mock);
}

TEST(ParametersTest, MistakesAreNamed) {
  ExpectError("mocks=true", "unknown parameter \"mocks\"");
  ExpectError("mock=true,other", "unknown parameter \"other\"");
  ExpectError("=true", "unknown parameter \"\"");
  ExpectError("mock", "parameter \"mock\" has the value \"\"");
  ExpectError("mock=1", "parameter \"mock\" has the value \"1\"");
  ExpectError("mock=true=true", "parameter \"mock\" has the value \"true=true\"");
  ExpectError("mock=true,mock=true", "parameter \"mock\" is given twice");
}

}  // namespace
}  // namespace shmrpc::codegen
