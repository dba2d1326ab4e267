#include "tests/bench/options.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::bench {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

OptionTexts Texts() {
  OptionTexts texts;
  texts.cases = {"unary", "pipelined"};
  texts.peers = {"shm", "grpc-unix"};
  texts.payloads = {"64", "4096"};
  texts.rounds = 3;
  texts.seconds = 0.25;
  return texts;
}

std::string ErrorOf(const OptionTexts& texts) {
  const absl::StatusOr<Options> options = ParseOptions(texts);
  EXPECT_FALSE(options.ok());
  return std::string(options.status().message());
}

std::vector<std::string> Contestants(const Contest& contest) {
  std::vector<std::string> names;
  for (const MeasurementSpec& spec : contest.contestants) names.push_back(spec.peer->name + "/" + spec.wait_mode);
  return names;
}

TEST(ParseOptionsTest, TakesWhatIsRight) {
  const absl::StatusOr<Options> options = ParseOptions(Texts());
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_THAT(options->payloads, ElementsAre(64, 4096));
  EXPECT_THAT(options->amounts.at(Axis::kConcurrency), ElementsAre(1, 64));
  EXPECT_THAT(options->pins, ElementsAre(std::nullopt));
  EXPECT_FALSE(options->cpus.empty());
  EXPECT_EQ(options->peers.size(), 2);
  EXPECT_EQ(options->rounds, 3);
  EXPECT_EQ(options->duration, absl::Milliseconds(250));
  EXPECT_EQ(options->against, nullptr);
}

TEST(ParseOptionsTest, UnknownNamesAreAnsweredWithTheChoices) {
  OptionTexts texts = Texts();
  texts.cases = {"unray"};
  EXPECT_THAT(ErrorOf(texts), AllOf(HasSubstr("--cases"), HasSubstr("\"unray\""), HasSubstr("unary, pipelined")));
  texts = Texts();
  texts.peers = {"shm", "pigeon"};
  EXPECT_THAT(ErrorOf(texts), AllOf(HasSubstr("--peers"), HasSubstr("\"pigeon\""),
                                    HasSubstr("shm, tcp, unix, inproc, grpc-unix, grpc-tcp, floor-ring, "
                                              "floor-pool, floor-cacheline, floor-memcpy, floor-unix, floor-tcp")));
  texts = Texts();
  texts.modes = {"eager"};
  EXPECT_THAT(ErrorOf(texts), AllOf(HasSubstr("--modes"), HasSubstr("\"eager\""), HasSubstr("efficient")));
  texts = Texts();
  texts.pin = {"together"};
  EXPECT_THAT(ErrorOf(texts), AllOf(HasSubstr("--pin"), HasSubstr("\"together\""), HasSubstr("apart, shared")));
  texts = Texts();
  texts.cpus = {"100000"};
  EXPECT_THAT(ErrorOf(texts), AllOf(HasSubstr("--cpus"), HasSubstr("\"100000\""), HasSubstr("these are: ")));
  texts = Texts();
  texts.against = "pigeon";
  EXPECT_THAT(ErrorOf(texts), AllOf(HasSubstr("--against"), HasSubstr("\"pigeon\""), HasSubstr("floor-ring")));
}

TEST(ParseOptionsTest, NumbersOutOfRangeAreRefused) {
  OptionTexts texts = Texts();
  texts.payloads = {"7"};
  EXPECT_THAT(ErrorOf(texts), AllOf(HasSubstr("--payloads"), HasSubstr("\"7\""), HasSubstr("from 8")));
  texts.payloads = {"4k"};
  EXPECT_THAT(ErrorOf(texts), HasSubstr("\"4k\""));
  texts = Texts();
  texts.concurrency = {"0"};
  EXPECT_THAT(ErrorOf(texts), HasSubstr("--concurrency"));
  texts = Texts();
  texts.clients = {"8", "0"};
  EXPECT_THAT(ErrorOf(texts), AllOf(HasSubstr("--clients"), HasSubstr("\"0\"")));
  texts = Texts();
  texts.sleep_ms = -1;
  EXPECT_THAT(ErrorOf(texts), AllOf(HasSubstr("--sleep_ms"), HasSubstr("-1")));
  texts = Texts();
  texts.rounds = 0;
  EXPECT_THAT(ErrorOf(texts), HasSubstr("--rounds"));
  texts = Texts();
  texts.seconds = 0;
  EXPECT_THAT(ErrorOf(texts), HasSubstr("--seconds"));
  texts = Texts();
  texts.peers = {};
  EXPECT_THAT(ErrorOf(texts), HasSubstr("--peers"));
}

