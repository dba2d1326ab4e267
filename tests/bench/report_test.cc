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

TEST(SummarizeTest, TakesTheMedianOfEachFieldOverTheRounds) {
  const Row row = Summarize(Spec(),
                            {{.p50_nanos = 10, .p99_nanos = 90, .p999_nanos = 100, .calls = 5},
                             {.p50_nanos = 30, .p99_nanos = 50, .p999_nanos = 300, .calls = 7},
                             {.p50_nanos = 20, .p99_nanos = 70, .p999_nanos = 200, .calls = 6}},
                            {});
  EXPECT_EQ(row.peer, "floor-ring");
  EXPECT_EQ(row.p50_nanos, 20);
  EXPECT_EQ(row.p99_nanos, 70);
  EXPECT_EQ(row.p999_nanos, 200);
  EXPECT_EQ(row.calls, 6);
  EXPECT_FALSE(row.ratio_p50.has_value());
}

TEST(SummarizeTest, TheRatioIsOfTheSameRound) {
  const Row row = Summarize(Spec(), {{.p50_nanos = 10}, {.p50_nanos = 20}, {.p50_nanos = 10}},
                            {{.p50_nanos = 30}, {.p50_nanos = 60}, {.p50_nanos = 90}});
  ASSERT_TRUE(row.ratio_p50.has_value());
  EXPECT_DOUBLE_EQ(*row.ratio_p50, 3);
}

TEST(ToJsonTest, HasEveryField) {
  Row row{.load = "unary", .peer = "shm", .mode = "adaptive", .payload_bytes = 64, .concurrency = 1};
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
  for (const char* field : {"payload", "concurrency", "p99_ns", "p999_ns", "calls_per_s", "calls"}) {
    EXPECT_TRUE(json[field].is_number_integer()) << field;
  }
  row.ratio_p50.reset();
  EXPECT_FALSE(nlohmann::json::parse(ToJson(row)).contains("ratio_p50"));
}

TEST(ToTableTest, PutsPeersSideBySide) {
  const Row shm{.load = "unary",
                .peer = "shm",
                .mode = "adaptive",
                .payload_bytes = 64,
                .p50_nanos = 1000,
                .p99_nanos = 2500,
                .calls_per_second = 800e3,
                .ratio_p50 = 70.0};
  Row grpc = shm;
  grpc.peer = "grpc-unix";
  grpc.mode = "-";
  grpc.p50_nanos = 70'000;
  grpc.p99_nanos = 123'456;
  grpc.calls_per_second = 12'300;
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
            "unary: times as fast as grpc-unix, by the median round trip\n"
            "          shm  grpc-unix\n"
            "  64 B   70.0       1.00\n"
            "  4 KiB  70.0          -\n");
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
