// The tests of faults that run over every transport, as the conformance suite does.

#include "fixture.h"
#include "gmock/gmock.h"

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  shmrpc::conformance::RaiseDescriptorLimit();
  return RUN_ALL_TESTS();
}
