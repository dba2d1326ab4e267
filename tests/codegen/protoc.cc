#include "tests/codegen/protoc.h"

#include <stdlib.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"

namespace shmrpc::codegen {

namespace fs = std::filesystem;

CommandResult RunCommand(const std::vector<std::string>& command) {
  std::string line;
  for (const std::string& argument : command) {
    absl::StrAppend(&line, "'", absl::StrReplaceAll(argument, {{"'", "'\\''"}}), "' ");
  }
  line += "2>&1";
  FILE* pipe = popen(line.c_str(), "r");
  if (pipe == nullptr) return {-1, absl::StrCat("cannot run ", line)};
  CommandResult result = {-1, ""};
  char buffer[4096];
  for (size_t size; (size = fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.output.append(buffer, size);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  return result;
}

CommandResult RunPlugin(const fs::path& import_dir, const std::vector<std::string>& protos,
                        const std::string& parameter, const fs::path& out_dir) {
  std::vector<std::string> command = {
      SHMRPC_TEST_PROTOC, absl::StrCat("--plugin=protoc-gen-shmrpc=", SHMRPC_TEST_PLUGIN),
      absl::StrCat("-I", import_dir.string()), absl::StrCat("--shmrpc_out=", out_dir.string())};
  if (!parameter.empty()) command.push_back(absl::StrCat("--shmrpc_opt=", parameter));
  command.insert(command.end(), protos.begin(), protos.end());
  return RunCommand(command);
}

TemporaryDir::TemporaryDir() {
  std::string name = absl::StrCat(::testing::TempDir(), "shmrpc_codegen_XXXXXX");
  if (mkdtemp(name.data()) == nullptr) {
    ADD_FAILURE() << "cannot make the folder " << name;
    return;
  }
  path_ = name;
}

TemporaryDir::~TemporaryDir() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

std::vector<std::string> FilesBelow(const fs::path& dir) {
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), dir).string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string ReadFile(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream) << "cannot read " << path;
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

void WriteFile(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream stream(path, std::ios::binary);
  stream << text;
  EXPECT_TRUE(stream) << "cannot write " << path;
}

}  // namespace shmrpc::codegen
