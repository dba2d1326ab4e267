#include "tests/bench/run_info.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench_commit.h"
#include "tests/bench/process.h"

namespace shmrpc::bench {
namespace {

std::string Machine() {
  std::string processor = "unknown processor";
  bool is_virtual = false;
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const std::pair<absl::string_view, absl::string_view> field = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (absl::StripAsciiWhitespace(field.first) == "model name") {
      processor = std::string(absl::StripAsciiWhitespace(field.second));
    }
    if (absl::StripAsciiWhitespace(field.first) == "flags") {
      is_virtual = absl::StrContains(absl::StrCat(field.second, " "), " hypervisor ");
    }
  }
  utsname system{};
  uname(&system);
  const int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  return absl::StrCat(processor, is_virtual ? ", virtual machine" : "", ", ", AllowedCpus().size(), " CPUs, ",
                      (memory + (int64_t{1} << 29)) >> 30, " GiB, ", system.sysname, " ", system.release);
}

std::string Command(int argc, char** argv) {
  absl::string_view program = argv[0];
  program.remove_prefix(program.rfind('/') == absl::string_view::npos ? 0 : program.rfind('/') + 1);
  std::string command(program);
  for (int i = 1; i < argc; ++i) absl::StrAppend(&command, " ", argv[i]);
  return command;
}

}  // namespace

RunInfo DescribeRun(int argc, char** argv) {
  return {.command = Command(argc, argv),
          .machine = Machine(),
          .date = absl::FormatTime("%Y-%m-%d %H:%M UTC", absl::Now(), absl::UTCTimeZone()),
          .commit = SHMRPC_BENCH_COMMIT};
}

}  // namespace shmrpc::bench
