#include "tests/soak/supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/bench/process.h"
#include "tests/soak/addresses.h"
#include "tests/soak/client_process.h"
#include "tests/soak/random.h"
#include "tests/soak/seat.h"
#include "tests/soak/server_process.h"

namespace shmrpc::soak {
namespace {

volatile std::sig_atomic_t interrupted = 0;

// What takes longer than that hangs.
absl::Duration HangGuard() { return absl::Seconds(kUnderSanitizer ? 300 : 60); }

class Supervisor {
 public:
  Supervisor(const SoakOptions& options, Board* board)
      : options_(options), board_(board), random_(options.seed), servers_restart_(options.servers) {}

  absl::StatusOr<SoakResult> Run();

 private:
  absl::Status StartServer(int server);
  absl::Status StartClient(int client);
  // Until all servers are ready, and what they hold is known.
  absl::Status WaitForServers();
  // One step of the traffic: what is due.
  absl::Status Step();
  void EndServer(int server);
  void KillClient();
  void StopSomebody();
  void Continue(Seat* seat);
  // Takes note of processes that have ended; and looks for calls that do not end.
  void LookForEnds();
  void LookForHangs();
  void Sample();
  // After the traffic: until nothing is held any more; and until all processes have ended.
  absl::Status Quiet();
  bool AllIsGivenBack();
  absl::Status End();

  // CANCELLED when interrupted, ABORTED when something has failed.
  absl::Status Check() const {
    if (interrupted != 0) return absl::CancelledError("interrupted");
    if (board_->failure_count.load() > 0) return absl::AbortedError("something has failed: see above");
    return absl::OkStatus();
  }
  // Waits until `done`, looking for what goes wrong meanwhile. `what` is said when it takes too long.
  template <typename Done>
  absl::Status Await(absl::string_view what, absl::Duration guard, const Done& done);
  SteadyTime After(absl::Duration mean) { return SteadyTime::Now() + mean * (0.5 + random_.Fraction()); }
  // Servers that are ended now and then. The last one is not, if there are several.
  int mortal_servers() const { return std::max(1, options_.servers - 1); }
  // Clients below that are never killed; the first is never stopped either.
  int steady_clients() const { return std::min(2, options_.clients); }

