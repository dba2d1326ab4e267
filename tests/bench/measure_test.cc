#include "tests/bench/measure.h"

#include <functional>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::bench {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

MeasurementSpec Spec(Pin pin, std::vector<int> cpus, const char* peer = "floor-unix") {
  return {.load = FindCase("unary"),
          .peer = FindPeer(peer),
          .wait_mode = "-",
          .payload_bytes = 64,
          .pin = pin,
          .cpus = std::move(cpus),
          .duration = absl::Milliseconds(1)};
}

TEST(DivideCpusTest, ApartMeansOneEach) {
  const CpuSets sets = DivideCpus(Spec(Pin::kApart, {4, 6, 8}));
  EXPECT_THAT(sets.clients, ElementsAre(4));
  EXPECT_THAT(sets.server, ElementsAre(6));
}

TEST(DivideCpusTest, SharedAndSingleMeanOneForAll) {
  for (const Pin pin : {Pin::kShared, Pin::kSingle}) {
    const CpuSets sets = DivideCpus(Spec(pin, {4, 6}));
    EXPECT_THAT(sets.clients, ElementsAre(4));
    EXPECT_THAT(sets.server, ElementsAre(4));
  }
}

TEST(DivideCpusTest, NoneMeansAllForAll) {
  const CpuSets sets = DivideCpus(Spec(Pin::kNone, {4, 6, 8}));
  EXPECT_THAT(sets.clients, ElementsAre(4, 6, 8));
  EXPECT_THAT(sets.server, ElementsAre(4, 6, 8));
}

TEST(DivideCpusTest, OneProcessThatIsBothHasBothCpus) {
  EXPECT_THAT(DivideCpus(Spec(Pin::kApart, {4, 6, 8}, "inproc")).clients, ElementsAre(4, 6));
  EXPECT_THAT(DivideCpus(Spec(Pin::kShared, {4, 6, 8}, "inproc")).clients, ElementsAre(4));
}

TEST(DivideCpusTest, AnOnlyCpuIsShared) {
  const CpuSets sets = DivideCpus(Spec(Pin::kApart, {3}));
  EXPECT_THAT(sets.clients, ElementsAre(3));
  EXPECT_THAT(sets.server, ElementsAre(3));
}

TEST(MeasureInTurnsTest, AnErrorSaysWhatWasMeasured) {
  PeerInfo broken;
  broken.name = "broken";
  broken.make_server = [](const PeerSetup&) -> std::unique_ptr<ServerSide> {
    class Server final : public ServerSide {
      absl::StatusOr<std::string> Start() override { return absl::ResourceExhaustedError("no room"); }
      absl::Status Serve() override { return absl::OkStatus(); }
    };
    return std::make_unique<Server>();
  };
  MeasurementSpec spec = Spec(Pin::kNone, {0});
  spec.peer = &broken;
  const auto measurements = MeasureInTurns({spec}, 1);
  EXPECT_THAT(std::string(measurements.status().message()),
              AllOf(HasSubstr("broken (case unary, mode -, 64 bytes, pin none)"), HasSubstr("no room")));
}

}  // namespace
}  // namespace shmrpc::bench
