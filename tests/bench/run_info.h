#ifndef SHMRPC_TESTS_BENCH_RUN_INFO_H_
#define SHMRPC_TESTS_BENCH_RUN_INFO_H_

#include <string>

namespace shmrpc::bench {

// Where figures come from, for those who read them later.
struct RunInfo {
  std::string command;
  std::string machine;  // processor, CPUs, memory, kernel
  std::string date;
  std::string commit;  // of the sources that the program was built from; "-dirty" at its end if they were changed
};

// Of this run.
RunInfo DescribeRun(int argc, char** argv);

}  // namespace shmrpc::bench

#endif  // SHMRPC_TESTS_BENCH_RUN_INFO_H_