  const SoakOptions options_;
  Board* const board_;
  Random random_;
  SoakResult result_;
  std::vector<std::string> addresses_;
  std::optional<bench::PrivateDirectory> directory_;
  std::vector<std::unique_ptr<Seat>> servers_;
  std::vector<std::unique_ptr<Seat>> clients_;
  std::vector<std::optional<SteadyTime>> servers_restart_;  // when, for those that have ended
  std::vector<SteadyTime> server_end_;
  SteadyTime client_kill_;
  SteadyTime stop_;
  SteadyTime sample_;
  SteadyTime began_;
};

absl::Status Supervisor::StartServer(int server) {
  ServerState& state = board_->servers[server];
  Seat* const seat = servers_[server].get();
  const ServerSettings settings = {.transport = options_.transport,
                                   .address = addresses_[server],
                                   .server = server,
                                   .incarnation = seat->incarnation() + 1,
                                   .kills = state.kills.load(),
                                   .keepalive = options_.keepalive};
  state.incarnation.store(settings.incarnation);
  return seat->Start([&] { return RunServer(settings, board_); });
}

absl::Status Supervisor::StartClient(int client) {
  Seat* const seat = clients_[client].get();
  ClientState& state = board_->clients[client];
  // The process before was killed, perhaps in the middle of a call or of a stop.
  for (WorkerState& worker : state.workers) worker.begun_nanos.store(0);
  if (state.long_stops.load() % 2 == 1) state.long_stops.fetch_add(1);
  const ClientSettings settings = {.transport = options_.transport,
                                   .addresses = addresses_,
                                   .slot = client,
                                   .incarnation = seat->incarnation() + 1,
                                   .seed = options_.seed,
                                   .threads = options_.threads,
                                   .keepalive = options_.keepalive};
  return seat->Start([&] { return RunClient(settings, board_); });
}

template <typename Done>
absl::Status Supervisor::Await(absl::string_view what, absl::Duration guard, const Done& done) {
  const SteadyTime limit = SteadyTime::Now() + guard;
  while (!done()) {
    LookForEnds();
    const absl::Status status = Check();
    if (!status.ok()) return status;
    if (limit.HasPassed()) {
      board_->Fail(absl::StrCat(what, " takes longer than ", absl::FormatDuration(guard)));
      return Check();
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
  return Check();
}

absl::Status Supervisor::WaitForServers() {
  for (int i = 0; i < options_.servers; ++i) {
    const absl::Status status = Await(absl::StrCat("the start of server ", i), HangGuard(),
                                      [&] { return board_->servers[i].ready.load() == 1; });
    if (!status.ok()) return status;
    const absl::StatusOr<Holdings> base = HoldingsOf(servers_[i]->pid());
    if (!base.ok()) return base.status();
    result_.watched.push_back(WatchedServer(servers_[i]->name(), i >= mortal_servers(), *base));
  }
  return absl::OkStatus();
}

absl::StatusOr<SoakResult> Supervisor::Run() {
  absl::StatusOr<bench::PrivateDirectory> directory = bench::PrivateDirectory::Create();
  if (!directory.ok()) return directory.status();
  directory_.emplace(*std::move(directory));
  absl::StatusOr<std::vector<std::string>> addresses =
      ChooseAddresses(*options_.transport, options_.servers, directory_->path(), &random_);
  if (!addresses.ok()) return addresses.status();
  addresses_ = *std::move(addresses);

  for (int i = 0; i < options_.servers; ++i) {
    servers_.push_back(std::make_unique<Seat>(absl::StrCat("server ", i)));
    const absl::Status started = StartServer(i);
    if (!started.ok()) return started;
  }
  absl::Status status = WaitForServers();
  // A client is forked with what this process holds, and has one thread.
  const absl::StatusOr<Holdings> own = HoldingsOf(getpid());
  if (!own.ok()) return own.status();
  for (int i = 0; status.ok() && i < options_.clients; ++i) {
    clients_.push_back(std::make_unique<Seat>(absl::StrCat("client ", i)));
    status = StartClient(i);
    result_.watched.push_back(WatchedClient(clients_[i]->name(), i < steady_clients(), *own));
  }

  began_ = SteadyTime::Now();
  for (int i = 0; i < mortal_servers(); ++i) server_end_.push_back(After(options_.end_server_every));
  client_kill_ = After(options_.kill_client_every);
  stop_ = After(options_.stop_every);
  while (status.ok() && SteadyTime::Now() - began_ < options_.duration) {
    status = Step();
    absl::SleepFor(absl::Milliseconds(5));
  }
  result_.traffic = SteadyTime::Now() - began_;
  if (status.ok()) status = Quiet();
  if (status.ok()) status = End();
  // What else has gone wrong at the same time is worth knowing.
  if (absl::IsAborted(status)) absl::SleepFor(absl::Milliseconds(300));
  clients_.clear();  // first, so that they see nothing of the end of the servers
  servers_.clear();
  if (status.ok() || absl::IsAborted(status)) return result_;
  return status;
}

absl::Status Supervisor::Step() {
  LookForEnds();
  for (int i = 0; i < options_.servers; ++i) {
    Seat* const seat = servers_[i].get();
    if (seat->IsToContinue()) Continue(seat);
    if (!seat->running() && servers_restart_[i].has_value() && servers_restart_[i]->HasPassed()) {
      servers_restart_[i].reset();
      const absl::Status started = StartServer(i);
      if (!started.ok()) return started;
    }
    if (i < mortal_servers() && server_end_[i].HasPassed()) {
      server_end_[i] = After(options_.end_server_every);
      EndServer(i);
    }
  }
  for (int i = 0; i < options_.clients; ++i) {
    if (clients_[i]->IsToContinue()) Continue(clients_[i].get());
    if (!clients_[i]->running()) {
      const absl::Status started = StartClient(i);
      if (!started.ok()) return started;
    }
  }
  if (client_kill_.HasPassed()) {
    client_kill_ = After(options_.kill_client_every);
    KillClient();
  }
  if (stop_.HasPassed()) {
    stop_ = After(options_.stop_every);
    StopSomebody();
  }
  if (sample_.HasPassed()) {
    sample_ = SteadyTime::Now() + absl::Milliseconds(200);
    Sample();
    LookForHangs();
  }
  return Check();
}

void Supervisor::EndServer(int server) {
  Seat* const seat = servers_[server].get();
  ServerState& state = board_->servers[server];
  // The one before may take its time to start, or to end.
  if (!seat->running() || seat->ending() || state.ready.load() != seat->incarnation()) return;
  if (random_.OneIn(3)) {
    ++result_.server_drains;
    state.doomed.store(seat->incarnation());
    if (seat->stopped()) Continue(seat);
    seat->ExpectEnd(/*signal=*/true);
  } else {
    ++result_.server_kills;
    state.kills.fetch_add(1);
    state.doomed.store(seat->incarnation());
    seat->Kill();
  }
}

void Supervisor::KillClient() {
  const int mortal = options_.clients - steady_clients();
  if (mortal <= 0) return;
  Seat* const seat = clients_[steady_clients() + random_.Below(mortal)].get();
  if (!seat->running() || seat->ending()) return;
  ++result_.client_kills;
  seat->Kill();
}

void Supervisor::StopSomebody() {
  const int choice = static_cast<int>(random_.Below(options_.servers + options_.clients - 1));
  const bool is_server = choice < options_.servers;
  const int client = choice - options_.servers + 1;
  Seat* const seat = is_server ? servers_[choice].get() : clients_[client].get();
  if (!seat->running() || seat->ending() || seat->stopped()) return;
  absl::Duration length = absl::Milliseconds(random_.LogUniform(10, 1000));
  // Now and then so long that servers give the client up.
  const absl::Duration long_stop = options_.keepalive + absl::Seconds(2);
  const absl::Duration left = options_.duration - (SteadyTime::Now() - began_);
  if (!is_server && left > 2 * long_stop && random_.OneIn(6)) {
    length = long_stop;
    ++result_.long_stops;
    board_->clients[client].long_stops.fetch_add(1);
  }
  ++result_.stops;
  seat->Stop(SteadyTime::Now() + length);
}

void Supervisor::Continue(Seat* seat) {
  for (int i = 0; i < static_cast<int>(clients_.size()); ++i) {
    if (clients_[i].get() != seat) continue;
    ClientState& state = board_->clients[i];
    // Odd: in the middle of a long stop.
    if (state.long_stops.load() % 2 == 1) state.long_stops.fetch_add(1);
    state.continued_nanos.store(NowNanos());
  }
  seat->Continue();
}

void Supervisor::LookForEnds() {
  std::optional<std::string> complaint;
  for (int i = 0; i < static_cast<int>(servers_.size()); ++i) {
    if (servers_[i]->TakeEnd(&complaint)) {
      servers_restart_[i] = SteadyTime::Now() + absl::Milliseconds(random_.OneIn(2) ? 0 : random_.LogUniform(1, 300));
    }
  }
  for (const auto& client : clients_) client->TakeEnd(&complaint);
  if (complaint.has_value()) board_->Fail(*complaint);
}

void Supervisor::LookForHangs() {
  const int64_t now = NowNanos();
  for (int i = 0; i < options_.clients; ++i) {
    if (!clients_[i]->running() || clients_[i]->stopped()) continue;
    const ClientState& state = board_->clients[i];
    for (int j = 0; j < options_.threads; ++j) {
      const int64_t begun = state.workers[j].begun_nanos.load();
      const uint64_t id = state.workers[j].id.load();
      const absl::Duration taken = absl::Nanoseconds(now - std::max(begun, state.continued_nanos.load()));
      if (begun == 0 || taken < HangGuard()) continue;
      board_->Fail(absl::StrCat("call ", id, ", or one that was begun together with it, of thread ", j, " of client ",
                                i, " (pid ", clients_[i]->pid(), "), has not ended after ",
                                absl::FormatDuration(taken)));
    }
  }
}

void Supervisor::Sample() {
  const int third =
      std::clamp(static_cast<int>(3 * absl::FDivDuration(SteadyTime::Now() - began_, options_.duration)), 0, 2);
  for (size_t i = 0; i < result_.watched.size(); ++i) {
    Watched& watched = result_.watched[i];
    const Seat& seat = i < servers_.size() ? *servers_[i] : *clients_[i - servers_.size()];
    if (!seat.running()) continue;
    const absl::StatusOr<Holdings> now = HoldingsOf(seat.pid());
    if (!now.ok()) continue;
    NoteHighest(*now, &watched.highest);
    watched.trend.Add(third, now->private_bytes);
  }
}

absl::Status Supervisor::Quiet() {
  for (const auto& seat : servers_) {
    if (seat->running() && seat->stopped()) Continue(seat.get());
  }
  for (const auto& seat : clients_) {
    if (seat->running() && seat->stopped()) Continue(seat.get());
  }
  // Calls that wait for a server get one.
  absl::Status status = Await("the restart of servers", HangGuard(), [&] {
    bool all = true;
    for (int i = 0; i < options_.servers; ++i) {
      if (!servers_[i]->running() && servers_restart_[i].has_value()) {
        servers_restart_[i].reset();
        const absl::Status started = StartServer(i);
        if (!started.ok()) board_->Fail(started.message());
      }
      all = all && servers_[i]->running() && !servers_[i]->ending() &&
            board_->servers[i].ready.load() == servers_[i]->incarnation();
    }
    return all;
  });
  if (!status.ok()) return status;

  board_->phase_word.store(static_cast<int>(Phase::kQuiet));
  status = Await("the end of all calls", HangGuard() + absl::Seconds(10), [&] {
    LookForHangs();
    bool all = true;
    for (int i = 0; i < options_.clients; ++i) {
      // One that was killed at the very end has no successor.
      all = all && (!clients_[i]->running() || board_->clients[i].quiet == clients_[i]->incarnation());
    }
    return all;
  });
  if (!status.ok()) return status;

  // What the library keeps for a while, such as idle threads, it is given time to let go of.
  const SteadyTime limit = SteadyTime::Now() + HangGuard();
  while (!AllIsGivenBack() && !limit.HasPassed()) absl::SleepFor(absl::Milliseconds(50));
  for (size_t i = 0; i < result_.watched.size(); ++i) {
    const Seat& seat = i < servers_.size() ? *servers_[i] : *clients_[i - servers_.size()];
    if (!seat.running()) continue;
    const std::string complaint = NotGivenBack(result_.watched[i], options_.idle);
    if (!complaint.empty()) {
      board_->Fail(absl::StrCat(seat.name(), " without calls and channels: ", complaint, "; it has ",
                                DescribeHoldings(seat.pid())));
    }
    // A short run is all beginning; and a sanitizer's memory is its own.
    const std::string growth = Grown(result_.watched[i]);
    if (!growth.empty() && !kUnderSanitizer && options_.duration >= absl::Seconds(30)) board_->Fail(growth);
  }
  return Check();
}

bool Supervisor::AllIsGivenBack() {
  bool all = true;
  for (size_t i = 0; i < result_.watched.size(); ++i) {
    Watched& watched = result_.watched[i];
    const bool is_server = i < servers_.size();
    const Seat& seat = is_server ? *servers_[i] : *clients_[i - servers_.size()];
    if (!seat.running()) continue;  // a client that was killed at the very end
    const HeapState& heap = is_server ? board_->servers[i].heap : board_->clients[i - servers_.size()].heap;
    const absl::StatusOr<Holdings> now = HoldingsOf(seat.pid());
    if (!now.ok()) continue;
    watched.last = *now;
    watched.heap_base = heap.base_bytes.load();
    watched.heap_last = heap.now_bytes.load();
    all = all && watched.heap_last != 0 && NotGivenBack(watched, options_.idle).empty();
  }
  return all;
}

absl::Status Supervisor::End() {
  board_->phase_word.store(static_cast<int>(Phase::kEnd));
  for (const auto& seat : clients_) seat->ExpectEnd(/*signal=*/false);
  const auto all_gone = [](const std::vector<std::unique_ptr<Seat>>& seats) {
    return std::none_of(seats.begin(), seats.end(), [](const auto& seat) { return seat->running(); });
  };
  absl::Status status = Await("the end of the clients", HangGuard(), [&] { return all_gone(clients_); });
  if (!status.ok()) return status;
  for (const auto& seat : servers_) seat->ExpectEnd(/*signal=*/true);
  return Await("the end of the servers", HangGuard(), [&] { return all_gone(servers_); });
}

}  // namespace

absl::StatusOr<SoakResult> RunSoak(const SoakOptions& options, Board* board) {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = 1; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return Supervisor(options, board).Run();
}

}  // namespace shmrpc::soak
