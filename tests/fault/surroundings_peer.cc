// A program for tests of what surrounds a process: its first argument says what it does. It says on its standard output
// how that went, and ends with its standard input.

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conformance.shmrpc.pb.h"
#include "echo_service.h"
#include "failing_threads.h"
#include "process_state.h"
#include "refused_calls.h"
#include "shmrpc/shmrpc.h"
#include "sync.h"

namespace shmrpc::conformance {
namespace {

constexpr absl::Duration kCallTime = absl::Seconds(20);

void Say(const std::string& line) { std::cout << line << std::endl; }

// Until the test closes this program's input.
void AwaitEnd() {
  std::string line;
  while (std::getline(std::cin, line)) {
  }
}

absl::Status Call(const std::shared_ptr<Channel>& channel, absl::Duration time = kCallTime) {
  Echo::Stub stub(channel);
  ClientContext context;
  context.set_timeout(time);
  EchoRequest request;
  request.set_payload("payload");
  EchoReply reply;
  absl::Status status = stub.Echo(&context, request, &reply);
  if (status.ok() && reply.payload() != "payload") return absl::DataLossError("another reply");
  return status;
}

absl::Status CallAsynchronously(const std::shared_ptr<Channel>& channel, absl::Duration time = kCallTime) {
  Echo::Stub stub(channel);
  ClientContext context;
  context.set_timeout(time);
  EchoRequest request;
  EchoReply reply;
  absl::Status result;
  Event done;
  stub.async().Echo(&context, &request, &reply, [&](absl::Status status) {
    result = std::move(status);
    done.Set();
  });
  return done.Wait() ? result : absl::InternalError("its callback never came");
}

// A server that is to be at hand for the calls of this program.
struct Served {
  Served() {
    auto started = ServerBuilder().Listen("127.0.0.1:0").Register(&echo).Start();
    if (!started.ok()) {
      status = started.status();
      return;
    }
    server = *std::move(started);
    address = server->addresses().front().ToString();
  }
  ~Served() { echo.Release(); }
  EchoService echo;
  std::unique_ptr<Server> server;
  std::string address;
  absl::Status status;
};

// ---- Refused system calls.

int RefusedServer(unsigned number, int error) {
  std::atomic<int> logged{0};
  SetLogSink([&logged](LogLevel, std::string_view) { ++logged; });
  if (!Refuse(number, error)) {
    Say("no seccomp");
    return 1;
  }
  {
    Served served;
    Say(served.status.ok() ? served.address : absl::StrCat("not started: ", served.status.ToString()));
    std::string line;
    while (std::getline(std::cin, line)) {
      absl::SleepFor(absl::Milliseconds(10));
      Say(absl::StrCat("logged ", logged.load()));
    }
    if (served.server != nullptr) served.server->Shutdown(absl::Now() + absl::Seconds(1));
  }
  SetLogSink(nullptr);
  return 0;
}

int RefusedClient(unsigned number, int error, const std::string& address) {
  if (!Refuse(number, error)) {
    Say("no seccomp");
    return 1;
  }
  {
    ChannelOptions options;
    options.connect_timeout = absl::Seconds(5);
    const auto channel = Channel::Create(address, options);
    for (int i = 0; i < 2; ++i) Say(Call(channel).ToString());
    Say(CallAsynchronously(channel).ToString());
    Say("end");
    AwaitEnd();
  }
  return 0;
}

// Signals without SA_RESTART to every thread that does not block them, all the time.
int Interrupted() {
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  sigaction(SIGPROF, &action, nullptr);
  std::string result = "all OK";
  {
    Served served;
    std::atomic<bool> stop{false};
    std::thread storm([&stop] {
      while (!stop) {
        DIR* const tasks = opendir("/proc/self/task");
        while (const dirent* const task = readdir(tasks)) {
          const pid_t id = atoi(task->d_name);
          if (id > 0 && id != gettid()) (void)syscall(SYS_tgkill, getpid(), id, SIGPROF);
        }
        closedir(tasks);
        absl::SleepFor(absl::Microseconds(200));
      }
    });
    for (const TransportPreference way : {TransportPreference::kShm, TransportPreference::kTcp}) {
      for (int i = 0; i < 20; ++i) {
        ChannelOptions options;
        options.transport = way;
        options.wait_mode = WaitMode::kEfficient;
        const auto channel = Channel::Create(served.address, options);
        for (int k = 0; k < 10; ++k) {
          absl::Status status = Call(channel);
          status.Update(CallAsynchronously(channel));
          if (!status.ok()) result = status.ToString();
        }
      }
    }
    stop = true;
    storm.join();
  }
  Say(result);
  AwaitEnd();
  return 0;
}

// ---- Threads.

// "NAME BLOCKED-SIGNALS POLICY NICE CPUS" of each thread of the library's.
void SayThreads() {
  DIR* const tasks = opendir("/proc/self/task");
  while (const dirent* const task = readdir(tasks)) {
    const pid_t id = atoi(task->d_name);
    if (id <= 0) continue;
    std::ifstream status(absl::StrCat("/proc/self/task/", id, "/status"));
    std::string line, name, blocked, cpus;
    while (std::getline(status, line)) {
      if (line.rfind("Name:\t", 0) == 0) name = line.substr(6);
      if (line.rfind("SigBlk:\t", 0) == 0) blocked = line.substr(8);
      if (line.rfind("Cpus_allowed:\t", 0) == 0) cpus = line.substr(14);
    }
    if (name.rfind("shmrpc-", 0) != 0) continue;
    Say(absl::StrCat(name, " ", blocked, " ", sched_getscheduler(id), " ",
                     getpriority(PRIO_PROCESS, static_cast<id_t>(id)), " ", cpus));
  }
  closedir(tasks);
  Say("end");
}

int Threads() {
  // As little like the process as this thread may be without rights of its own.
  cpu_set_t all, one;
  sched_getaffinity(0, sizeof all, &all);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all)) continue;
    CPU_SET(cpu, &one);
    break;
  }
  sched_setaffinity(0, sizeof one, &one);
  const sched_param parameters = {};
  sched_setscheduler(0, SCHED_BATCH, &parameters);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGSEGV);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  Served served;
  const auto channel = Channel::Create(served.address);
  absl::Status status = Call(channel);
  status.Update(CallAsynchronously(channel));
  Say(status.ToString());
  // Handlers enough that threads are started by threads of the library, too.
  std::vector<std::thread> callers;
  for (int i = 0; i < 6; ++i) {
    callers.emplace_back([&] {
      EchoRequest request;
      request.set_hold(true);
      (void)Echo::Stub(channel).Echo(request);
    });
  }
  (void)served.echo.held().WaitFor(6);
  SayThreads();
  served.echo.Release();
  for (std::thread& caller : callers) caller.join();
  AwaitEnd();
  return 0;
}

