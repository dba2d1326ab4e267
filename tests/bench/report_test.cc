#include "tests/bench/report.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace shmrpc::bench {
namespace {

MeasurementSpec Spec() {
  return {.load = FindCase("unary"), .peer = FindPeer("floor-ring"), .wait_mode = "-", .payload_bytes = 64};
}

Measurement Round(const Figures& figures) { return {.figures = figures, .latencies = {}}; }

TEST(SummarizeTest, TakesTheMedianOfEachFieldOverTheRounds) {
  const Row row = Summarize(Spec(),
                            {Round({.p50_nanos = 10, .p99_nanos = 90, .p999_nanos = 100, .calls = 5}),
                             Round({.p50_nanos = 30, .p99_nanos = 50, .p999_nanos = 300, .calls = 7}),
                             Round({.p50_nanos = 20, .p99_nanos = 70, .p999_nanos = 200, .calls = 6})},
                            {});
  EXPECT_EQ(row.peer, "floor-ring");
  EXPECT_EQ(row.p50_nanos, 20);
  EXPECT_EQ(row.p99_nanos, 70);
  EXPECT_EQ(row.p999_nanos, 200);
  EXPECT_EQ(row.calls, 6);
  EXPECT_FALSE(row.ratio_p50.has_value());
}

TEST(SummarizeTest, TheRatioIsOfTheSameRound) {
  const Row row =
      Summarize(Spec(),
                {Round({.p50_nanos = 10, .calls_per_second = 50}), Round({.p50_nanos = 20, .calls_per_second = 100}),
                 Round({.p50_nanos = 10, .calls_per_second = 30})},
                {Round({.p50_nanos = 30, .calls_per_second = 25}), Round({.p50_nanos = 60, .calls_per_second = 50}),
                 Round({.p50_nanos = 90, .calls_per_second = 1})});
  ASSERT_TRUE(row.ratio_p50.has_value());
  EXPECT_DOUBLE_EQ(*row.ratio_p50, 3);
  ASSERT_TRUE(row.ratio_calls.has_value());
  EXPECT_DOUBLE_EQ(*row.ratio_calls, 2);
}

TEST(SummarizeTest, WhatOneRoundHasNotMeasuredIsLeftOut) {
  const Figures measured{.allocations_per_call = 2};
  EXPECT_EQ(Summarize(Spec(), {Round(measured), Round(measured)}, {}).allocations_per_call, 2);
  const Row row = Summarize(Spec(), {Round(measured), Round(Figures())}, {});
  EXPECT_FALSE(row.allocations_per_call.has_value());
  EXPECT_FALSE(row.slowest_share.has_value());
  EXPECT_FALSE(row.idle_cpu_percent.has_value());
}

TEST(SummarizeTest, TheCostOfIdleConnectionsIsARatioOfTheSameRound) {
  const Row row =
      Summarize(Spec(),
                {Round({.p50_nanos = 10, .p50_alone_nanos = 10}), Round({.p50_nanos = 30, .p50_alone_nanos = 20}),
                 Round({.p50_nanos = 40, .p50_alone_nanos = 10})},
                {});
  ASSERT_TRUE(row.ratio_alone.has_value());
  EXPECT_DOUBLE_EQ(*row.ratio_alone, 1.5);
}

TEST(SummarizeTest, TheDistributionIsOfAllRounds) {
  // One slow call in ten thousand, in one of two rounds.
  Measurement first, second;
  for (int i = 0; i < 4'999; ++i) first.latencies.Add(100);
  for (int i = 0; i < 5'000; ++i) second.latencies.Add(100);
  first.latencies.Add(9'000);
  const Row row = Summarize(Spec(), {first, second}, {});
  EXPECT_EQ(row.p9999_nanos, 100);
  EXPECT_EQ(row.latencies.count(), 10'000);
  EXPECT_GT(row.latencies.Percentile(1), 8'900);
}

TEST(ToJsonTest, HasEveryField) {
  Row row{.load = "unary", .peer = "shm", .mode = "adaptive", .pin = "apart", .payload_bytes = 64};
  row.p50_nanos = 1000.4;
  row.cpu_micros_per_call = 2.34567;
  row.ratio_p50 = 60.12345;
  const nlohmann::json json = nlohmann::json::parse(ToJson(row));
  EXPECT_EQ(json["case"], "unary");
  EXPECT_EQ(json["peer"], "shm");
  EXPECT_EQ(json["mode"], "adaptive");
  EXPECT_EQ(json["p50_ns"], 1000);
  EXPECT_EQ(json["cpu_us_per_call"], 2.346);
  EXPECT_EQ(json["ratio_p50"], 60.123);
  row.ratio_p50 = 0.000123456;
  EXPECT_EQ(nlohmann::json::parse(ToJson(row))["ratio_p50"], 0.00012346);
  for (const char* field : {"payload", "concurrency", "p99_ns", "p999_ns", "p9999_ns", "calls"}) {
    EXPECT_TRUE(json[field].is_number_integer()) << field;
  }
  EXPECT_EQ(json["pin"], "apart");
  EXPECT_TRUE(json["calls_per_s"].is_number());
  row.ratio_p50.reset();
  const nlohmann::json without = nlohmann::json::parse(ToJson(row));
  for (const char* field : {"ratio_p50", "ratio_calls", "gb_per_s", "slowest_share", "allocations_per_call",
                            "memory_per_connection", "threads"}) {
    EXPECT_FALSE(without.contains(field)) << field;
  }
}

TEST(ToJsonTest, TheFieldsOfSomeCases) {
  Row row{.load = "clients", .peer = "shm", .concurrency = 8, .axis = "clients", .amount = 8};
  row.slowest_share = 0.912345;
  row.ratio_calls = 12.5;
  nlohmann::json json = nlohmann::json::parse(ToJson(row));
  EXPECT_EQ(json["clients"], 8);
  EXPECT_EQ(json["concurrency"], 8);
  EXPECT_EQ(json["slowest_share"], 0.912);
  EXPECT_EQ(json["ratio_calls"], 12.5);

  row = {.load = "bulk", .peer = "shm", .payload_bytes = 1'000'000, .one_way = true, .calls_per_second = 2'500};
  EXPECT_EQ(nlohmann::json::parse(ToJson(row))["gb_per_s"], 2.5);

  row = {.load = "idle", .peer = "shm", .axis = "connections", .amount = 1000};
  row.p50_alone_nanos = 1000;
  row.ratio_alone = 1.25;
  row.memory_per_connection = 20'000;
  row.idle_cpu_percent = 0.0;
  row.waking_micros = 81.5;
  row.waking_cpu_micros = 40.25;
  json = nlohmann::json::parse(ToJson(row));
  EXPECT_EQ(json["connections"], 1000);
  EXPECT_EQ(json["concurrency"], 1);
  EXPECT_EQ(json["ratio_alone"], 1.25);
  EXPECT_EQ(json["memory_per_connection"], 20'000);
  EXPECT_EQ(json["idle_cpu_percent"], 0);
  EXPECT_EQ(json["waking_us"], 81.5);
  EXPECT_EQ(json["waking_cpu_us"], 40.25);
}

TEST(ToTableTest, PutsPeersSideBySide) {
  const Row shm{.load = "unary",
                .peer = "shm",
                .mode = "adaptive",
                .payload_bytes = 64,
                .p50_nanos = 1000,
                .p99_nanos = 2500,
                .calls_per_second = 800e3,
                .cpu_micros_per_call = 2.5,
                .ratio_p50 = 70.0};
  Row grpc = shm;
  grpc.peer = "grpc-unix";
  grpc.mode = "-";
  grpc.p50_nanos = 70'000;
  grpc.p99_nanos = 123'456;
  grpc.calls_per_second = 12'300;
  grpc.cpu_micros_per_call = 75;
  grpc.ratio_p50 = 1;
  Row larger = shm;
  larger.payload_bytes = 4096;
  larger.p50_nanos = 12'340;
  EXPECT_EQ(ToTable({shm, grpc, larger}, "grpc-unix"),
            "unary: round trip in microseconds, median (99th percentile)\n"
            "                 shm   grpc-unix\n"
            "  64 B   1.00 (2.50)  70.0 (123)\n"
            "  4 KiB  12.3 (2.50)           -\n"
            "\n"
            "unary: thousand calls per second\n"
            "         shm  grpc-unix\n"
            "  64 B   800       12.3\n"
            "  4 KiB  800          -\n"
            "\n"
            "unary: microseconds of CPU time per call\n"
            "          shm  grpc-unix\n"
            "  64 B   2.50       75.0\n"
            "  4 KiB  2.50          -\n"
            "\n"
            "unary: times as fast as grpc-unix, by the median round trip\n"
            "          shm  grpc-unix\n"
            "  64 B   70.0       1.00\n"
            "  4 KiB  70.0          -\n");
}

TEST(ToTableTest, AOneWayStreamHasNoRoundTrips) {
  const Row row{.load = "bulk",
                .peer = "shm",
                .mode = "adaptive",
                .payload_bytes = 1 << 20,
                .throughput = true,
                .one_way = true,
                .calls_per_second = 4'000,
                .cpu_micros_per_call = 123,
                .ratio_p50 = 7.0,
                .ratio_calls = 5.0};
  EXPECT_EQ(ToTable({row}, "grpc-unix"),
            "bulk: gigabytes per second\n"
            "          shm\n"
            "  1 MiB  4.19\n"
            "\n"
            "bulk: thousand messages per second\n"
            "          shm\n"
            "  1 MiB  4.00\n"
            "\n"
            "bulk: microseconds of CPU time per message\n"
            "         shm\n"
            "  1 MiB  123\n"
            "\n"
            "bulk: times as fast as grpc-unix, by the calls per second\n"
            "          shm\n"
            "  1 MiB  5.00\n");
}

TEST(ToTableTest, TellsNumbersAndPlacementsApart) {
  const Row few{.load = "threads",
                .peer = "shm",
                .mode = "adaptive",
                .pin = "none",
                .payload_bytes = 64,
                .axis = "threads",
                .amount = 2};
  Row many = few;
  many.amount = 8;
  Row shared = few;
  shared.pin = "shared";
  EXPECT_THAT(ToTable({few, many, shared}, ""), ::testing::AllOf(::testing::HasSubstr("64 B, threads 2, none "),
                                                                 ::testing::HasSubstr("64 B, threads 8, none "),
                                                                 ::testing::HasSubstr("64 B, threads 2, shared ")));
}

TEST(ToTableTest, NamesModesWhereThereAreSeveral) {
  const Row adaptive{.load = "unary", .peer = "shm", .mode = "adaptive", .payload_bytes = 64};
  Row efficient = adaptive;
  efficient.mode = "efficient";
  EXPECT_THAT(ToTable({adaptive, efficient}, ""),
              ::testing::AllOf(::testing::HasSubstr("shm/adaptive"), ::testing::HasSubstr("shm/efficient")));
}

}  // namespace
}  // namespace shmrpc::bench
