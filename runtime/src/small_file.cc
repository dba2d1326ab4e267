#include "runtime/src/small_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace shmrpc::internal {

std::optional<std::string> ReadSmallFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  char text[8192];
  const ssize_t size = read(file, text, sizeof text);
  const int error = errno;
  close(file);
  errno = error;
  if (size < 0) return std::nullopt;
  return std::string(text, static_cast<size_t>(size));
}

}  // namespace shmrpc::internal
