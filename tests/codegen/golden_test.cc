// Compares what the plugin writes with what it shall write. A folder golden/CASE is one case:
//   input/          the .proto files, all of which are given to protoc
//   parameter.txt   the plugin's parameter; may be left out
//   expected/       the output
// After an intended change of the output,
//   SHMRPC_UPDATE_GOLDENS=1 ctest -R codegen.Golden
// rewrites expected/; read the change before you commit it. A new case needs nothing but its input.

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/codegen/protoc.h"

namespace shmrpc::codegen {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<std::string> Cases() {
  std::vector<std::string> cases;
  for (const fs::directory_entry& entry : fs::directory_iterator(SHMRPC_TEST_GOLDEN_DIR)) {
    cases.push_back(entry.path().filename().string());
  }
  return cases;
}

class GoldenTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, OutputIsAsExpected) {
  const fs::path dir = fs::path(SHMRPC_TEST_GOLDEN_DIR) / GetParam();
  const fs::path expected_dir = dir / "expected";
  std::string parameter;
  if (fs::exists(dir / "parameter.txt")) {
    parameter = std::string(absl::StripAsciiWhitespace(ReadFile(dir / "parameter.txt")));
  }
  const TemporaryDir out;
  const CommandResult result = RunPlugin(dir / "input", FilesBelow(dir / "input"), parameter, out.path());
  ASSERT_EQ(result.exit_code, 0) << result.output;
  ASSERT_EQ(result.output, "");

  if (std::getenv("SHMRPC_UPDATE_GOLDENS") != nullptr) {
    fs::remove_all(expected_dir);
    fs::copy(out.path(), expected_dir, fs::copy_options::recursive);
    return;
  }
  const CommandResult difference = RunCommand({"diff", "-ruN", expected_dir.string(), out.path().string()});
  EXPECT_EQ(difference.exit_code, 0) << "The output is not as expected (-expected, +generated):\n"
                                     << difference.output
                                     << "If it is as intended, run this test with SHMRPC_UPDATE_GOLDENS=1.";
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest, ::testing::ValuesIn(Cases()),
                         [](const ::testing::TestParamInfo<std::string>& info) { return info.param; });

// protoc's own errors and the plugin's parameters, through protoc.
class PluginTest : public ::testing::Test {
 protected:
  CommandResult Run(const std::string& parameter) {
    return RunPlugin(fs::path(SHMRPC_TEST_GOLDEN_DIR) / "hello" / "input", {"hello.proto"}, parameter, out_.path());
  }

  const TemporaryDir out_;
};

TEST_F(PluginTest, RefusesUnknownParameter) {
  const CommandResult result = Run("moc=true");
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.output, AllOf(HasSubstr("unknown parameter \"moc\""), HasSubstr("mock=true|false")));
  EXPECT_TRUE(FilesBelow(out_.path()).empty());
}

TEST_F(PluginTest, RefusesMalformedValue) {
  const CommandResult result = Run("mock=yes");
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.output,
              AllOf(HasSubstr("parameter \"mock\" has the value \"yes\""), HasSubstr("mock=true|false")));
  EXPECT_TRUE(FilesBelow(out_.path()).empty());
}

TEST_F(PluginTest, MockFalseIsTheDefault) {
  ASSERT_EQ(Run("mock=false").exit_code, 0);
  EXPECT_THAT(FilesBelow(out_.path()), ::testing::ElementsAre("hello.shmrpc.pb.cc", "hello.shmrpc.pb.h"));
}

TEST_F(PluginTest, SaysHowToUseItWhenRunByHand) {
  const CommandResult version = RunCommand({SHMRPC_TEST_PLUGIN, "--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.output, ::testing::StartsWith("protoc-gen-shmrpc "));

  const CommandResult wrong = RunCommand({SHMRPC_TEST_PLUGIN, "hello.proto"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.output, HasSubstr("--shmrpc_out="));
}

}  // namespace
}  // namespace shmrpc::codegen
