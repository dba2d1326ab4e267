#include "tests/bench/targets.h"

#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace shmrpc::bench {
namespace {

using ::testing::HasSubstr;

OptionTexts Common() {
  OptionTexts common;
  common.rounds = 3;
  common.seconds = 0.25;
  return common;
}

const Target& Find(const std::string& what) {
  for (const Target& target : AllTargets()) {
    if (target.what == what) return target;
  }
  ADD_FAILURE() << "no target " << what;
  return AllTargets().front();
}

Measurement Round(const Figures& figures) { return {.figures = figures, .latencies = {}}; }

// The measurements of shm, floor-ring and grpc-unix in one round each, by their median in nanoseconds.
absl::StatusOr<std::vector<Verdict>> JudgeUnary(int64_t shm, int64_t ring, int64_t grpc) {
  const Target& target = Find("unary 64 B over shm");
  const auto specs = PlanTarget(target, Common());
  if (!specs.ok()) return specs.status();
  return Judge(target, *specs,
               {{Round({.p50_nanos = shm})}, {Round({.p50_nanos = ring})}, {Round({.p50_nanos = grpc})}});
}

TEST(AllTargetsTest, EachIsRunWithWhatItsChecksAreAbout) {
  for (const Target& target : AllTargets()) {
    SCOPED_TRACE(target.what);
    const auto specs = PlanTarget(target, Common());
    ASSERT_TRUE(specs.ok()) << specs.status();
    const std::vector<std::vector<Measurement>> rounds(specs->size(), {Round({.p50_nanos = 1, .calls_per_second = 1})});
    const auto verdicts = Judge(target, *specs, rounds);
    ASSERT_TRUE(verdicts.ok()) << verdicts.status();
    EXPECT_EQ(verdicts->size(), target.checks.size());
    EXPECT_FALSE(target.checks.empty());
    // Nothing is measured for nobody.
    std::set<std::string> asked;
    for (const Check& check : target.checks) {
      asked.insert(check.of.load + " " + check.of.peer);
      if (check.by) asked.insert(check.by->load + " " + check.by->peer);
    }
    for (const MeasurementSpec& spec : *specs) {
      EXPECT_TRUE(asked.count(spec.load->name + " " + spec.peer->name)) << spec.load->name << " " << spec.peer->name;
    }
  }
}

TEST(AllTargetsTest, AFurtherAimIsFurther) {
  for (const Target& target : AllTargets()) {
    for (const Check& check : target.checks) {
      if (!check.beyond) continue;
      EXPECT_TRUE(check.at_most ? *check.beyond < check.limit : *check.beyond > check.limit) << check.figure;
    }
  }
}

TEST(PlanTargetTest, TheCommandLineDecidesAboutRoundsAndLength) {
  const auto specs = PlanTarget(Find("unary 64 B over shm"), Common());
  ASSERT_TRUE(specs.ok()) << specs.status();
  ASSERT_EQ(specs->size(), 3);
  for (const MeasurementSpec& spec : *specs) EXPECT_EQ(spec.duration, absl::Milliseconds(250));
}

TEST(PlanTargetTest, AnArgumentThatIsNoneIsAnError) {
  EXPECT_EQ(PlanTarget({"a", "--cases=unary --flavour=sour", {}}, Common()).status().code(),
            absl::StatusCode::kInternal);
}

TEST(JudgeTest, UpperAndLowerLimits) {
  // At the limits.
  auto verdicts = JudgeUnary(1'500, 1'000, 90'000);
  ASSERT_TRUE(verdicts.ok()) << verdicts.status();
  EXPECT_DOUBLE_EQ((*verdicts)[0].measured, 1.5);
  EXPECT_DOUBLE_EQ((*verdicts)[1].measured, 60);
  for (const Verdict& verdict : *verdicts) {
    EXPECT_TRUE(verdict.reached);
    EXPECT_FALSE(verdict.beyond_reached);
  }
  // Just missed.
  verdicts = JudgeUnary(1'501, 1'000, 90'000);
  ASSERT_TRUE(verdicts.ok()) << verdicts.status();
  for (const Verdict& verdict : *verdicts) EXPECT_FALSE(verdict.reached);
  // Beyond.
  verdicts = JudgeUnary(900, 1'000, 90'000);
  ASSERT_TRUE(verdicts.ok()) << verdicts.status();
  for (const Verdict& verdict : *verdicts) EXPECT_TRUE(verdict.beyond_reached);
}

TEST(JudgeTest, RatiosAreOfTheSameRound) {
  const Target& target = Find("unary 64 B over shm, never spinning");
  const auto specs = PlanTarget(target, Common());
  ASSERT_TRUE(specs.ok()) << specs.status();
  // The machine was half as fast in the second round.
  const auto verdicts = Judge(target, *specs,
                              {{Round({.p50_nanos = 12}), Round({.p50_nanos = 24}), Round({.p50_nanos = 12})},
                               {Round({.p50_nanos = 10}), Round({.p50_nanos = 20}), Round({.p50_nanos = 10})}});
  ASSERT_TRUE(verdicts.ok()) << verdicts.status();
  EXPECT_DOUBLE_EQ(verdicts->front().measured, 1.2);
}

TEST(JudgeTest, WhatWasNotMeasuredIsNotReached) {
  const Target& target = Find("1,000 idle connections beside a busy one, 64 B, shm");
  const auto specs = PlanTarget(target, Common());
  ASSERT_TRUE(specs.ok()) << specs.status();
  const auto verdicts = Judge(target, *specs, {{Round({.p50_nanos = 1})}});
  ASSERT_TRUE(verdicts.ok()) << verdicts.status();
  for (const Verdict& verdict : *verdicts) EXPECT_FALSE(verdict.reached);
}

TEST(JudgeTest, AMissingPeerIsAnError) {
  const Target& target = Find("unary 64 B over shm");
  auto specs = PlanTarget(target, Common());
  ASSERT_TRUE(specs.ok()) << specs.status();
  specs->pop_back();
  EXPECT_EQ(Judge(target, *specs, {{Round({.p50_nanos = 1})}, {Round({.p50_nanos = 1})}}).status().code(),
            absl::StatusCode::kInternal);
}

TEST(ToJsonTest, TellsTargetFigureAndCommand) {
  const auto verdicts = JudgeUnary(2'000, 1'000, 240'000);
  ASSERT_TRUE(verdicts.ok()) << verdicts.status();
  const nlohmann::json json = nlohmann::json::parse(ToJson((*verdicts)[0], Common()));
  EXPECT_EQ(json["target"], "unary 64 B over shm");
  EXPECT_EQ(json["limit"], "<= 1.5");
  EXPECT_EQ(json["measured"], 2);
  EXPECT_EQ(json["reached"], false);
  EXPECT_EQ(json["beyond"], "<= 1");
  EXPECT_EQ(json["beyond_reached"], false);
  EXPECT_EQ(json["command"],
            "shmrpc_bench --cases=unary --payloads=64 --peers=shm,floor-ring,grpc-unix --rounds=3 --seconds=0.25");
  EXPECT_EQ(nlohmann::json::parse(ToJson((*verdicts)[1], Common()))["beyond_reached"], true);
}

TEST(ToMarkdownTest, HasALineForEachFigure) {
  const auto verdicts = JudgeUnary(2'000, 1'000, 240'000);
  ASSERT_TRUE(verdicts.ok()) << verdicts.status();
  const std::string text = ToMarkdown(*verdicts, Common());
  EXPECT_THAT(text, HasSubstr("| unary 64 B over shm | round trip, by that of floor-ring | <= 1.5, <= 1 | 2 | **no** | "
                              "`shmrpc_bench --cases=unary"));
  EXPECT_THAT(text, HasSubstr("|  | times as fast as grpc-unix | >= 60, >= 100 | 120 | yes, both |  |\n"));
}

}  // namespace
}  // namespace shmrpc::bench
