#include "transports/tcp/listening_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/unique_fd.h"
#include "transports/tcp/connect_socket.h"
#include "transports/tcp/socket_address.h"

namespace shmrpc::tcp {
namespace {

using framed::UniqueFd;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr absl::Duration kHangGuard = absl::Seconds(30);

Target T(absl::string_view text) {
  absl::StatusOr<Target> target = Target::Parse(text);
  EXPECT_TRUE(target.ok()) << target.status();
  return *target;
}

absl::StatusOr<ListeningSocket> Listen(absl::string_view text, mode_t mode = 0600) {
  return ListenSocket(T(text), mode);
}

absl::StatusOr<UniqueFd> Connect(absl::string_view text, absl::Duration timeout = kHangGuard) {
  return ConnectSocket(T(text), SteadyTime::Now() + timeout);
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// Waits for the connection that a client has begun.
UniqueFd Accept(const ListeningSocket& listening) {
  pollfd readable = {listening.fd(), POLLIN, 0};
  EXPECT_EQ(poll(&readable, 1, 30'000), 1);
  absl::StatusOr<std::optional<UniqueFd>> accepted = AcceptSocket(listening.fd());
  EXPECT_TRUE(accepted.ok()) << accepted.status();
  if (!accepted.ok() || !accepted->has_value()) return UniqueFd();
  return std::move(**accepted);
}

bool Exists(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

ino_t Inode(const std::string& path) {
  struct stat status = {};
  EXPECT_EQ(lstat(path.c_str(), &status), 0) << path;
  return status.st_ino;
}

// The socket file that a process leaves behind which was killed.
void MakeStaleFile(const std::string& path, int type = SOCK_STREAM) {
  const UniqueFd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  const SocketAddress address = *SocketAddress::FromUnixPath(path);
  ASSERT_EQ(bind(socket.get(), address.data(), address.length()), 0) << strerror(errno);
}

bool HasIpv6() {
  const UniqueFd socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const SocketAddress address = *SocketAddress::FromLiteral("::1", 0);
  return socket.valid() && bind(socket.get(), address.data(), address.length()) == 0;
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "shmrpc-test-XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }

  std::string operator/(absl::string_view name) const { return absl::StrCat(path_, "/", name); }
  const std::string& path() const { return path_; }
  bool empty() const { return std::filesystem::is_empty(path_); }

 private:
  std::string path_;
};

void ExpectReadyForUse(int fd, bool tcp) {
  EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  int no_delay = 0;
  socklen_t length = sizeof(no_delay);
  if (tcp) {
    EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &length), 0);
    EXPECT_EQ(no_delay, 1);
  }
}

void ExpectConnects(const ListeningSocket& listening, absl::string_view address, bool tcp) {
  const absl::StatusOr<UniqueFd> client = Connect(address);
  ASSERT_TRUE(client.ok()) << client.status();
  const UniqueFd server = Accept(listening);
  ASSERT_TRUE(server.valid());
  ExpectReadyForUse(client->get(), tcp);
  ExpectReadyForUse(server.get(), tcp);
  EXPECT_EQ(PeerAddress(server.get()), LocalAddress(client->get()));
  ASSERT_EQ(send(client->get(), "x", 1, MSG_NOSIGNAL), 1);
  pollfd readable = {server.get(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 30'000), 1);
  char byte = 0;
  EXPECT_EQ(recv(server.get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'x');
}

// ---- TCP

TEST(ListenTcpTest, ThePortIsTheRealOne) {
  const absl::StatusOr<ListeningSocket> listening = Listen("127.0.0.1:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  EXPECT_EQ(listening->bound().host, "127.0.0.1");
  EXPECT_GT(listening->bound().port, 0);
  EXPECT_EQ(listening->bound().original, absl::StrCat("ipv4:127.0.0.1:", listening->bound().port));
  EXPECT_NE(fcntl(listening->fd(), F_GETFL) & O_NONBLOCK, 0);
  ExpectConnects(*listening, listening->bound().original, /*tcp=*/true);
}

TEST(ListenTcpTest, LocalhostIsTheIpv4Loopback) {
  const absl::StatusOr<ListeningSocket> listening = Listen("localhost:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  EXPECT_EQ(listening->bound().host, "127.0.0.1");
  ExpectConnects(*listening, absl::StrCat("localhost:", listening->bound().port), /*tcp=*/true);
}

TEST(ListenTcpTest, AllInterfaces) {
  const absl::StatusOr<ListeningSocket> listening = Listen("0.0.0.0:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  ExpectConnects(*listening, absl::StrCat("127.0.0.1:", listening->bound().port), /*tcp=*/true);
}

TEST(ListenTcpTest, Ipv6AndIpv4OnAllInterfaces) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here";
  const absl::StatusOr<ListeningSocket> loopback = Listen("[::1]:0");
  ASSERT_TRUE(loopback.ok()) << loopback.status();
  EXPECT_THAT(loopback->bound().original, StartsWith("ipv6:[::1]:"));
  ExpectConnects(*loopback, loopback->bound().original, /*tcp=*/true);
  // localhost has two addresses, and only the second one is served.
  ExpectConnects(*loopback, absl::StrCat("localhost:", loopback->bound().port), /*tcp=*/true);

  const absl::StatusOr<ListeningSocket> all = Listen("[::]:0");
  ASSERT_TRUE(all.ok()) << all.status();
  ExpectConnects(*all, absl::StrCat("[::1]:", all->bound().port), /*tcp=*/true);
  ExpectConnects(*all, absl::StrCat("127.0.0.1:", all->bound().port), /*tcp=*/true);
}

TEST(ListenTcpTest, APortInUseIsNamed) {
  const absl::StatusOr<ListeningSocket> first = Listen("127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status status = Listen(first->bound().original).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(status), HasSubstr(first->bound().original));
}

TEST(ListenTcpTest, ThePortIsFreeAgainAtOnce) {
  absl::StatusOr<ListeningSocket> first = Listen("127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = first->bound().original;
  const absl::StatusOr<UniqueFd> client = Connect(address);
  ASSERT_TRUE(client.ok()) << client.status();
  Accept(*first);  // closes its end first, which leaves the port in TIME_WAIT
  first->Close();
  const absl::StatusOr<ListeningSocket> second = Listen(address);
  EXPECT_TRUE(second.ok()) << second.status();
}

TEST(ListenTcpTest, AForeignAddressIsRefused) {
  // TEST-NET-1 (RFC 5737) belongs to no host.
  const absl::Status status = Listen("192.0.2.1:0").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(Message(status), AllOf(HasSubstr("ipv4:192.0.2.1:0"), HasSubstr("EADDRNOTAVAIL")));
}

TEST(ListenTcpTest, InprocHasNoSocket) {
  EXPECT_EQ(Listen("inproc:name").status().code(), absl::StatusCode::kInvalidArgument);
}

// ---- Accepting

TEST(AcceptTest, NoneIsNotAnError) {
  const absl::StatusOr<ListeningSocket> listening = Listen("127.0.0.1:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  const absl::StatusOr<std::optional<UniqueFd>> accepted = AcceptSocket(listening->fd());
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_FALSE(accepted->has_value());
}

TEST(AcceptTest, WithoutDescriptorsConnectionsWaitUntilThereAreSome) {
  const absl::StatusOr<ListeningSocket> listening = Listen("127.0.0.1:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  const absl::StatusOr<UniqueFd> client = Connect(listening->bound().original);
  ASSERT_TRUE(client.ok()) << client.status();
  pollfd readable = {listening->fd(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 30'000), 1);

  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old_limit), 0);
  const UniqueFd lowest_free(dup(0));
  const rlimit none_left = {static_cast<rlim_t>(lowest_free.get()), old_limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none_left), 0);
  const absl::Status accepted = AcceptSocket(listening->fd()).status();
  const absl::Status connected = Connect(listening->bound().original).status();
  const absl::Status listened = Listen("127.0.0.1:0").status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old_limit), 0);

  EXPECT_EQ(accepted.code(), absl::StatusCode::kResourceExhausted) << accepted;
  EXPECT_EQ(connected.code(), absl::StatusCode::kUnavailable) << connected;
  EXPECT_EQ(listened.code(), absl::StatusCode::kResourceExhausted) << listened;
  for (const absl::Status& status : {accepted, connected, listened}) {
    EXPECT_THAT(Message(status), AllOf(HasSubstr("EMFILE"), HasSubstr("127.0.0.1"), HasSubstr("ulimit -n")));
  }
  EXPECT_TRUE(Accept(*listening).valid());
}

TEST(AcceptTest, ASocketThatDoesNotListenIsFatal) {
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  EXPECT_EQ(AcceptSocket(socket.get()).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(AcceptSocket(-1).status().code(), absl::StatusCode::kInternal);
}

// ---- Connecting

TEST(ConnectTest, NobodyListens) {
  absl::StatusOr<ListeningSocket> listening = Listen("127.0.0.1:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  const std::string address = listening->bound().original;
  listening->Close();
  const absl::Status status = Connect(address).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(status), absl::StrCat("nothing listens on ", address,
                                          " (Connection refused): is the server running, and is this its address?"));

  const TemporaryDirectory directory;
  const absl::Status no_file = Connect(absl::StrCat("unix:", directory / "s")).status();
  EXPECT_EQ(no_file.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(no_file), AllOf(HasSubstr(directory / "s"), HasSubstr("No such file or directory")));
  MakeStaleFile(directory / "s");
  EXPECT_THAT(Message(Connect(absl::StrCat("unix:", directory / "s")).status()), HasSubstr("Connection refused"));
  MakeStaleFile(directory / "d", SOCK_DGRAM);
  EXPECT_EQ(Connect(absl::StrCat("unix:", directory / "d")).status().code(), absl::StatusCode::kUnavailable);
}

TEST(ConnectTest, AllAddressesOfANameAreTriedAndNamed) {
  absl::StatusOr<ListeningSocket> listening = Listen("localhost:0");
  ASSERT_TRUE(listening.ok()) << listening.status();
  const uint16_t port = listening->bound().port;
  listening->Close();
  const absl::Status status = Connect(absl::StrCat("localhost:", port)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr(absl::StrCat("ipv4:127.0.0.1:", port)), HasSubstr(absl::StrCat("ipv6:[::1]:", port))));
}

// A server that does not accept, with a queue that is full: whoever connects now has to wait.
class FullServer {
 public:
  explicit FullServer(const SocketAddress& address)
      : socket_(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    EXPECT_EQ(bind(socket_.get(), address.data(), address.length()), 0);
    EXPECT_EQ(listen(socket_.get(), 0), 0);
    address_ = LocalAddress(socket_.get());
    const SocketAddress bound = Resolve(T(address_))->front();
    // The kernel's queue has one place more than listen() says, and TCP drops what does not fit.
    for (int i = 0; i < 4; ++i) {
      clients_.emplace_back(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      connect(clients_.back().get(), bound.data(), bound.length());
    }
  }

  const std::string& address() const { return address_; }
  int fd() const { return socket_.get(); }

 private:
  UniqueFd socket_;
  std::string address_;
  std::vector<UniqueFd> clients_;
};

class ConnectToFullServerTest : public ::testing::TestWithParam<bool> {
 protected:
  ConnectToFullServerTest()
      : server_(GetParam() ? *SocketAddress::FromUnixPath(directory_ / "s")
                           : *SocketAddress::FromLiteral("127.0.0.1", 0)) {}

  TemporaryDirectory directory_;
  FullServer server_;
};

TEST_P(ConnectToFullServerTest, TimesOut) {
  const absl::Status status = Connect(server_.address(), absl::Milliseconds(50)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(Message(status), HasSubstr(server_.address()));
  EXPECT_EQ(ConnectSocket(T(server_.address()), SteadyTime::InfinitePast()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_P(ConnectToFullServerTest, IsInterrupted) {
  const UniqueFd interrupt(eventfd(0, EFD_CLOEXEC));
  std::thread interrupter([&interrupt] {
    absl::SleepFor(absl::Milliseconds(20));
    const uint64_t one = 1;
    EXPECT_EQ(write(interrupt.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  });
  const absl::Status status =
      ConnectSocket(T(server_.address()), SteadyTime::InfiniteFuture(), interrupt.get()).status();
  interrupter.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_THAT(Message(status), HasSubstr(server_.address()));
}

TEST_P(ConnectToFullServerTest, ConnectsOnceThereIsRoom) {
  std::atomic<bool> stop{false};
  std::thread accepter([this, &stop] {
    std::vector<UniqueFd> accepted;
    while (!stop) {
      pollfd readable = {server_.fd(), POLLIN, 0};
      if (poll(&readable, 1, 10) == 1) accepted.emplace_back(accept4(server_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    }
  });
  const absl::StatusOr<UniqueFd> client = Connect(server_.address());
  stop = true;
  accepter.join();
  EXPECT_TRUE(client.ok()) << client.status();
}

INSTANTIATE_TEST_SUITE_P(TcpAndUnix, ConnectToFullServerTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Unix" : "Tcp"; });

// ---- Unix sockets in the abstract namespace

TEST(ListenAbstractTest, TheNameIsTakenOnce) {
  const std::string address = absl::StrCat("unix-abstract:shmrpc-test-", getpid());
  absl::StatusOr<ListeningSocket> first = Listen(address);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->bound().original, address);
  ExpectConnects(*first, address, /*tcp=*/false);
  const absl::Status second = Listen(address).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(second), HasSubstr(address));
  first->Close();
  EXPECT_TRUE(Listen(address).ok());
}

// ---- Unix socket files

class ListenUnixTest : public ::testing::Test {
 protected:
  absl::StatusOr<ListeningSocket> Start(mode_t mode = 0600) { return Listen(address_, mode); }

  const TemporaryDirectory directory_;
  const std::string path_ = directory_ / "server.sock";
  const std::string address_ = absl::StrCat("unix:", path_);
};

TEST_F(ListenUnixTest, LeavesNothingBehind) {
  absl::StatusOr<ListeningSocket> listening = Start();
  ASSERT_TRUE(listening.ok()) << listening.status();
  EXPECT_EQ(listening->bound().original, address_);
  ExpectConnects(*listening, address_, /*tcp=*/false);
  ListeningSocket moved = *std::move(listening);
  EXPECT_TRUE(Exists(path_));
  moved = ListeningSocket();
  EXPECT_TRUE(directory_.empty());
}

TEST_F(ListenUnixTest, ALiveServerIsNotDisturbed) {
  const absl::StatusOr<ListeningSocket> first = Start();
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = Start().status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(second), AllOf(HasSubstr("another process listens on"), HasSubstr(path_)));
  UniqueFd probe = Accept(*first);  // what `second` asked with
  EXPECT_TRUE(probe.valid());
  ExpectConnects(*first, address_, /*tcp=*/false);
}

TEST_F(ListenUnixTest, AServerWithAFullQueueIsAlive) {
  const FullServer server(*SocketAddress::FromUnixPath(path_));
  EXPECT_EQ(Start().status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(Exists(path_));
}

TEST_F(ListenUnixTest, AStaleFileIsTakenOver) {
  MakeStaleFile(path_);
  const absl::StatusOr<ListeningSocket> listening = Start();
  ASSERT_TRUE(listening.ok()) << listening.status();
  ExpectConnects(*listening, address_, /*tcp=*/false);
}

TEST_F(ListenUnixTest, AfterKillOnlyTheSocketFileStaysAndIsTakenOver) {
  int ready[2];
  ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const absl::StatusOr<ListeningSocket> listening = Start();
    const char ok = listening.ok();
    if (write(ready[1], &ok, 1) != 1) _exit(1);
    while (true) pause();
  }
  close(ready[1]);
  char ok = 0;
  EXPECT_EQ(read(ready[0], &ok, 1), 1);
  close(ready[0]);
  EXPECT_EQ(ok, 1);
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);

  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory_.path())) ++files;
  EXPECT_EQ(files, 1);
  absl::StatusOr<ListeningSocket> listening = Start();
  ASSERT_TRUE(listening.ok()) << listening.status();
  listening->Close();
  EXPECT_TRUE(directory_.empty());
}

TEST_F(ListenUnixTest, OtherFilesAreLeftAlone) {
  const UniqueFd file(open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  ASSERT_EQ(write(file.get(), "x", 1), 1);
  const absl::Status status = Start().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(status), AllOf(HasSubstr(path_), HasSubstr("not a socket")));
  EXPECT_EQ(std::filesystem::file_size(path_), 1u);

  const std::string link = directory_ / "link";
  MakeStaleFile(directory_ / "stale");
  ASSERT_EQ(symlink((directory_ / "stale").c_str(), link.c_str()), 0);
  EXPECT_EQ(Listen(absl::StrCat("unix:", link)).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(Exists(directory_ / "stale"));

  ASSERT_EQ(mkdir((directory_ / "dir").c_str(), 0700), 0);
  EXPECT_EQ(Listen(absl::StrCat("unix:", directory_ / "dir")).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(ListenUnixTest, ADatagramSocketInTheWayIsNotTakenForAStaleFile) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const SocketAddress address = *SocketAddress::FromUnixPath(path_);
  ASSERT_EQ(bind(socket.get(), address.data(), address.length()), 0);
  EXPECT_EQ(Start().status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(Exists(path_));
}

TEST_F(ListenUnixTest, PathsThatCannotBe) {
  EXPECT_EQ(Listen(absl::StrCat("unix:", directory_ / "")).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Listen(absl::StrCat("unix:", directory_ / ".")).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status missing = Listen(absl::StrCat("unix:", directory_ / "no/s")).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(missing), HasSubstr(directory_ / "no/"));
}

TEST_F(ListenUnixTest, ModeWhateverTheUmask) {
  for (const mode_t umask_value : {0, 022, 077, 0777}) {
    for (const mode_t mode : {0600, 0660, 0666, 0400}) {
      const mode_t old_umask = umask(umask_value);
      const absl::StatusOr<ListeningSocket> listening = Start(mode);
      umask(old_umask);
      ASSERT_TRUE(listening.ok()) << listening.status();
      struct stat status;
      ASSERT_EQ(lstat(path_.c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 07777, mode) << "umask " << umask_value;
    }
  }
}

TEST_F(ListenUnixTest, ClosingDoesNotRemoveASuccessorsFile) {
  absl::StatusOr<ListeningSocket> first = Start();
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_EQ(unlink(path_.c_str()), 0);
  const absl::StatusOr<ListeningSocket> second = Start();
  ASSERT_TRUE(second.ok()) << second.status();
  const ino_t inode = Inode(path_);
  first->Close();
  ASSERT_TRUE(Exists(path_));
  EXPECT_EQ(Inode(path_), inode);
  ExpectConnects(*second, address_, /*tcp=*/false);
}

TEST_F(ListenUnixTest, ARelativePathSurvivesAChangeOfDirectory) {
  const std::filesystem::path old_directory = std::filesystem::current_path();
  std::filesystem::current_path(directory_.path());
  absl::StatusOr<ListeningSocket> listening = Listen("unix:relative.sock");
  std::filesystem::current_path(old_directory);
  ASSERT_TRUE(listening.ok()) << listening.status();
  EXPECT_TRUE(Exists(directory_ / "relative.sock"));
  listening->Close();
  EXPECT_TRUE(directory_.empty());
}

TEST_F(ListenUnixTest, AForkedChildRemovesNothing) {
  absl::StatusOr<ListeningSocket> listening = Start();
  ASSERT_TRUE(listening.ok()) << listening.status();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    listening->Close();
    _exit(0);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(Exists(path_));
  ExpectConnects(*listening, address_, /*tcp=*/false);
}

TEST_F(ListenUnixTest, WaitsForAnotherStarterToFinish) {
  const UniqueFd other(open(directory_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(flock(other.get(), LOCK_EX), 0);
  std::atomic<bool> released{false};
  std::thread starter([this, &released] {
    const absl::StatusOr<ListeningSocket> listening = Start();
    EXPECT_TRUE(listening.ok()) << listening.status();
    EXPECT_TRUE(released);
  });
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_FALSE(Exists(path_));
  released = true;
  ASSERT_EQ(flock(other.get(), LOCK_UN), 0);
  starter.join();
}

TEST_F(ListenUnixTest, OfStartersThatFindAStaleFileOneWins) {
  constexpr int kStarters = 4;
  for (int round = 0; round < 200; ++round) {
    MakeStaleFile(path_);
    std::vector<absl::StatusOr<ListeningSocket>> results(kStarters);
    std::barrier together(kStarters);
    std::vector<std::thread> threads;
    for (absl::StatusOr<ListeningSocket>& result : results) {
      threads.emplace_back([this, &result, &together] {
        together.arrive_and_wait();
        result = Start();
      });
    }
    for (std::thread& thread : threads) thread.join();
    int winners = 0;
    for (const absl::StatusOr<ListeningSocket>& result : results) {
      if (!result.ok()) {
        EXPECT_EQ(result.status().code(), absl::StatusCode::kAlreadyExists) << result.status();
        continue;
      }
      ++winners;
      EXPECT_TRUE(Connect(address_).ok());
      EXPECT_TRUE(Accept(*result).valid());
    }
    ASSERT_EQ(winners, 1);
    results.clear();
    ASSERT_TRUE(directory_.empty());
  }
}

// Each thread starts and stops as fast as it can: whoever has started is reachable until it stops.
TEST_F(ListenUnixTest, StoppingDoesNotDisturbTheNextToStart) {
  std::atomic<int> listening{0};
  std::atomic<int> wins{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        absl::StatusOr<ListeningSocket> socket = Start();
        if (!socket.ok()) {
          EXPECT_EQ(socket.status().code(), absl::StatusCode::kAlreadyExists) << socket.status();
          continue;
        }
        EXPECT_EQ(++listening, 1);
        ++wins;
        const absl::StatusOr<UniqueFd> client = Connect(address_);
        EXPECT_TRUE(client.ok()) << client.status();
        --listening;
        // From here on others take the file over, before or after Close looks at it.
        shutdown(socket->fd(), SHUT_RDWR);
        socket->Close();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(wins, 0);
  EXPECT_TRUE(directory_.empty());
}

}  // namespace
}  // namespace shmrpc::tcp
