#include "transports/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::shm {
namespace {

using framed::UniqueFd;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr size_t kSize = 16 * 4096;
constexpr uint64_t kLimit = uint64_t{1} << 30;
constexpr int kAllSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

UniqueFd Copy(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

UniqueFd MakeMemfd(uint64_t size, int seals) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_TRUE(fd.valid());
  EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(size)), 0) << strerror(errno);
  if (seals != 0) {
    EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0) << strerror(errno);
  }
  return fd;
}

// Expects a refusal whose message contains `why`.
void ExpectRefused(UniqueFd fd, uint64_t size, std::string_view why) {
  const absl::Status status = PeerSegment::Map(std::move(fd), size, kLimit).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(why)));
}

// Runs `body` in a child process and expects it to return true there.
void ExpectInChild(const std::function<bool()>& body) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(body() ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(SegmentTest, ThePeerSeesWhatTheOwnerWrites) {
  absl::StatusOr<Segment> segment = Segment::Create(kSize);
  ASSERT_TRUE(segment.ok()) << segment.status();
  ASSERT_EQ(segment->size(), kSize);
  for (size_t i = 0; i < kSize; ++i) ASSERT_EQ(segment->data()[i], 0);
  EXPECT_NE(fcntl(segment->fd(), F_GETFD) & FD_CLOEXEC, 0);

  absl::StatusOr<PeerSegment> peer = PeerSegment::Map(Copy(segment->fd()), kSize, kLimit);
  ASSERT_TRUE(peer.ok()) << peer.status();
  segment->ReleaseFd();
  EXPECT_EQ(segment->fd(), -1);
  segment->data()[0] = 1;
  segment->data()[kSize - 1] = 2;
  EXPECT_EQ(peer->size(), kSize);
  EXPECT_EQ(peer->data()[0], 1);
  EXPECT_EQ(peer->data()[kSize - 1], 2);

  Segment moved = *std::move(segment);
  PeerSegment peer_moved = *std::move(peer);
  moved.data()[0] = 3;
  EXPECT_EQ(peer_moved.data()[0], 3);
}

TEST(SegmentTest, ThePeerOutlivesTheOwner) {
  absl::StatusOr<Segment> segment = Segment::Create(kSize);
  ASSERT_TRUE(segment.ok()) << segment.status();
  const absl::StatusOr<PeerSegment> peer = PeerSegment::Map(Copy(segment->fd()), kSize, kLimit);
  ASSERT_TRUE(peer.ok()) << peer.status();
  segment->data()[5] = 5;
  segment = absl::CancelledError();
  EXPECT_EQ(peer->data()[5], 5);
}

TEST(SegmentTest, NobodyElseCanWriteTruncateOrUnseal) {
  const absl::StatusOr<Segment> segment = Segment::Create(kSize);
  ASSERT_TRUE(segment.ok()) << segment.status();
  const std::string path = absl::StrCat("/proc/self/fd/", segment->fd());
  UniqueFd reopened(open(path.c_str(), O_RDWR | O_CLOEXEC));
  for (const int fd : {segment->fd(), reopened.valid() ? reopened.get() : segment->fd()}) {
    EXPECT_EQ(mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(pwrite(fd, "x", 1, 0), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(ftruncate(fd, 0), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(ftruncate(fd, 2 * kSize), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    EXPECT_EQ(errno, EPERM);
  }
  const absl::StatusOr<PeerSegment> peer = PeerSegment::Map(Copy(segment->fd()), kSize, kLimit);
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(mprotect(const_cast<uint8_t*>(peer->data()), kSize, PROT_READ | PROT_WRITE), -1);
  EXPECT_EQ(errno, EACCES);
}

TEST(SegmentTest, AForkedChildHasNoMapping) {
  absl::StatusOr<Segment> segment = Segment::Create(kSize);
  ASSERT_TRUE(segment.ok()) << segment.status();
  absl::StatusOr<PeerSegment> peer = PeerSegment::Map(Copy(segment->fd()), kSize, kLimit);
  ASSERT_TRUE(peer.ok()) << peer.status();
  ExpectInChild([&] {
    for (const uint8_t* memory : {static_cast<const uint8_t*>(segment->data()), peer->data()}) {
      unsigned char resident;
      if (mincore(const_cast<uint8_t*>(memory), 4096, &resident) == 0 || errno != ENOMEM) return false;
    }
    // What the child maps at the same place is not unmapped by the inherited object.
    void* own = mmap(segment->data(), kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    segment = absl::CancelledError();
    *static_cast<volatile char*>(own) = 1;
    return true;
  });
  segment->data()[0] = 1;
  EXPECT_EQ(peer->data()[0], 1);
}

TEST(SegmentTest, WithoutDescriptors) {
  ExpectInChild([] {
    const rlimit none = {0, 0};
    if (setrlimit(RLIMIT_NOFILE, &none) != 0) return false;
    const absl::Status status = Segment::Create(kSize).status();
    return absl::IsResourceExhausted(status) && absl::StartsWith(status.message(), "memfd") &&
           absl::StrContains(status.message(), "EMFILE");
  });
}

TEST(SegmentTest, BeyondTheFileSizeLimitTheProcessIsNotKilled) {
  ExpectInChild([] {
    signal(SIGXFSZ, SIG_DFL);
    const rlimit small = {4096, 4096};
    if (setrlimit(RLIMIT_FSIZE, &small) != 0) return false;
    const absl::Status status = Segment::Create(kSize).status();
    return absl::IsResourceExhausted(status) && absl::StartsWith(status.message(), "memfd") &&
           absl::StrContains(status.message(), "EFBIG") && Segment::Create(4096).ok();
  });
}

TEST(SegmentTest, WithoutAddressSpace) {
  // More than any process has: what RLIMIT_AS does with less.
  const absl::Status status = Segment::Create(size_t{1} << 50).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(StartsWith("memfd"), HasSubstr("ENOMEM")));
}

TEST(PeerSegmentTest, ASealedMemfdIsTaken) {
  const absl::StatusOr<PeerSegment> peer = PeerSegment::Map(MakeMemfd(kSize, kAllSeals), kSize, kSize);
  EXPECT_TRUE(peer.ok()) << peer.status();
}

TEST(PeerSegmentTest, EverySealIsNeeded) {
  ExpectRefused(MakeMemfd(kSize, 0), kSize, "F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE, F_SEAL_SEAL");
  ExpectRefused(MakeMemfd(kSize, kAllSeals & ~F_SEAL_SHRINK), kSize, "lacks the seals F_SEAL_SHRINK");
  ExpectRefused(MakeMemfd(kSize, kAllSeals & ~F_SEAL_GROW), kSize, "lacks the seals F_SEAL_GROW");
  ExpectRefused(MakeMemfd(kSize, kAllSeals & ~F_SEAL_FUTURE_WRITE), kSize, "lacks the seals F_SEAL_FUTURE_WRITE");
  ExpectRefused(MakeMemfd(kSize, kAllSeals & ~F_SEAL_SEAL), kSize, "lacks the seals F_SEAL_SEAL");
}

TEST(PeerSegmentTest, TheSizeMustBeTheAnnouncedOne) {
  ExpectRefused(MakeMemfd(4096, kAllSeals), kSize, "has 4096 bytes, 65536 were announced");
  ExpectRefused(MakeMemfd(kSize - 1, kAllSeals), kSize, "65535");
  ExpectRefused(MakeMemfd(kSize + 1, kAllSeals), kSize, "65537");
  ExpectRefused(MakeMemfd(0, kAllSeals), kSize, "has 0 bytes");
}

TEST(PeerSegmentTest, TheSizeHasALimit) {
  constexpr uint64_t kTebibyte = uint64_t{1} << 40;
  ExpectRefused(MakeMemfd(kTebibyte, kAllSeals), kTebibyte, "1099511627776 bytes, the limit is 1073741824");
  ExpectRefused(MakeMemfd(kTebibyte, kAllSeals), kSize, "1099511627776");
  ExpectRefused(MakeMemfd(0, kAllSeals), 0, "0 bytes");
}

TEST(PeerSegmentTest, OnlyMemfds) {
  std::string name = (std::filesystem::temp_directory_path() / "shmrpc-test-XXXXXX").string();
  UniqueFd file(mkstemp(name.data()));
  ASSERT_TRUE(file.valid());
  unlink(name.c_str());
  ASSERT_EQ(ftruncate(file.get(), kSize), 0);
  ExpectRefused(std::move(file), kSize, "");

  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  ExpectRefused(UniqueFd(ends[0]), kSize, "a pipe");
  ExpectRefused(UniqueFd(ends[1]), kSize, "a pipe");
  ExpectRefused(UniqueFd(open("/dev/zero", O_RDWR | O_CLOEXEC)), kSize, "a device");
  ExpectRefused(UniqueFd(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)), kSize, "a directory");
  ExpectRefused(UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), kSize, "a socket");
  ExpectRefused(UniqueFd(), kSize, "EBADF");
}

TEST(PeerSegmentTest, AFileInSharedMemoryWithANameIsNoMemfd) {
  const std::string name = absl::StrCat("/shmrpc-test-", getpid());
  UniqueFd fd(shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
  if (!fd.valid()) GTEST_SKIP() << "no /dev/shm here";
  shm_unlink(name.c_str());
  ASSERT_EQ(ftruncate(fd.get(), kSize), 0);
  ExpectRefused(std::move(fd), kSize, "lacks the seals");
}

TEST(PeerSegmentTest, ADescriptorThatCannotBeReadIsNotMapped) {
  const UniqueFd memfd = MakeMemfd(kSize, kAllSeals);
  UniqueFd write_only(open(absl::StrCat("/proc/self/fd/", memfd.get()).c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(write_only.valid());
  EXPECT_FALSE(PeerSegment::Map(std::move(write_only), kSize, kLimit).ok());
}

TEST(PeerSegmentTest, TheDescriptorIsClosed) {
  UniqueFd good = MakeMemfd(kSize, kAllSeals);
  UniqueFd bad = MakeMemfd(kSize, 0);
  const int numbers[] = {good.get(), bad.get()};
  const absl::StatusOr<PeerSegment> peer = PeerSegment::Map(std::move(good), kSize, kLimit);
  EXPECT_TRUE(peer.ok());
  EXPECT_FALSE(PeerSegment::Map(std::move(bad), kSize, kLimit).ok());
  for (const int fd : numbers) EXPECT_EQ(fcntl(fd, F_GETFD), -1);
}

}  // namespace
}  // namespace shmrpc::shm
