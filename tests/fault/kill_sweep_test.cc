// A client or a server is killed after its first, second, third ... instruction of connecting, calling, streaming,
// hanging up; the other side is told, gives back all that it held for it, and goes on. See stepped_process.h for how.

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "child_process.h"
#include "conformance.shmrpc.pb.h"
#include "gtest/gtest.h"
#include "kill_figures.h"
#include "kill_phases.h"
#include "kill_services.h"
#include "shmrpc/shmrpc.h"
#include "stepped_process.h"
#include "stream_services.h"
#include "sync.h"
#include "tests/sanitizers.h"

namespace shmrpc::conformance {
namespace {

#if SHMRPC_LONG_TESTS
constexpr int kPoints = 2000;
#else
constexpr int kPoints = 30;
#endif
constexpr int kCalibrations = 5;
constexpr int64_t kToTheEnd = std::numeric_limits<int64_t>::max();

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

  std::string phase() const { return GetParam(); }

  // Runs `kill_at`, which kills after so many instructions and returns how many there were, all over the phase.
  template <typename KillAt, typename TakeBase>
  void Sweep(const KillAt& kill_at, const TakeBase& take_base) {
    std::vector<int64_t> lengths;
    for (int i = 0; i < kCalibrations; ++i) {
      lengths.push_back(kill_at(kToTheEnd));
      if (IsSkipped() || HasFailure()) return;
    }
    std::sort(lengths.begin(), lengths.end());
    const int64_t length = lengths[kCalibrations / 2];
    EXPECT_GT(length, 1000) << "the phase can hardly have so few instructions";
    take_base();
    const int points = phase() == "large" ? kPoints / 2 : kPoints;
    int before_the_end = 0;
    for (int i = 0; i < points; ++i) {
      const int64_t at = i * length / points;
      if (kill_at(at) == at) ++before_the_end;
      if (HasFailure()) {
        std::cout << "at instruction " << at << " of " << length << std::endl;
        return;
      }
    }
    // Its length is not always the same, but mostly.
    EXPECT_GT(before_the_end, points / 2);
    RecordProperty("points", points);
    RecordProperty("instructions", static_cast<int>(length));
    std::cout << points << " points in " << length << " instructions, " << before_the_end << " before the end"
              << std::endl;
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
  std::unique_ptr<SteppedProcess> Seize(pid_t pid) {
    absl::StatusOr<std::unique_ptr<SteppedProcess>> stepped = SteppedProcess::Seize(pid);
    if (stepped.ok()) return *std::move(stepped);
    if (absl::IsPermissionDenied(stepped.status()) || absl::IsUnimplemented(stepped.status())) {
      [&] { GTEST_SKIP() << "this process may not trace its own children: " << stepped.status(); }();
    } else {
      ADD_FAILURE() << stepped.status();
    }
    kill(pid, SIGKILL);
    return nullptr;
  }

  // Once it has been killed.
  void ExpectGone(SteppedProcess& stepped) {
    stepped.Collect();
    EXPECT_EQ(Expect("ended "), absl::StrCat(SIGKILL));
  }

  int64_t Step(SteppedProcess& stepped, int64_t count, absl::FunctionRef<bool()> over) {
    const absl::StatusOr<int64_t> steps = stepped.Step(count, over);
    EXPECT_TRUE(steps.ok()) << steps.status();
    return steps.value_or(0);
  }

  ChildProcess peer_;
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

  const auto kill_at = [&](int64_t count) -> int64_t {
    peer_.Write(absl::StrCat("client ", phase(), " ", address, "\n"));
    const std::string pid = Expect("ready ");
    if (pid.empty()) return 0;
    const std::unique_ptr<SteppedProcess> stepped = Seize(std::stoi(pid));
    if (stepped == nullptr) return 0;
    const int calls_before = echo.calls().value();
    const int streams_before = streams.started.value();
    std::string done;
    peer_.Write("\n");
    const int64_t steps = Step(*stepped, count, [&] {
      done = peer_.ReadLine(absl::Milliseconds(2)).value_or("");
      return !done.empty();
    });
    const SteadyTime killed = SteadyTime::Now();
    stepped->Kill();
    if (has_stream) {
      // Its own streams are all there are, and none is left.
      EXPECT_TRUE(Eventually([&] { return streams.ended.value() == streams.started.value(); }));
      told_.Add(SteadyTime::Now() - killed);
    }
    stepped->Collect();
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
    return steps;
  };

  int threads = 0;
  Sweep(kill_at, [&] {
    ASSERT_TRUE(Eventually([&] { return streams.ended.value() == streams.started.value(); }));
    base = Holdings::Now();
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
  // An address of its own, so that the port stays free between two servers.
  std::string address =
      absl::StrCat("127.", 64 + (getpid() >> 16) % 64, ".", (getpid() >> 8) % 256, ".", getpid() % 256, ":0");
  std::shared_ptr<Channel> channel;
  bool compare = false;
  Holdings base;
  int went_well = 0;
  int failed = 0;

  const auto kill_at = [&](int64_t count) -> int64_t {
    peer_.Write(absl::StrCat("server ", address, "\n"));
    const std::vector<std::string> words = absl::StrSplit(Expect("ready "), ' ');
    if (words.size() != 2) return 0;
    address = words[1];
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
    const std::unique_ptr<SteppedProcess> stepped = Seize(std::stoi(words[0]));
    go.Set();
    int64_t steps = 0;
    if (stepped != nullptr) {
      steps = Step(*stepped, count, [&] { return done.IsSet(); });
      const SteadyTime killed = SteadyTime::Now();
      stepped->Kill();
      SteadyTime chat_ended;
      absl::Status chat_status;
      EXPECT_TRUE(open_chat->WaitForEnd(&chat_ended, &chat_status));
      EXPECT_TRUE(absl::IsUnavailable(chat_status)) << chat_status;
      EXPECT_TRUE(done.Wait());
      driver.join();
      told_.Add(std::max(chat_ended, phase_ended) - killed);
      EXPECT_TRUE(result.ok() || absl::IsUnavailable(result)) << result;
      ++(result.ok() ? went_well : failed);
      ExpectGone(*stepped);
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
    return steps;
  };

  int threads = 0;
  Sweep(kill_at, [&] {
    ASSERT_TRUE(Eventually([&] { return channel->GetState(false) != ChannelState::kReady; }));
    base = Holdings::Now();
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