// A handler of the program's for a signal that a thread of the library raises in user code, and a child that is forked
// there.
class SignalService final : public Echo::Service {
 public:
  explicit SignalService(std::function<void()> body) : body_(std::move(body)) {}
  absl::Status Echo(ServerContext*, const EchoRequest*, EchoReply*) override {
    body_();
    return absl::OkStatus();
  }

 private:
  const std::function<void()> body_;
};

void InHandler(std::function<void()> body) {
  SignalService service(std::move(body));
  const auto server = ServerBuilder().Listen("127.0.0.1:0").Register(&service).Start();
  if (server.ok()) (void)Call(Channel::Create((*server)->addresses().front().ToString()));
}

void InCallback(const std::function<void()>& body) {
  Served served;
  Echo::Stub stub(Channel::Create(served.address));
  ClientContext context;
  EchoRequest request;
  EchoReply reply;
  Event done;
  stub.async().Echo(&context, &request, &reply, [&](absl::Status) {
    body();
    done.Set();
  });
  (void)done.Wait();
}

int Signal(int number, const std::string& where) {
  static std::atomic<pid_t> handled_on{0};
  struct sigaction action = {};
  action.sa_handler = [](int) { handled_on = gettid(); };
  sigaction(number, &action, nullptr);
  pid_t raised_on = 0;
  const auto raise_here = [number, &raised_on] {
    raised_on = gettid();
    raise(number);
  };
  where == "handler" ? InHandler(raise_here) : InCallback(raise_here);
  Say(raised_on == getpid() ? "not on a thread of the library's" : handled_on == raised_on ? "handled" : "not handled");
  AwaitEnd();
  return 0;
}

