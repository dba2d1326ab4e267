// A client or a server is killed at one instruction after the other of connecting, calling, streaming, hanging up. The
// other side is told, gives back all that it held for it, and goes on. See traced_process.h for how.

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "child_process.h"
#include "conformance.shmrpc.pb.h"
#include "gtest/gtest.h"
#include "kill_addresses.h"
#include "kill_figures.h"
#include "kill_phases.h"
#include "kill_services.h"
#include "shmrpc/shmrpc.h"
#include "stream_services.h"
#include "sync.h"
#include "tests/sanitizers.h"
#include "traced_process.h"

namespace shmrpc::conformance {
namespace {

#if SHMRPC_LONG_TESTS
constexpr int kPoints = 2000;
#else
constexpr int kPoints = 80;
#endif

// A place to kill at: before an instruction is run for the `times`th time. Of loops the first rounds are enough.
struct Point {
  uint64_t address = 0;
  int times = 0;
};
constexpr int kMostTimes = 50;

// On a thread of its own: with it goes the descriptor that the library keeps for a thread that has slept in a call, so
// that the count is exact.
template <typename Function>
void OnOwnThread(const Function& function) {
  std::thread(function).join();
}

// A stream from this process to a server that is going to be killed. Neither side says anything once it is open.
class OpenChat final : public ClientBidiReactor<Item, Item> {
 public:
  explicit OpenChat(const std::shared_ptr<Channel>& channel) : stub_(channel) {
    stub_.async().Chat(&context_, this);
    StartWrite(&item_);
    StartRead(&item_read_);
    StartCall();
  }

  // True when the server has answered.
  bool WaitUntilOpen() const { return open_.Wait(); }
  // When and how it ended. False when it does not.
  bool WaitForEnd(SteadyTime* when, absl::Status* status) const {
    if (!ended_.Wait()) return false;
    *when = when_;
    *status = status_;
    return true;
  }

  void OnReadDone(bool ok) override {
    if (ok) StartRead(&item_read_);
    open_.Set();
  }
  void OnDone(const absl::Status& status) override {
    when_ = SteadyTime::Now();
    status_ = status;
    ended_.Set();
  }

 private:
  Streams::Stub stub_;
  ClientContext context_;
  const Item item_;
  Item item_read_;
  Event open_;
  Event ended_;
  SteadyTime when_;
  absl::Status status_;
};

class KillSweepTest : public testing::TestWithParam<const char*> {
 protected:
  KillSweepTest()
      // A copy is to be some steps, not one for each byte: the processor counts each round of rep movsb as one.
      : peer_({SHMRPC_KILL_SWEEP_PEER}, {"LD_BIND_NOW=1",
                                         "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000:"
                                         "glibc.cpu.x86_rep_stosb_threshold=1000000000"}) {}

  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "most instructions would be the sanitizer's; KillStormTest kills under sanitizers, too";
#endif
  }

  std::string phase() const { return GetParam(); }

  // What a test does with one process, over and over: brings it to the phase, gives it to Go, kills it, and looks.
  // Traces it first, then kills it at each point in turn. `take_base` is called in between.
  template <typename KillOne, typename TakeBase>
  void Sweep(const KillOne& kill_one, const TakeBase& take_base) {
    kill_one();
    if (IsSkipped() || HasFailure()) return;
    ASSERT_GT(trace_.size(), 1000u) << "the phase can hardly have so few instructions";
    std::vector<Point> candidates;
    std::unordered_map<uint64_t, int> seen;
    for (const uint64_t address : trace_) {
      const int times = ++seen[address];
      if (times <= kMostTimes) candidates.push_back({address, times});
    }
    // The first point: before anything at all.
    for (const bool warm_up : {true, false}) {
      if (!warm_up) take_base();
      const size_t points = std::min<size_t>(warm_up ? 3 : kPoints, candidates.size());
      reached_ = 0;
      for (size_t i = 0; i < points; ++i) {
        point_ = candidates[i * candidates.size() / points];
        kill_one();
        if (HasFailure()) {
          std::cout << "at point " << i << " of " << points << std::endl;
          return;
        }
      }
      if (warm_up) continue;
      // At full speed a process does not do everything that it does while it is stepped through and slow.
      EXPECT_GT(reached_, static_cast<int>(points / 10));
      RecordProperty("points", static_cast<int>(points));
      RecordProperty("points_reached", reached_);
      RecordProperty("instructions", static_cast<int>(trace_.size()));
      std::cout << "killed at " << points << " points, of which " << reached_ << " were reached, in "
                << candidates.size() << " of " << trace_.size() << " instructions" << std::endl;
    }
  }

