// What happens when somebody sets the system's clock while the library waits: nothing. This program has a system clock
// of its own, which the tests step; that of the machine stays as it is.

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "runtime/src/deadline_timer.h"
#include "shmrpc/client_context.h"
#include "shmrpc/server_context.h"
#include "tests/unit/runtime_test_service.h"

namespace {

std::atomic<int64_t> seconds_ahead{0};

}  // namespace

// Comes in place of the C library's, for this program and the shared libraries that it uses.
extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += seconds_ahead.load(std::memory_order_relaxed);
  return result;
}

namespace shmrpc {
namespace {

using internal::DeadlineTimer;
using testing::Event;
using testing::Inproc;
using testing::Outcome;
using testing::StringValue;
using testing::TestService;
using testing::Text;

constexpr const char* kAddress = "inproc:clock-step-test";
constexpr absl::Duration kShort = absl::Milliseconds(100);
constexpr absl::Duration kLong = absl::Hours(1);

// Each test runs with the clock set back and with it set forward, by more than what anything waits for. With a clock
// that is set back a wait by the system's clock would last for hours, which is a hang; with one that is set forward,
// the long time would be over at once.
class ClockStepTest : public ::testing::TestWithParam<int> {
 protected:
  ~ClockStepTest() override { seconds_ahead = 0; }
  static void Step() { seconds_ahead += GetParam() * absl::ToInt64Seconds(3 * kLong); }

  std::unique_ptr<Server> Start(TestService* service) { return testing::StartServer(kAddress, service); }
};

TEST_P(ClockStepTest, IsSeenByThisProgram) {
  const absl::Time before = absl::Now();
  Step();
  EXPECT_EQ(absl::Now() > before, GetParam() > 0) << "otherwise these tests show nothing";
}

TEST_P(ClockStepTest, TimersComeWhenTheyAreDue) {
  Event short_one;
  const DeadlineTimer::Handle long_one =
      DeadlineTimer::Get().Schedule(SteadyTime::Now() + kLong, [] { ADD_FAILURE() << "an hour early"; });
  DeadlineTimer::Get().Schedule(SteadyTime::Now() + kShort, [&] { short_one.Set(); });
  Step();
  EXPECT_TRUE(short_one.Wait());
  EXPECT_TRUE(DeadlineTimer::Get().Cancel(long_one));
}

// The deadline passes while the caller waits, or does not, for a handler that steps the clock.
TEST_P(ClockStepTest, DeadlinesAreThoseFromBeforeTheStep) {
  Event over;
  TestService service([&](ServerContext* context, const StringValue& request, StringValue*) {
    Step();
    if (request.value() == "hold") over.Wait();
    const absl::Duration left = context->deadline() - absl::Now();
    EXPECT_EQ(context->IsCancelled(), request.value() == "hold");
    EXPECT_LE(left, kLong);
    EXPECT_GT(left, request.value() == "hold" ? -kLong : kLong / 2);
    return absl::OkStatus();
  });
  const auto server = Start(&service);
  const auto channel = Channel::Create(kAddress, {}, Inproc());
  StringValue reply;
  {
    ClientContext context;
    context.set_deadline(absl::Now() + kLong);
    EXPECT_EQ(UnaryCall(*channel, TestService::kEcho, &context, Text("go"), &reply), absl::OkStatus());
    EXPECT_GT(context.deadline(), absl::Now());
  }
  {
    ClientContext context;
    context.set_deadline(absl::Now() + kShort);
    EXPECT_EQ(UnaryCall(*channel, TestService::kEcho, &context, Text("hold"), &reply).code(),
              absl::StatusCode::kDeadlineExceeded);
  }
  over.Set();
}

TEST_P(ClockStepTest, DeadlinesOfAsynchronousCallsAreThoseFromBeforeTheStep) {
  Event over;
  TestService service([&](ServerContext*, const StringValue& request, StringValue*) {
    Step();
    if (request.value() == "hold") over.Wait();
    return absl::OkStatus();
  });
  const auto server = Start(&service);
  const auto channel = Channel::Create(kAddress, {}, Inproc());
  for (const bool hold : {false, true}) {
    ClientContext context;
    context.set_deadline(absl::Now() + (hold ? kShort : kLong));
    StringValue reply;
    Outcome outcome;
    AsyncUnaryCall(channel, TestService::kEcho, &context, Text(hold ? "hold" : "go"), &reply, outcome.Callback());
    EXPECT_EQ(outcome.Wait().code(), hold ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kOk);
  }
  over.Set();
}

TEST_P(ClockStepTest, BackOffIsNeitherLongerNorShorter) {
  ChannelOptions options;
  options.initial_backoff = options.max_backoff = kShort;
  const auto channel = Channel::Create(kAddress, options, Inproc());
  EXPECT_EQ(channel->WaitForConnected(absl::Now() + kLong).code(), absl::StatusCode::kUnavailable);
  Step();
  TestService service;
  const auto server = Start(&service);
  ClientContext context;
  context.set_wait_for_ready(true);
  StringValue reply;
  EXPECT_EQ(UnaryCall(*channel, TestService::kEcho, &context, Text("x"), &reply), absl::OkStatus());

  options.initial_backoff = options.max_backoff = kLong;
  const auto patient = Channel::Create("inproc:nobody", options, Inproc());
  EXPECT_EQ(patient->WaitForConnected(absl::Now() + kLong).code(), absl::StatusCode::kUnavailable);
  Step();
  EXPECT_EQ(patient->GetState(/*try_to_connect=*/true), ChannelState::kTransientFailure);
}

TEST_P(ClockStepTest, WaitingForAChangeOfStateEndsInTime) {
  const auto channel = Channel::Create(kAddress, {}, Inproc());
  std::thread stepper([&] {
    absl::SleepFor(kShort / 2);  // so that the other thread is likely to wait already
    Step();
  });
  EXPECT_FALSE(channel->WaitForStateChange(ChannelState::kIdle, absl::Now() + kShort));
  stepper.join();
}

TEST_P(ClockStepTest, ShutdownWaitsForItsHandlersAsLongAsItWasTold) {
  for (const bool in_time : {true, false}) {
    Event runs;
    Event go;
    TestService service([&](ServerContext* context, const StringValue&, StringValue*) {
      runs.Set();
      if (in_time) {
        go.Wait();
        EXPECT_FALSE(context->IsCancelled());
      } else {
        while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
      }
      return absl::OkStatus();
    });
    const auto server = Start(&service);
    const auto channel = Channel::Create(kAddress, {}, Inproc());
    StringValue reply;
    Outcome outcome;
    AsyncUnaryCall(channel, TestService::kEcho, nullptr, Text("x"), &reply, outcome.Callback());
    ASSERT_TRUE(runs.Wait());
    std::thread shutdown([&] { server->Shutdown(absl::Now() + (in_time ? kLong : kShort)); });
    while (channel->GetState(/*try_to_connect=*/false) == ChannelState::kReady) std::this_thread::yield();
    Step();
    absl::SleepFor(kShort / 10);  // for a shutdown that takes the hour to be over
    go.Set();
    EXPECT_EQ(outcome.Wait().code(), in_time ? absl::StatusCode::kOk : absl::StatusCode::kUnavailable);
    shutdown.join();
  }
}

std::string Direction(const ::testing::TestParamInfo<int>& info) { return info.param > 0 ? "Forward" : "Back"; }

INSTANTIATE_TEST_SUITE_P(Steps, ClockStepTest, ::testing::Values(-1, 1), &Direction);

}  // namespace
}  // namespace shmrpc