TEST(ParseOptionsTest, PipeliningNeedsMoreThanOneCallInFlight) {
  OptionTexts texts = Texts();
  texts.concurrency = {"1"};
  EXPECT_THAT(ErrorOf(texts), HasSubstr("--concurrency"));
  texts.cases = {"unary"};
  EXPECT_TRUE(ParseOptions(texts).ok());
}

TEST(PlanContestsTest, UnaryHasOneCallInFlightAndPipelinedTheOtherNumbers) {
  const absl::StatusOr<Options> options = ParseOptions(Texts());
  ASSERT_TRUE(options.ok()) << options.status();
  std::vector<std::string> notes;
  const std::vector<Contest> contests = PlanContests(*options, &notes);
  EXPECT_THAT(notes, IsEmpty());
  ASSERT_EQ(contests.size(), 4);
  EXPECT_EQ(contests[0].load->name, "unary");
  EXPECT_EQ(contests[0].amount, 1);
  EXPECT_EQ(contests[0].payload_bytes, 64);
  EXPECT_EQ(contests[1].payload_bytes, 4096);
  EXPECT_EQ(contests[2].load->name, "pipelined");
  EXPECT_EQ(contests[2].amount, 64);
  EXPECT_EQ(contests[0].against, -1);
}

TEST(PlanContestsTest, ModesAreForPeersThatHaveThem) {
  OptionTexts texts = Texts();
  texts.cases = {"unary"};
  texts.payloads = {"64"};
  texts.modes = {"adaptive", "efficient"};
  texts.against = "floor-unix";
  const absl::StatusOr<Options> options = ParseOptions(texts);
  ASSERT_TRUE(options.ok()) << options.status();
  std::vector<std::string> notes;
  const std::vector<Contest> contests = PlanContests(*options, &notes);
  ASSERT_EQ(contests.size(), 1);
  EXPECT_THAT(Contestants(contests[0]), ElementsAre("shm/adaptive", "shm/efficient", "grpc-unix/-", "floor-unix/-"));
  EXPECT_EQ(contests[0].against, 3);
}

TEST(PlanContestsTest, EachCaseTakesItsOwnNumbers) {
  OptionTexts texts = Texts();
  texts.cases = {"threads", "idle", "stream"};
  texts.payloads = {"64"};
  texts.threads = {"2", "4"};
  texts.connections = {"10"};
  const absl::StatusOr<Options> options = ParseOptions(texts);
  ASSERT_TRUE(options.ok()) << options.status();
  std::vector<std::string> notes;
  std::vector<std::string> contests;
  for (const Contest& contest : PlanContests(*options, &notes)) {
    contests.push_back(absl::StrCat(contest.load->name, " ", contest.amount, " ", PinName(contest.pin)));
  }
  EXPECT_THAT(contests, ElementsAre("threads 2 none", "threads 4 none", "idle 10 apart", "stream 1 apart"));
  EXPECT_THAT(notes, IsEmpty());
}

TEST(PlanContestsTest, EveryContestIsRunWithEachPlacement) {
  OptionTexts texts = Texts();
  texts.cases = {"unary"};
  texts.payloads = {"64"};
  texts.pin = {"apart", "shared", "single", "none"};
  const absl::StatusOr<Options> options = ParseOptions(texts);
  ASSERT_TRUE(options.ok()) << options.status();
  std::vector<std::string> notes;
  std::vector<Pin> pins;
  for (const Contest& contest : PlanContests(*options, &notes)) {
    pins.push_back(contest.pin);
    for (const MeasurementSpec& spec : contest.contestants) EXPECT_EQ(spec.pin, contest.pin);
  }
  EXPECT_THAT(pins, ElementsAre(Pin::kApart, Pin::kShared, Pin::kSingle, Pin::kNone));
}

TEST(PlanContestsTest, SaysWhichPeersAreLeftOutAndWhy) {
  OptionTexts texts = Texts();
  texts.peers = {"floor-cacheline", "grpc-tcp"};
  texts.against = "floor-cacheline";
  const absl::StatusOr<Options> options = ParseOptions(texts);
  ASSERT_TRUE(options.ok()) << options.status();
  std::vector<std::string> notes;
  const std::vector<Contest> contests = PlanContests(*options, &notes);
  EXPECT_THAT(notes, ElementsAre(AllOf(HasSubstr("floor-cacheline"), HasSubstr("4096 bytes")),
                                 AllOf(HasSubstr("floor-cacheline"), HasSubstr("pipelined"))));
  ASSERT_EQ(contests.size(), 4);
  EXPECT_EQ(contests[0].against, 0);
  EXPECT_THAT(Contestants(contests[1]), ElementsAre("grpc-tcp/-"));
  EXPECT_EQ(contests[1].against, -1);
}

}  // namespace
}  // namespace shmrpc::bench
