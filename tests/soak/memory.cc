#include "tests/soak/memory.h"

#include <malloc.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// GCC has the function, but not the header that declares it.
extern "C" size_t __sanitizer_get_current_allocated_bytes();
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

namespace shmrpc::soak {
namespace {

int CountEntries(const std::string& directory) {
  std::error_code error;
  int entries = 0;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    ++entries;
  }
  return entries;
}

bool IsSharedMemory(absl::string_view line) { return absl::StrContains(line, "/memfd:"); }

}  // namespace

absl::StatusOr<Holdings> HoldingsOf(pid_t pid) {
  const std::string process = absl::StrCat("/proc/", pid);
  std::ifstream status(process + "/status");
  if (!status) return absl::NotFoundError(absl::StrCat("there is no process ", pid));
  Holdings holdings;
  for (std::string line; std::getline(status, line);) {
    absl::string_view rest = line;
    int64_t* const bytes = absl::ConsumePrefix(&rest, "RssAnon:")    ? &holdings.private_bytes
                           : absl::ConsumePrefix(&rest, "RssShmem:") ? &holdings.shared_bytes
                                                                     : nullptr;
    int64_t kibibytes = 0;
    if (bytes != nullptr && absl::ConsumeSuffix(&rest, " kB") && absl::SimpleAtoi(rest, &kibibytes)) {
      *bytes = kibibytes * 1024;
    }
  }
  holdings.descriptors = CountEntries(process + "/fd");
  holdings.threads = CountEntries(process + "/task");
  std::ifstream maps(process + "/maps");
  for (std::string line; std::getline(maps, line);) {
    ++holdings.mappings;
    if (IsSharedMemory(line)) ++holdings.shared_mappings;
  }
  if (holdings.threads == 0 || holdings.mappings == 0) {
    return absl::NotFoundError(absl::StrCat("process ", pid, " is gone"));
  }
  return holdings;
}

std::string DescribeHoldings(pid_t pid) {
  std::map<std::string, int> kinds;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/fd"), error)) {
    std::string file = std::filesystem::read_symlink(entry.path(), error);
    if (error) continue;
    file = file.substr(0, file.find(":["));
    ++kinds[absl::StrCat("descriptor ", file)];
  }
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/task"), error)) {
    std::ifstream comm(entry.path() / "comm");
    std::string name;
    std::getline(comm, name);
    ++kinds[absl::StrCat("thread ", name)];
  }
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  for (std::string line; std::getline(maps, line);) {
    if (IsSharedMemory(line)) ++kinds["mapping " + line.substr(line.find("/memfd:"))];
  }
  std::string text;
  for (const auto& [kind, count] : kinds) absl::StrAppend(&text, text.empty() ? "" : ", ", count, " x ", kind);
  return text;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
const bool kUnderSanitizer = true;
int64_t HeapBytesInUse() { return static_cast<int64_t>(__sanitizer_get_current_allocated_bytes()); }
#else
const bool kUnderSanitizer = false;
int64_t HeapBytesInUse() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
}
#endif

void MakeAllocatorGiveBack() {
  mallopt(M_ARENA_MAX, 4);
  mallopt(M_MMAP_THRESHOLD, 256 * 1024);
  mallopt(M_TRIM_THRESHOLD, 256 * 1024);
}

void TrimHeap() { malloc_trim(0); }

bool HasLeaks() {
#if defined(__SANITIZE_ADDRESS__)
  return __lsan_do_recoverable_leak_check() != 0;
#else
  return false;
#endif
}

}  // namespace shmrpc::soak
