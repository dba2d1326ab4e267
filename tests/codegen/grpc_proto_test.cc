// Every .proto file that Debian's grpc-proto installs goes through the plugin; grpc_proto.cmake compiles the services.

#include <filesystem>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "google/protobuf/compiler/importer.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "tests/codegen/protoc.h"

namespace shmrpc::codegen {
namespace {

namespace fs = std::filesystem;

// The files that import what neither grpc-proto nor protobuf has; protoc cannot read them, with whatever plugin.
const char* const kWithMissingImports[] = {"grpc/service_config/service_config.proto",
                                           "grpc/tls/provider/meshca/experimental/config.proto"};

class ErrorCollector final : public google::protobuf::compiler::MultiFileErrorCollector {
 public:
  void AddError(const std::string& file, int line, int column, const std::string& message) override {
    absl::StrAppend(&text_, file, ":", line + 1, ": ", message, "\n");
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::vector<std::string> ProtoFiles() {
  std::vector<std::string> files;
  for (std::string& file : FilesBelow(SHMRPC_TEST_GRPC_PROTO_DIR)) {
    if (absl::EndsWith(file, ".proto")) files.push_back(std::move(file));
  }
  return files;
}

TEST(GrpcProtoTest, EveryFileGeneratesAndEveryServiceIsCompiled) {
  google::protobuf::compiler::DiskSourceTree source_tree;
  source_tree.MapPath("", SHMRPC_TEST_GRPC_PROTO_DIR);
  source_tree.MapPath("", SHMRPC_TEST_PROTOBUF_INCLUDE_DIR);
  const absl::flat_hash_set<std::string> compiled = absl::StrSplit(SHMRPC_TEST_GRPC_PROTO_SERVICES, ',');
  const std::vector<std::string> files = ProtoFiles();
  ASSERT_GE(files.size(), 20u);

  std::vector<std::string> with_services;
  std::vector<std::string> readable;
  for (const std::string& file : files) {
    ErrorCollector errors;
    google::protobuf::compiler::Importer importer(&source_tree, &errors);
    const google::protobuf::FileDescriptor* descriptor = importer.Import(file);
    if (descriptor == nullptr) {
      EXPECT_TRUE(absl::c_linear_search(kWithMissingImports, file)) << errors.text();
      continue;
    }
    readable.push_back(file);
    if (descriptor->service_count() > 0) with_services.push_back(file);
  }
  EXPECT_THAT(with_services, ::testing::UnorderedElementsAreArray(compiled));

  const TemporaryDir out;
  const CommandResult result = RunPlugin(SHMRPC_TEST_GRPC_PROTO_DIR, readable, "mock=true", out.path());
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(FilesBelow(out.path()).size(), 3 * readable.size());
}

}  // namespace
}  // namespace shmrpc::codegen
