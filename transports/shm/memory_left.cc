#include "transports/shm/memory_left.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/src/small_file.h"

namespace shmrpc::shm {
namespace {

using internal::ReadSmallFile;

// What the two versions call the same things.
struct Names {
  const char* limit;
  const char* usage;
  const char* inactive_file;
  const char* active_file;
};
constexpr Names kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
                             "total_active_file"};
constexpr Names kVersion2 = {"memory.max", "memory.current", "inactive_file", "active_file"};

// Version 1's "no limit" is a number of pages that no machine has.
constexpr uint64_t kNoLimit = uint64_t{1} << 60;

std::optional<uint64_t> ReadNumber(const std::string& path) {
  const std::optional<std::string> text = ReadSmallFile(path);
  uint64_t number = 0;
  if (!text.has_value() || !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &number)) return std::nullopt;
  return number;
}

// The page cache of files: a memfd's pages are not among them.
uint64_t Reclaimable(const std::string& group, const Names& names) {
  uint64_t sum = 0;
  for (const absl::string_view line :
       absl::StrSplit(ReadSmallFile(absl::StrCat(group, "/memory.stat")).value_or(""), '\n')) {
    const std::pair<absl::string_view, absl::string_view> entry = absl::StrSplit(line, absl::MaxSplits(' ', 1));
    uint64_t bytes = 0;
    if ((entry.first == names.inactive_file || entry.first == names.active_file) &&
        absl::SimpleAtoi(entry.second, &bytes)) {
      sum += bytes;
    }
  }
  return sum;
}

// Looks at `path` below `root` and at all groups above it.
void LookUpwards(const std::string& root, std::string path, const Names& names, std::optional<MemoryLeft>* least) {
  for (;;) {
    const std::string group = absl::StrCat(root, path);
    const std::optional<uint64_t> limit = ReadNumber(absl::StrCat(group, "/", names.limit));
    if (limit.has_value() && *limit < kNoLimit) {
      const uint64_t usage = ReadNumber(absl::StrCat(group, "/", names.usage)).value_or(0);
      const uint64_t used = usage - std::min(usage, Reclaimable(group, names));
      const uint64_t left = *limit - std::min(*limit, used);
      if (!least->has_value() || left < (*least)->bytes) *least = MemoryLeft{left, group};
    }
    if (path.empty()) return;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

}  // namespace

std::optional<MemoryLeft> GetMemoryLeft(const std::string& membership, const std::string& mount) {
  std::optional<MemoryLeft> least;
  // Lines of the form "7:memory:/path", and for version 2 "0::/path".
  for (const absl::string_view line : absl::StrSplit(ReadSmallFile(membership).value_or(""), '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    std::string path(fields[2]);
    if (path == "/") path.clear();
    if (fields[1] == "memory") LookUpwards(absl::StrCat(mount, "/memory"), std::move(path), kVersion1, &least);
    if (fields[0] == "0" && fields[1].empty()) LookUpwards(mount, std::move(path), kVersion2, &least);
  }
  return least;
}

absl::Status CheckMemoryLeft() {
  const std::optional<MemoryLeft> left = GetMemoryLeft();
  if (!left.has_value() || left->bytes >= kLeastMemoryLeft) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("memory cgroup ", left->group, " has ", left->bytes,
                                                   " bytes left, less than the ", kLeastMemoryLeft,
                                                   " that shared memory is made with: raise its limit"));
}

}  // namespace shmrpc::shm
