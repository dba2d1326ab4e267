#include "transports/shm/fd_passing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::shm {
namespace {

using framed::UniqueFd;
using ::testing::HasSubstr;

int OpenDescriptors() {
  DIR* directory = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

// What a peer has passed is closed by another thread.
void ExpectOpenDescriptors(int count) {
  const SteadyTime give_up = SteadyTime::Now() + absl::Seconds(30);
  while (OpenDescriptors() != count && !give_up.HasPassed()) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(OpenDescriptors(), count);
}

class FdPassingTest : public ::testing::Test {
 protected:
  FdPassingTest() {
    int sockets[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets), 0);
    a_.Reset(sockets[0]);
    b_.Reset(sockets[1]);
  }

  // Sends `count` copies of one descriptor in one message, as SendWithFd never would.
  void SendMany(size_t count) {
    std::vector<int> fds(count, a_.get());
    std::vector<char> control(CMSG_SPACE(count * sizeof(int)));
    char byte = 'x';
    iovec piece = {&byte, 1};
    msghdr message = {};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), count * sizeof(int));
    ASSERT_EQ(sendmsg(a_.get(), &message, 0), 1) << strerror(errno);
  }

  absl::StatusOr<std::optional<size_t>> Receive() { return ReceiveWithFds(b_.get(), std::span(buffer_), &received_); }

  UniqueFd a_;
  UniqueFd b_;
  uint8_t buffer_[64] = {};
  std::vector<UniqueFd> received_;
};

TEST_F(FdPassingTest, NothingThereAndEndAreTold) {
  absl::StatusOr<std::optional<size_t>> nothing = Receive();
  ASSERT_TRUE(nothing.ok()) << nothing.status();
  EXPECT_FALSE(nothing->has_value());
  a_.Reset();
  const absl::StatusOr<std::optional<size_t>> end = Receive();
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(*end, std::optional<size_t>(0));
}

TEST_F(FdPassingTest, BytesAlone) {
  const uint8_t bytes[] = {1, 2, 3};
  ASSERT_EQ(*SendWithFd(a_.get(), bytes, -1), 3u);
  EXPECT_EQ(**Receive(), 3u);
  EXPECT_EQ(std::memcmp(buffer_, bytes, 3), 0);
  EXPECT_TRUE(received_.empty());
}

TEST_F(FdPassingTest, OneDescriptorIsTheSameFileAndCloseOnExec) {
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  const uint8_t bytes[] = {7};
  ASSERT_EQ(*SendWithFd(a_.get(), bytes, null.get()), 1u);
  EXPECT_EQ(**Receive(), 1u);
  ASSERT_EQ(received_.size(), 1u);
  struct stat sent;
  struct stat got;
  ASSERT_EQ(fstat(null.get(), &sent), 0);
  ASSERT_EQ(fstat(received_[0].get(), &got), 0);
  EXPECT_EQ(sent.st_rdev, got.st_rdev);
  EXPECT_NE(fcntl(received_[0].get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(FdPassingTest, MoreThanOneAreClosedAndRefused) {
  const int before = OpenDescriptors();
  for (const size_t count : {2, 3, 253}) {
    SendMany(count);
    const absl::Status status = Receive().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("more descriptors"));
    EXPECT_TRUE(received_.empty());
    ExpectOpenDescriptors(before);
  }
}

TEST_F(FdPassingTest, MoreThanOneInSeveralCallsAreRefused) {
  SendMany(1);
  EXPECT_EQ(**Receive(), 1u);
  EXPECT_EQ(received_.size(), 1u);
  const int before = OpenDescriptors();
  SendMany(1);
  EXPECT_EQ(Receive().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(received_.size(), 1u);
  ExpectOpenDescriptors(before);
}

TEST_F(FdPassingTest, WithoutRoomInTheTableItIsLost) {
  const int before = OpenDescriptors();
  SendMany(1);
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old_limit), 0);
  UniqueFd lowest_free(dup(0));
  const rlimit none_left = {static_cast<rlim_t>(lowest_free.get()), old_limit.rlim_max};
  lowest_free.Reset();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none_left), 0);
  const absl::Status status = Receive().status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old_limit), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("RLIMIT_NOFILE"));
  EXPECT_TRUE(received_.empty());
  EXPECT_EQ(OpenDescriptors(), before);
}

// The last reference to a TCP socket with unsent data and a long SO_LINGER: whoever drops it waits.
class LingeringTest : public FdPassingTest {
 protected:
  static constexpr int kLingerSeconds = 60;

  // Puts one into the queue of b_, and keeps none.
  void SendLingering() {
    UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    ASSERT_EQ(listen(listener.get(), 1), 0);
    ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    const UniqueFd lingering(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(lingering.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    reader_ = UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const linger on = {1, kLingerSeconds};
    ASSERT_EQ(setsockopt(lingering.get(), SOL_SOCKET, SO_LINGER, &on, sizeof on), 0);
    const std::string bytes(1 << 16, 'x');
    while (send(lingering.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
    }
    const uint8_t byte[] = {1};
    ASSERT_EQ(*SendWithFd(a_.get(), byte, lingering.get()), 1u);
  }
  // The thread that waits is to end before the test.
  void TearDown() override { reader_.Reset(); }

  UniqueFd reader_;  // of the other end, which reads nothing
};

TEST_F(LingeringTest, ADescriptorWhoseCloseBlocksIsClosedElsewhere) {
  SendLingering();
  ASSERT_EQ(**Receive(), 1u);
  ASSERT_EQ(received_.size(), 1u);
  const SteadyTime before = SteadyTime::Now();
  CloseReceived(std::move(received_[0]));
  EXPECT_LT(SteadyTime::Now() - before, absl::Seconds(kLingerSeconds / 2)) << "it hung";
}

TEST_F(LingeringTest, ASocketInWhoseQueueOneLiesIsClosedElsewhere) {
  SendLingering();
  const SteadyTime before = SteadyTime::Now();
  CloseUnread(std::move(b_));
  EXPECT_LT(SteadyTime::Now() - before, absl::Seconds(kLingerSeconds / 2)) << "it hung";
}

TEST_F(FdPassingTest, NoneCanBePassedWhereTheyAreRefused) {
  RefuseFds(b_.get());
  const uint8_t bytes[] = {1};
  const absl::StatusOr<size_t> sent = SendWithFd(a_.get(), bytes, a_.get());
  if (sent.ok()) GTEST_SKIP() << "this kernel cannot refuse descriptors: it needs Linux 6.16";
  EXPECT_EQ(sent.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(*SendWithFd(a_.get(), bytes, -1), 1u);
}

TEST_F(FdPassingTest, AFullSocketTakesNothing) {
  const std::vector<uint8_t> bytes(64 * 1024, 1);
  while (*SendWithFd(a_.get(), bytes, -1) > 0) {
  }
  EXPECT_EQ(*SendWithFd(a_.get(), bytes, a_.get()), 0u);
}

TEST_F(FdPassingTest, SendingFailsPlainly) {
  const uint8_t bytes[] = {1};
  EXPECT_EQ(SendWithFd(a_.get(), bytes, 1'000'000).status().code(), absl::StatusCode::kInternal);
  b_.Reset();
  EXPECT_EQ(SendWithFd(a_.get(), bytes, a_.get()).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReceiveWithFds(-1, std::span(buffer_), &received_).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace shmrpc::shm