  // Lets the process go to where it is to be killed.
  void Go(TracedProcess& process, TracedProcess::Over over) {
    if (trace_.empty()) {
      absl::StatusOr<std::vector<uint64_t>> trace = process.Trace(over);
      EXPECT_TRUE(trace.ok()) << trace.status();
      if (trace.ok()) trace_ = *std::move(trace);
      return;
    }
    const absl::StatusOr<bool> reached = process.RunTo(point_.address, point_.times, over);
    if (absl::IsNotFound(reached.status())) return;  // killed at the beginning
    EXPECT_TRUE(reached.ok()) << reached.status();
    if (reached.value_or(false)) ++reached_;
  }

  // What the peer prints next, without `prefix`; the test fails when it prints something else.
  std::string Expect(absl::string_view prefix) {
    const absl::StatusOr<std::string> line = peer_.ReadLine();
    if (!line.ok() || !absl::StartsWith(*line, prefix)) {
      ADD_FAILURE() << "the peer printed " << (line.ok() ? *line : line.status().ToString()) << " instead of "
                    << prefix;
      return "";
    }
    return line->substr(prefix.size());
  }

  // Null, and the test skipped or failed, when it cannot be had.
  std::unique_ptr<TracedProcess> Seize(pid_t pid) {
    absl::StatusOr<std::unique_ptr<TracedProcess>> traced = TracedProcess::Seize(pid);
    if (traced.ok()) return *std::move(traced);
    if (absl::IsPermissionDenied(traced.status()) || absl::IsUnimplemented(traced.status())) {
      [&] { GTEST_SKIP() << "this process may not trace its own children: " << traced.status(); }();
    } else {
      ADD_FAILURE() << traced.status();
    }
    kill(pid, SIGKILL);
    return nullptr;
  }

  // Once it has been killed.
  void ExpectGone(TracedProcess& traced) {
    traced.Collect();
    EXPECT_EQ(Expect("ended "), absl::StrCat(SIGKILL));
  }

  ChildProcess peer_;
  std::vector<uint64_t> trace_;
  Point point_;
  int reached_ = 0;
  Durations told_;      // from the kill until the call in flight has ended
  Durations released_;  // until nothing is held for the other side any more
};

TEST_P(KillSweepTest, AKilledClientIsNoticedAndLeavesNothingWithTheServer) {
  WholeEcho echo;
  StreamCounters streams;
  const auto stream_service = MakeStreamService(ServerStyle::kCallback, &streams);
  const auto server = ServerBuilder().Listen("127.0.0.1:0").Register(&echo).Register(stream_service.get()).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string address = (*server)->addresses().front().ToString();
  KillPhase honest("call");
  OnOwnThread([&] { ASSERT_EQ(honest.Prepare(address, nullptr), absl::OkStatus()); });
  const bool has_stream = KillPhase(phase()).KeepsItsConnection();
  bool compare = false;
  Holdings base;
  int served = 0;
  int not_served = 0;

  const auto kill_one = [&] {
    peer_.Write(absl::StrCat("client ", phase(), " ", address, "\n"));
    const std::string pid = Expect("ready ");
    if (pid.empty()) return;
    const std::unique_ptr<TracedProcess> traced = Seize(std::stoi(pid));
    if (traced == nullptr) return;
    const int calls_before = echo.calls().value();
    const int streams_before = streams.started.value();
    std::string done;
    peer_.Write("\n");
    Go(*traced, [&] {
      done = peer_.ReadLine(absl::Milliseconds(2)).value_or("");
      return !done.empty();
    });
    const SteadyTime killed = SteadyTime::Now();
    traced->Kill();
    if (has_stream) {
      // Its own streams are all there are, and none is left.
      int started;
      do {
        started = streams.started.value();
        EXPECT_TRUE(streams.ended.WaitFor(started));
      } while (streams.started.value() > started);
      told_.Add(SteadyTime::Now() - killed);
    }
    traced->Collect();
    if (done.empty()) {
      done = peer_.ReadLine().value_or("nothing");
      if (absl::StartsWith(done, "done ")) {
        EXPECT_EQ(Expect("ended "), absl::StrCat(SIGKILL));
      }
    } else {
      EXPECT_EQ(Expect("ended "), absl::StrCat(SIGKILL));
    }
    if (absl::StartsWith(done, "done ")) {
      EXPECT_EQ(done, "done OK");
    } else if (!done.empty()) {
      EXPECT_EQ(done, absl::StrCat("ended ", SIGKILL));
    }
    if (compare) {
      EXPECT_TRUE(Eventually([&] { return Holdings::Now() == base; })) << Holdings::Now() << "; before " << base;
      released_.Add(SteadyTime::Now() - killed);
    }
    const int handlers = echo.calls().value() - calls_before + streams.started.value() - streams_before;
    EXPECT_LE(handlers, 1) << "a request was run twice";
    ++(handlers > 0 ? served : not_served);
    EXPECT_EQ(echo.torn().value(), 0);
    OnOwnThread([&] { EXPECT_EQ(honest.Run(), absl::OkStatus()); });
  };

  int threads = 0;
  Sweep(kill_one, [&] {
    ASSERT_TRUE(Eventually([&] { return streams.ended.value() == streams.started.value(); }));
    base = LeastHoldings();
    EXPECT_EQ(base.mappings, 4);  // the honest client's connection, both ends of which are here
    threads = CountThreads();
    compare = true;
    served = not_served = 0;
  });
  if (IsSkipped() || HasFailure()) return;
  if (phase() != "attach" && phase() != "detach") {
    EXPECT_GT(not_served, 0) << "no kill came before the request was there";
    EXPECT_GT(served, 0) << "no kill came after that";
    RecordProperty("killed_before_the_handler_ran", not_served);
  }
  EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads; })) << CountThreads() << ", " << threads << " before";
  told_.Report("told");
  released_.Report("released");
}