int ForkedChild(const std::string& where) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);  // the program's wish, which the child inherits
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  std::string result = "no child";
  const auto fork_here = [&result] {
    const pid_t child = fork();
    if (child == 0) {
      sigset_t own;
      pthread_sigmask(SIG_SETMASK, nullptr, &own);
      _exit(sigismember(&own, SIGTERM) == 1 ? 1 : sigismember(&own, SIGUSR2) == 0 ? 2 : 0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    result = status == 0 ? "the program's mask" : absl::StrCat("status ", status);
  };
  where == "handler" ? InHandler(fork_here) : InCallback(fork_here);
  Say(result);
  AwaitEnd();
  return 0;
}

// ---- Shortages.

// Whether calls come through again within a short time; over the same channel, and over a new one.
std::string Recovers(const std::shared_ptr<Channel>& channel) {
  absl::Status status;
  if (!Eventually([&] {
        status = Call(channel);
        return status.ok();
      })) {
    return absl::StrCat("the channel stays broken: ", status.ToString());
  }
  status = Call(Channel::Create(channel->target()));
  status.Update(CallAsynchronously(channel));
  return status.ok() ? "recovers" : status.ToString();
}

int FewDescriptors(int left, const std::string& address) {
  const int next = open("/dev/null", O_RDONLY);  // the lowest that is free
  close(next);
  rlimit usual = {};
  getrlimit(RLIMIT_NOFILE, &usual);
  rlimit few = usual;
  few.rlim_cur = static_cast<rlim_t>(next + left);
  setrlimit(RLIMIT_NOFILE, &few);
  const auto channel = Channel::Create(address);
  const absl::Status first = Call(channel);
  setrlimit(RLIMIT_NOFILE, &usual);
  const std::string result = Recovers(channel);
  Say(absl::StrCat(first.ok() ? "OK" : "an error", ", then ", result));
  AwaitEnd();
  return 0;
}

int FewThreadsClient(int first, int count, const std::string& address) {
  FailThreads(first, count);
  const auto channel = Channel::Create(address);
  const absl::Status before = CallAsynchronously(channel);
  FailThreads(0, 0);
  const std::string result = Recovers(channel);
  Say(absl::StrCat(before.ok() ? "OK" : "an error", ", then ", result));
  AwaitEnd();
  return 0;
}

int FewThreadsServer(int first, int count) {
  FailThreads(first, count);
  {
    const Served served;
    if (!served.status.ok()) {
      Say(absl::StrCat("not started: ", served.status.ToString()));
    } else {
      Say(served.address);
    }
    AwaitEnd();
  }
  return 0;
}

// ---- What it costs.

int ManyThreads(int threads) {
  Served served;
  const auto channel = Channel::Create(served.address);
  absl::Status status = Call(channel);
  const int before = CountOpenDescriptors();
  std::vector<std::thread> callers;
  Event over;
  Counter called;
  for (int i = 0; i < threads; ++i) {
    callers.emplace_back([&] {
      if (!Call(channel).ok()) Say("a call failed");
      called.Increment();
      (void)over.Wait();
    });
  }
  (void)called.WaitFor(threads);
  const int more = CountOpenDescriptors() - before;
  over.Set();
  for (std::thread& caller : callers) caller.join();
  Say(absl::StrCat(more));
  AwaitEnd();
  return 0;
}

int64_t AddressSpaceKiB() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  statm >> pages;
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

int ManyChannels(int channels, const std::string& address) {
  std::vector<std::shared_ptr<Channel>> all;
  int64_t before = 0;
  int failed = 0;
  // The first ones bring the C library to reserve memory for several threads.
  constexpr int kFirst = 30;
  for (int i = 1; i <= kFirst + channels; ++i) {
    all.push_back(Channel::Create(address));
    if (!Call(all.back()).ok()) ++failed;
    if (i == kFirst) before = AddressSpaceKiB();
  }
  Say(absl::StrCat(failed));
  Say(absl::StrCat((AddressSpaceKiB() - before) / channels));
  AwaitEnd();
  return 0;
}

// ---- fork().

// What a child of `body` has to say; waits for its end.
int InChild(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(body());
  }
  int status = -1;
  waitpid(child, &status, 0);
  Say(absl::StrCat("status ", status));
  AwaitEnd();
  return 0;
}

