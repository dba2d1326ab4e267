#include "tests/bench/measure.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/bench/allocations.h"
#include "tests/bench/process.h"

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

// A peer whose calls fail when the processes are not where they should be: the first call and all others each have
// their CPUs. A call crosses no process: its reply is the request.
struct ExpectedCpus {
  CpuSets first;
  CpuSets later;
};
const ExpectedCpus* expected_cpus = nullptr;

class PlacedServer final : public ServerSide {
 public:
  explicit PlacedServer(const PeerSetup& setup) {}
  absl::StatusOr<std::string> Start() override { return absl::StrCat(getpid()); }
  absl::Status Serve() override {
    while (true) pause();
  }
};

class PlacedClient final : public ClientSide {
 public:
  explicit PlacedClient(const PeerSetup& setup) : payload_(setup.payload_bytes, '\0') {}

  absl::Status Connect(const std::string& address) override {
    return absl::SimpleAtoi(address, &server_) ? absl::OkStatus() : absl::InternalError(address);
  }
  absl::Span<char> request(int slot) override { return absl::MakeSpan(&payload_[0], payload_.size()); }
  absl::string_view reply(int slot) const override { return payload_; }

  absl::Status Call(int slot) override {
    const CpuSets& expected = calls_++ == 0 ? expected_cpus->first : expected_cpus->later;
    const absl::Status status = Check("client", 0, expected.clients);
    return status.ok() ? Check("server", server_, expected.server) : status;
  }

 private:
  static absl::Status Check(absl::string_view who, pid_t pid, const std::vector<int>& expected) {
    cpu_set_t cpus;
    if (sched_getaffinity(pid, sizeof(cpus), &cpus) < 0) return absl::ErrnoToStatus(errno, "no affinity");
    std::vector<int> allowed;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &cpus)) allowed.push_back(cpu);
    }
    if (allowed == expected) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("the ", who, " has the CPUs ", absl::StrJoin(allowed, ","),
                                                      " instead of ", absl::StrJoin(expected, ",")));
  }

  std::string payload_;
  pid_t server_ = -1;
  int calls_ = 0;
};

TEST(MeasureTest, ProcessesAreBoundWhereAndWhenThePlacementSays) {
  const PeerInfo peer = DescribePeer<PlacedServer, PlacedClient>("placed");
  const std::vector<int> allowed = AllowedCpus();
  for (const Pin pin : {Pin::kApart, Pin::kShared, Pin::kSingle, Pin::kNone}) {
    SCOPED_TRACE(std::string(PinName(pin)));
    MeasurementSpec spec = Spec(pin, allowed);
    spec.peer = &peer;
    ExpectedCpus expected{.first = {.clients = allowed, .server = allowed}, .later = DivideCpus(spec)};
    if (pin == Pin::kSingle) expected.first = expected.later;
    expected_cpus = &expected;
    const absl::StatusOr<Measurement> measurement = Measure(spec);
    EXPECT_TRUE(measurement.ok()) << measurement.status();
  }
  expected_cpus = nullptr;
}

// Calls of which one takes as long as a whole measurement are not repeated for nothing but their allocations.
TEST(MeasureTest, AllocationsOfVeryLongCallsAreNotMeasured) {
  MeasurementSpec spec = Spec(Pin::kNone, AllowedCpus(), "floor-unix");
  const absl::StatusOr<Measurement> small = Measure(spec);
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_EQ(std::isnan(small->figures.allocations_per_call), !AllocationCounter::Available());
  spec.payload_bytes = size_t{64} << 20;
  const absl::StatusOr<Measurement> large = Measure(spec);
  ASSERT_TRUE(large.ok()) << large.status();
  EXPECT_TRUE(std::isnan(large->figures.allocations_per_call));
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