TEST_P(KillSweepTest, AKilledServerIsNoticedAndLeavesNothingWithTheClient) {
  const KillAddresses addresses;
  const std::string& address = addresses.tcp();
  std::shared_ptr<Channel> channel;
  bool compare = false;
  Holdings base;
  int went_well = 0;
  int failed = 0;

  const auto kill_one = [&] {
    peer_.Write(absl::StrCat("server ", address, "\n"));
    const std::string pid = Expect("ready ");
    if (pid.empty()) return;
    if (channel == nullptr) channel = Channel::Create(address, KillPhase::Options());
    // The next server on this address is found by the channel that has lost the last one.
    EXPECT_EQ(channel->WaitForConnected(absl::Now() + kHangGuard), absl::OkStatus());
    auto open_chat = std::make_unique<OpenChat>(channel);
    EXPECT_TRUE(open_chat->WaitUntilOpen());

    Event prepared;
    Event go;
    Event done;
    SteadyTime phase_ended;
    absl::Status result;
    std::thread driver([&] {
      KillPhase phase(GetParam());
      EXPECT_EQ(phase.Prepare(address, channel), absl::OkStatus());
      prepared.Set();
      EXPECT_TRUE(go.Wait());
      result = phase.Run();
      phase_ended = SteadyTime::Now();
      done.Set();
    });
    EXPECT_TRUE(prepared.Wait());
    const std::unique_ptr<TracedProcess> traced = Seize(std::stoi(pid));
    go.Set();
    if (traced != nullptr) {
      Go(*traced, [&] { return done.IsSet(); });
      const SteadyTime killed = SteadyTime::Now();
      traced->Kill();
      SteadyTime chat_ended;
      absl::Status chat_status;
      EXPECT_TRUE(open_chat->WaitForEnd(&chat_ended, &chat_status));
      EXPECT_TRUE(absl::IsUnavailable(chat_status)) << chat_status;
      EXPECT_TRUE(done.Wait());
      driver.join();
      told_.Add(std::max(chat_ended, phase_ended) - killed);
      EXPECT_TRUE(result.ok() || absl::IsUnavailable(result)) << result;
      ++(result.ok() ? went_well : failed);
      ExpectGone(*traced);
      open_chat.reset();
      if (compare) {
        // Asking for the state is what makes an idle channel notice.
        EXPECT_TRUE(Eventually([&] {
          return channel->GetState(/*try_to_connect=*/false) != ChannelState::kReady && Holdings::Now() == base;
        })) << Holdings::Now()
            << "; before " << base;
        released_.Add(SteadyTime::Now() - killed);
      }
    } else {
      driver.join();
    }
  };

  int threads = 0;
  Sweep(kill_one, [&] {
    ASSERT_TRUE(Eventually([&] { return channel->GetState(false) != ChannelState::kReady; }));
    base = LeastHoldings();
    EXPECT_EQ(base.mappings, 0);
    threads = CountThreads();
    compare = true;
    went_well = failed = 0;
  });
  if (IsSkipped() || HasFailure()) return;
  if (phase() != "detach") {
    EXPECT_GT(failed, 0) << "no kill came before the client was through";
    RecordProperty("killed_before_the_client_was_through", failed);
  }
  EXPECT_TRUE(Eventually([&] { return CountThreads() <= threads; })) << CountThreads() << ", " << threads << " before";
  told_.Report("told");
  released_.Report("released");
}

INSTANTIATE_TEST_SUITE_P(In, KillSweepTest, testing::ValuesIn(kKillPhases),
                         [](const testing::TestParamInfo<const char*>& info) { return std::string(info.param); });

}  // namespace
}  // namespace shmrpc::conformance
