#ifndef SHMRPC_TESTS_CODEGEN_PROTOC_H_
#define SHMRPC_TESTS_CODEGEN_PROTOC_H_

#include <filesystem>
#include <string>
#include <vector>

namespace shmrpc::codegen {

struct CommandResult {
  int exit_code;
  std::string output;  // stdout and stderr
};

// Runs a program with its arguments and waits for its end.
CommandResult RunCommand(const std::vector<std::string>& command);

// Runs protoc with the plugin for `protos`, names below `import_dir`; the output goes to `out_dir`.
CommandResult RunPlugin(const std::filesystem::path& import_dir, const std::vector<std::string>& protos,
                        const std::string& parameter, const std::filesystem::path& out_dir);

// A folder of the running test alone, removed with this object.
class TemporaryDir {
 public:
  TemporaryDir();
  ~TemporaryDir();
  TemporaryDir(const TemporaryDir&) = delete;
  TemporaryDir& operator=(const TemporaryDir&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The files below `dir`, as paths relative to it, sorted.
std::vector<std::string> FilesBelow(const std::filesystem::path& dir);

std::string ReadFile(const std::filesystem::path& path);
void WriteFile(const std::filesystem::path& path, const std::string& text);

}  // namespace shmrpc::codegen

#endif  // SHMRPC_TESTS_CODEGEN_PROTOC_H_
