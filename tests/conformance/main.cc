// Runs the conformance suite over every transport of transport_cases.cc.

#include <sys/resource.h>

#include "stream_fixture.h"
#include "gtest/gtest.h"

namespace shmrpc::conformance {
namespace {

std::string CaseName(const testing::TestParamInfo<TransportCase>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Transport, ConformanceTest, testing::ValuesIn(TransportCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Transport, ConformanceStreamTest, testing::ValuesIn(TransportCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Transport, ConformanceProcessTest, testing::ValuesIn(TransportCasesAcrossProcesses()),
                         CaseName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ConformanceProcessTest);

// A test with a thousand channels in one process needs more descriptors than the usual 1024.
void RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace
}  // namespace shmrpc::conformance

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  shmrpc::conformance::RaiseDescriptorLimit();
  return RUN_ALL_TESTS();
}