// The usual child of a daemon or a worker: it closes all that it has inherited and opens its own.
int ClosingChild(const std::string& address) {
  ChannelOptions options;
  options.wait_mode = WaitMode::kEfficient;
  if (!Call(Channel::Create(address, options)).ok()) return 1;
  return InChild([&] {
    closefrom(3);
    std::vector<std::array<int, 2>> pairs(8);
    for (auto& pair : pairs) {
      if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair.data()) != 0) return 2;
    }
    const auto own = Channel::Create(address, options);
    for (int i = 0; i < 5; ++i) {
      Echo::Stub stub(own);
      ClientContext context;
      EchoRequest request;
      request.set_hold(true);
      EchoReply reply;
      std::thread canceller([&context] {
        absl::SleepFor(absl::Milliseconds(5));
        context.TryCancel();
      });
      const absl::Status status = stub.Echo(&context, request, &reply);
      canceller.join();
      if (!absl::IsCancelled(status)) return 3;
    }
    for (const auto& pair : pairs) {
      char byte;
      for (const int end : pair) {
        if (read(end, &byte, 1) >= 0 || errno != EAGAIN) return 4;  // somebody has written
      }
      for (const int end : pair) {
        if (write(end, "x", 1) != 1) return 5;
      }
    }
    if (!Call(own).ok() || !CallAsynchronously(own).ok()) return 6;
    for (const auto& pair : pairs) {
      char byte;
      for (const int end : pair) {
        if (read(end, &byte, 1) != 1) return 7;  // somebody has read what was the child's
      }
    }
    return 0;
  });
}

// Children beside a parent that cancels: neither takes the other's wake-ups.
int CancellingParent(const std::string& address) {
  ChannelOptions options;
  options.wait_mode = WaitMode::kEfficient;
  const auto channel = Channel::Create(address, options);
  if (!Call(channel).ok()) return 1;
  std::vector<pid_t> children;
  for (int i = 0; i < 2; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      const auto own = Channel::Create(address, options);
      for (;;) (void)Call(own);
    }
    children.push_back(child);
  }
  int wrong = 0;
  for (int i = 0; i < 100; ++i) {
    Echo::Stub stub(channel);
    ClientContext context;
    context.set_timeout(kCallTime);
    EchoRequest request;
    request.set_hold(true);
    EchoReply reply;
    std::thread canceller([&context] {
      absl::SleepFor(absl::Milliseconds(2));
      context.TryCancel();
    });
    if (!absl::IsCancelled(stub.Echo(&context, request, &reply))) ++wrong;
    canceller.join();
  }
  for (const pid_t child : children) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  Say(absl::StrCat(wrong));
  AwaitEnd();
  return 0;
}

// Forks while other threads use the library for the first time, and go on.
int ForkAmidFirstUses(const std::string& address) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) (void)Call(Channel::Create(address));
    });
  }
  int wrong = 0;
  for (int i = 0; i < 100; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      _exit(Call(Channel::Create(address)).ok() ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (status != 0) ++wrong;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  Say(absl::StrCat(wrong));
  AwaitEnd();
  return 0;
}

// A handler whose child uses the library.
int ChildOfAHandler(const std::string& address) {
  int status = -1;
  InHandler([&] {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      closefrom(3);
      ChannelOptions options;
      options.wait_mode = WaitMode::kEfficient;
      _exit(Call(Channel::Create(address, options)).ok() ? 0 : 1);
    }
    waitpid(child, &status, 0);
  });
  Say(absl::StrCat("status ", status));
  AwaitEnd();
  return 0;
}

