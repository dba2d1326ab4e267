// Runs the conformance suite over every transport of transport_cases.cc.

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

}  // namespace
}  // namespace shmrpc::conformance

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  shmrpc::conformance::RaiseDescriptorLimit();
  return RUN_ALL_TESTS();
}
