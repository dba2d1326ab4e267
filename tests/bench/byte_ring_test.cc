#include "tests/bench/byte_ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/bench/process.h"

namespace shmrpc::bench {
namespace {

using ::testing::HasSubstr;

constexpr size_t kCapacity = 4096;

std::string Pattern(size_t size, int seed) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 131 + i / 256 + seed);
  return bytes;
}

// Two ends in one process, which know each other's memory through descriptors only, as two processes would.
class RingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    const Descriptor left(ends[0]), right(ends[1]);
    absl::StatusOr<RingSegments> of_left = absl::UnknownError("not exchanged");
    absl::StatusOr<RingSegments> of_right = absl::UnknownError("not exchanged");
    std::thread other([&] { of_right = ExchangeRingSegments(right.get(), kCapacity); });
    of_left = ExchangeRingSegments(left.get(), kCapacity);
    other.join();
    ASSERT_TRUE(of_left.ok()) << of_left.status();
    ASSERT_TRUE(of_right.ok()) << of_right.status();
    left_segments_.emplace(*std::move(of_left));
    right_segments_.emplace(*std::move(of_right));
    left_.emplace(left_segments_->own, left_segments_->peer);
    right_.emplace(right_segments_->own, right_segments_->peer);
  }

  std::optional<RingSegments> left_segments_, right_segments_;
  std::optional<RingEnd> left_, right_;
};

TEST_F(RingTest, BytesArriveUnchangedAcrossTheEndOfTheRing) {
  // 1000 does not divide the capacity, so the records cross its end at many places.
  for (int i = 0; i < 100; ++i) {
    const std::string sent = Pattern(1000, i);
    std::string received(sent.size(), '\0');
    left_->Write(sent.data(), sent.size());
    right_->Read(received.data(), received.size());
    ASSERT_EQ(received, sent) << i;
    right_->Write(received.data(), received.size());
    left_->Read(received.data(), received.size());
    ASSERT_EQ(received, sent) << i;
  }
}

TEST_F(RingTest, AReservationIsOnePieceAcrossTheEndOfTheRing) {
  left_->Reserve(3000);
  left_->Publish(3000);
  right_->Await(3000);
  right_->Consume(3000);
  const std::string sent = Pattern(4000, 1);
  sent.copy(left_->Reserve(4000), 4000);
  left_->Publish(4000);
  EXPECT_EQ(std::string(right_->Await(4000), 4000), sent);
}

TEST_F(RingTest, APayloadLargerThanTheRingPassesInSteps) {
  const std::string sent = Pattern(10 * kCapacity + 123, 1);
  std::string received(sent.size(), '\0');
  std::thread reader([&] { right_->Read(received.data(), received.size()); });
  left_->Write(sent.data(), sent.size());
  reader.join();
  EXPECT_EQ(received, sent);
}

TEST(RingSegmentTest, NobodyElseCanMapItWritableOrChangeItsSize) {
  int fd = -1;
  const absl::StatusOr<RingSegment> segment = RingSegment::Create(kCapacity, &fd);
  ASSERT_TRUE(segment.ok()) << segment.status();
  const Descriptor memory(fd);
  EXPECT_EQ(mmap(nullptr, kCapacity, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_NE(ftruncate(fd, 0), 0);
  EXPECT_NE(ftruncate(fd, 1 << 20), 0);
}

TEST(RingSegmentTest, RefusesAPeersMemoryThatIsNotSealed) {
  const Descriptor memory(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(memory.get(), RingSegment::kHeaderBytes + kCapacity), 0);
  const absl::StatusOr<RingSegment> segment = RingSegment::Open(memory.get(), kCapacity);
  ASSERT_FALSE(segment.ok());
  EXPECT_THAT(std::string(segment.status().message()), HasSubstr("not sealed"));
}

TEST(RingSegmentTest, RefusesAPeersMemoryOfAnotherSize) {
  int fd = -1;
  const absl::StatusOr<RingSegment> segment = RingSegment::Create(2 * kCapacity, &fd);
  ASSERT_TRUE(segment.ok()) << segment.status();
  const Descriptor memory(fd);
  EXPECT_FALSE(RingSegment::Open(fd, kCapacity).ok());
}

}  // namespace
}  // namespace shmrpc::bench
