#include "tests/soak/client_process.h"

#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/soak/calls.h"
#include "tests/soak/canceller.h"
#include "tests/soak/client_call.h"
#include "tests/soak/memory.h"

namespace shmrpc::soak {
namespace {

// The channels that the threads of a client share, one to each server. Thread-safe.
class Channels {
 public:
  Channels(const ClientSettings& settings, const ClientEnvironment& environment)
      : settings_(settings), environment_(environment), shared_(settings.addresses.size()) {}

  std::unique_ptr<SoakChannel> New(int server) const {
    ChannelOptions options;
    options.transport = settings_.transport->preference;
    options.initial_backoff = absl::Milliseconds(10);
    options.max_backoff = absl::Milliseconds(500);
    options.keepalive_timeout = settings_.keepalive;
    options.max_send_message_bytes = kMessageLimitBytes;
    options.max_receive_message_bytes = kMessageLimitBytes;
    return std::make_unique<SoakChannel>(
        Channel::Create(settings_.addresses[server], options, settings_.transport->transports()), server, environment_);
  }

  // `renew`: a new one takes the place of the shared one, which goes with the last call on it.
  std::shared_ptr<SoakChannel> Get(int server, bool renew) {
    std::shared_ptr<SoakChannel> old;
    MutexLock lock(&mutex_);
    if (renew || shared_[server] == nullptr) old = std::exchange(shared_[server], New(server));
    return shared_[server];
  }

 private:
  const ClientSettings& settings_;
  const ClientEnvironment& environment_;
  Mutex mutex_;
  std::vector<std::shared_ptr<SoakChannel>> shared_ ABSL_GUARDED_BY(mutex_);
};

// One thread that makes calls.
class Worker {
 public:
  Worker(const ClientSettings& settings, int number, const ClientEnvironment& environment, Channels* channels,
         Canceller* canceller)
      : settings_(settings),
        environment_(environment),
        channels_(channels),
        canceller_(canceller),
        state_(&environment.state->workers[number]),
        random_(Mix(settings.seed + 1) + (uint64_t{settings.incarnation} << 32) + (settings.slot << 8) + number) {}

  void Run() {
    while (environment_.board->phase() == Phase::kTraffic) {
      const int server = static_cast<int>(random_.Below(settings_.addresses.size()));
      if (random_.OneIn(100)) {
        CallOnChannelOfItsOwn(server);
      } else {
        const std::shared_ptr<SoakChannel> channel = channels_->Get(server, random_.OneIn(500));
        CallTogether(channel.get(), /*drop=*/false);
      }
      if (random_.OneIn(50)) absl::SleepFor(absl::Microseconds(random_.LogUniform(1, 20'000)));
    }
  }

 private:
  // A channel that lives for a few calls, and now and then ends before them.
  void CallOnChannelOfItsOwn(int server) {
    const std::unique_ptr<SoakChannel> channel = channels_->New(server);
    for (uint64_t rounds = random_.Below(4); rounds > 0; --rounds) CallTogether(channel.get(), /*drop=*/false);
    CallTogether(channel.get(), random_.OneIn(2));
  }

  // Makes one call, or several of the same kind at a time if they need no thread each. `drop`: destroys the channel
  // meanwhile.
  void CallTogether(SoakChannel* channel, bool drop) {
    Plan plan = DrawPlan(&random_);
    if (drop && plan.style == Style::kBlocking) plan.style = Style::kCallback;
    const int count = Together(plan, &random_);
    std::vector<std::unique_ptr<ClientCall>> calls;
    conformance::Counter ended;
    for (int i = 0; i < count; ++i) {
      plan.id = environment_.board->runs.TakeId();
      if (i == 0) {
        state_->id.store(plan.id);
        state_->begun_nanos.store(NowNanos());
      }
      calls.push_back(std::make_unique<ClientCall>(plan, channel, environment_));
      ClientCall* const call = calls.back().get();
      if (drop) call->NoteCancelled();
      if (plan.cancel_after.has_value()) canceller_->Schedule(SteadyTime::Now() + *plan.cancel_after, call);
      Start(call, &ended);
    }
    if (drop) channel->Drop();
    ended.WaitFor(count, absl::InfiniteDuration());  // the supervisor looks for what hangs
    if (plan.cancel_after.has_value()) {
      for (const auto& call : calls) canceller_->Forget(call.get());
    }
    state_->begun_nanos.store(0);
  }

  void Start(ClientCall* call, conformance::Counter* ended) {
    switch (call->plan().style) {
      case Style::kBlocking:
        CallBlocking(call, random_.OneIn(20));
        ended->Increment();
        return;
      case Style::kCallback:
        return StartCallback(call, ended);
      case Style::kCoroutine:
        return StartCoroutine(call, ended);
    }
  }

  const ClientSettings& settings_;
  const ClientEnvironment& environment_;
  Channels* const channels_;
  Canceller* const canceller_;
  WorkerState* const state_;
  Random random_;
};

}  // namespace

int RunClient(const ClientSettings& settings, Board* board) {
  ClientState* const state = &board->clients[settings.slot];
  const ClientEnvironment environment = {
      .board = board, .state = state, .proves_not_processed = settings.transport->proves_not_processed};
  state->heap.base_bytes.store(HeapBytesInUse());
  {
    Channels channels(settings, environment);
    Canceller canceller;
    std::vector<std::thread> threads;
    for (int i = 0; i < settings.threads; ++i) {
      threads.emplace_back([&, i] { Worker(settings, i, environment, &channels, &canceller).Run(); });
    }
    for (std::thread& thread : threads) thread.join();
  }
  do {
    TrimHeap();
    state->heap.now_bytes.store(HeapBytesInUse());
    state->quiet.store(settings.incarnation);
    absl::SleepFor(absl::Milliseconds(20));
  } while (board->phase() != Phase::kEnd);
  if (HasLeaks()) {
    board->Fail(absl::StrCat("client ", settings.slot, " has leaked memory, as its standard error output tells"));
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

}  // namespace shmrpc::soak