int Daemon() {
  auto served = std::make_unique<Served>();
  return InChild([&] {
    static std::atomic<int> lines{0};
    SetLogSink([](LogLevel level, std::string_view text) {
      if (level == LogLevel::kError && text.find("fork first") != std::string_view::npos) ++lines;
    });
    served->server->Wait();
    served->server->Shutdown(absl::Now() + absl::Seconds(1));
    if (!Eventually([] { return lines == 2; })) return 1;
    served->server.reset();
    return 0;
  });
}

// ---- The end.

std::shared_ptr<Channel>* for_the_end = nullptr;

void CallAtTheEnd() {
  Echo::Stub stub(*for_the_end);
  EchoRequest request;
  request.set_payload(std::string(100'000, 'x'));
  const absl::StatusOr<EchoReply> reply = stub.Echo(request);
  Say(reply.ok() ? "OK" : reply.status().ToString());
}

struct CallsWhenDestroyed {
  ~CallsWhenDestroyed() { CallAtTheEnd(); }
};

int AtTheEnd(const std::string& when, const std::string& address, TransportPreference transport) {
  ChannelOptions options;
  options.transport = transport;
  for_the_end = new std::shared_ptr<Channel>(Channel::Create(address, options));
  if (when == "static") {
    static CallsWhenDestroyed at_exit;
  } else if (when == "thread") {
    for (int i = 0; i < 3; ++i) {
      std::thread([] {
        static thread_local CallsWhenDestroyed at_thread_end;
        (void)&at_thread_end;
        CallAtTheEnd();
      }).join();
    }
  } else {
    static thread_local CallsWhenDestroyed at_thread_end;
    (void)&at_thread_end;
  }
  CallAtTheEnd();
  return 0;
}

int Main(const std::vector<std::string>& arguments) {
  const std::string& what = arguments[0];
  const auto text = [&](size_t i) { return i < arguments.size() ? arguments[i] : std::string(); };
  const auto number = [&](size_t i) {
    int value = 0;
    (void)absl::SimpleAtoi(text(i), &value);
    return value;
  };
  if (what == "refused-server") return RefusedServer(static_cast<unsigned>(number(1)), number(2));
  if (what == "refused-client") return RefusedClient(static_cast<unsigned>(number(1)), number(2), text(3));
  if (what == "interrupted") return Interrupted();
  if (what == "threads") return Threads();
  if (what == "signal") return Signal(number(1), text(2));
  if (what == "forked-child") return ForkedChild(text(1));
  if (what == "few-descriptors") return FewDescriptors(number(1), text(2));
  if (what == "few-threads-client") return FewThreadsClient(number(1), number(2), text(3));
  if (what == "few-threads-server") return FewThreadsServer(number(1), number(2));
  if (what == "many-threads") return ManyThreads(number(1));
  if (what == "many-channels") return ManyChannels(number(1), text(2));
  if (what == "closing-child") return ClosingChild(text(1));
  if (what == "cancelling-parent") return CancellingParent(text(1));
  if (what == "fork-amid-first-uses") return ForkAmidFirstUses(text(1));
  if (what == "child-of-a-handler") return ChildOfAHandler(text(1));
  if (what == "daemon") return Daemon();
  if (what == "at-the-end") {
    return AtTheEnd(text(1), text(2), text(3) == "tcp" ? TransportPreference::kTcp : TransportPreference::kShm);
  }
  return 2;
}

}  // namespace
}  // namespace shmrpc::conformance

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  return shmrpc::conformance::Main(std::vector<std::string>(argv + 1, argv + argc));
}
