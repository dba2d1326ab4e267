// Unix sockets: abstract ones, and those with a file.

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/tcp_sockets.h"

namespace shmrpc::tcp {
namespace {

using framed::UniqueFd;
using ::testing::AllOf;
using ::testing::HasSubstr;

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

TEST_F(ListenUnixTest, APercentSignAndACommaAreWrittenAsTheyAreForGrpc) {
  const absl::StatusOr<ListeningSocket> listening = Listen(absl::StrCat("unix:", directory_ / "a%2Cb%25%63"));
  ASSERT_TRUE(listening.ok()) << listening.status();
  EXPECT_TRUE(Exists(directory_ / "a,b%c"));
  ExpectConnects(*listening, listening->bound().original, /*tcp=*/false);
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

// As systemd does to directories that are not to be cleaned up, and as anybody may who can open it.
TEST_F(ListenUnixTest, ADirectoryThatOthersHaveLockedIsUsedAllTheSame) {
  for (const int kind : {LOCK_SH, LOCK_EX}) {
    const UniqueFd other(open(directory_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_EQ(flock(other.get(), kind), 0);
    absl::StatusOr<ListeningSocket> listening = Start();
    ASSERT_TRUE(listening.ok()) << listening.status();
    ExpectConnects(*listening, address_, /*tcp=*/false);
    EXPECT_EQ(Start().status().code(), absl::StatusCode::kAlreadyExists);
    listening->Close();
    EXPECT_TRUE(directory_.empty());
    MakeStaleFile(path_);
    listening = Start();
    ASSERT_TRUE(listening.ok()) << listening.status();
    listening->Close();
    EXPECT_TRUE(directory_.empty());
  }
}

TEST_F(ListenUnixTest, ADirectoryThatMayNotBeReadIsUsedAllTheSame) {
  ASSERT_EQ(chmod(directory_.path().c_str(), 0333), 0);
  const int result = [this] {
    const pid_t child = fork();
    if (child != 0) {
      int status = -1;
      EXPECT_EQ(waitpid(child, &status, 0), child);
      return status;
    }
    // Root may read everything.
    if (geteuid() == 0 && (chmod(directory_.path().c_str(), 0733) != 0 || setgid(65534) != 0 || setuid(65534) != 0)) {
      _exit(2);
    }
    MakeStaleFile(path_);
    absl::StatusOr<ListeningSocket> listening = Start();
    if (!listening.ok()) {
      fprintf(stderr, "%s\n", listening.status().ToString().c_str());
      _exit(1);
    }
    const bool there = Exists(path_);
    listening->Close();
    _exit(there && !Exists(path_) ? 0 : 3);
  }();
  ASSERT_EQ(chmod(directory_.path().c_str(), 0700), 0);
  EXPECT_EQ(result, 0);
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
