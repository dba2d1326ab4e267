#include "transports/shm/ring.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "shmrpc/mutex.h"
#include "tests/sanitizers.h"

namespace shmrpc::shm {
namespace {

constexpr size_t kCapacity = 4096;
constexpr size_t kMaxRecord = 1024;
constexpr size_t kMinRecord = 16;

// A ring with both ends in this process, on the same memory, so that TSan sees both.
class Ring {
 public:
  explicit Ring(uint64_t start = 0) {
    memory_.resize(kCapacity / kCacheLine);
    producer_control = std::make_unique<ControlBlock>();
    consumer_control = std::make_unique<ControlBlock>();
    consumer_control->consumed = start;
    producer = std::make_unique<RingProducer>(data(), kCapacity, kMaxRecord, producer_control.get(),
                                              consumer_control.get(), start);
    consumer = std::make_unique<RingConsumer>(data(), kCapacity, kMinRecord, kMaxRecord, consumer_control.get(),
                                              producer_control.get(), start);
  }

  uint8_t* data() { return memory_.front().bytes; }

  bool Send(size_t length, uint8_t fill) {
    uint8_t* const record = producer->Reserve(length);
    if (record == nullptr) return false;
    std::memset(record + 4, fill, length - 4);
    producer->Commit(length);
    return true;
  }

  // The length received, 0 for none; every byte behind the length word must be `fill`.
  size_t Receive(uint8_t fill) {
    const size_t length = consumer->Peek();
    if (length == 0) return 0;
    std::vector<uint8_t> record(length);
    consumer->Take(length, record.data());
    uint32_t word;
    std::memcpy(&word, record.data(), sizeof word);
    EXPECT_EQ(word, length);
    for (size_t i = 4; i < length; ++i) EXPECT_EQ(record[i], fill) << "at " << i << " of " << length;
    return length;
  }

  std::unique_ptr<ControlBlock> producer_control, consumer_control;
  std::unique_ptr<RingProducer> producer;
  std::unique_ptr<RingConsumer> consumer;

 private:
  struct alignas(kCacheLine) Line {
    uint8_t bytes[kCacheLine];
  };
  std::vector<Line> memory_;
};

class RingStart : public testing::TestWithParam<uint64_t> {};

// The positions' representation must not matter: neither at 2^32 nor where they wrap around.
INSTANTIATE_TEST_SUITE_P(Positions, RingStart,
                         testing::Values(0, (uint64_t{1} << 32) - 2 * kCapacity, uint64_t{0} - 2 * kCapacity));

TEST_P(RingStart, CarriesRecordsOfEverySizeInOrder) {
  Ring ring(GetParam());
  for (int round = 0; round < 3; ++round) {
    for (size_t length = kMinRecord; length <= kMaxRecord; ++length) {
      const uint8_t fill = static_cast<uint8_t>(length + static_cast<size_t>(round));
      ASSERT_TRUE(ring.Send(length, fill));
      ASSERT_EQ(ring.Receive(fill), length);
      ASSERT_EQ(ring.consumer->Peek(), 0u);
    }
  }
}

TEST_P(RingStart, RefusesWhenFullAndGoesOnAfterwards) {
  Ring ring(GetParam());
  for (int lap = 0; lap < 20; ++lap) {
    size_t sent = 0;
    while (ring.Send(200, static_cast<uint8_t>(sent))) ++sent;
    // 200 bytes take 256; a line stays free, and up to a record's size may be lost to padding.
    EXPECT_GE(sent, (kCapacity - 256 - kCacheLine) / 256);
    for (size_t i = 0; i < sent; ++i) ASSERT_EQ(ring.Receive(static_cast<uint8_t>(i)), 200u);
    ASSERT_EQ(ring.Receive(0), 0u);
  }
}

TEST(RingTest, CommitMayBeShorterThanTheReservation) {
  Ring ring;
  for (int i = 0; i < 100; ++i) {
    uint8_t* const record = ring.producer->Reserve(kMaxRecord);
    ASSERT_NE(record, nullptr);
    std::memset(record + 4, i, 16);
    ring.producer->Commit(20);
    ASSERT_EQ(ring.Receive(static_cast<uint8_t>(i)), 20u);
  }
}

TEST(RingTest, ParkingFailsWhenARecordIsThereAndElseTellsTheProducer) {
  Ring ring;
  bool ring_producer = false;
  ASSERT_TRUE(ring.Send(64, 1));
  EXPECT_FALSE(ring.consumer->PrepareToPark(&ring_producer));
  EXPECT_FALSE(ring.producer->TakeParked());
  ASSERT_EQ(ring.Receive(1), 64u);
  EXPECT_TRUE(ring.consumer->PrepareToPark(&ring_producer));
  ASSERT_TRUE(ring.Send(64, 2));
  EXPECT_TRUE(ring.producer->TakeParked());
  EXPECT_FALSE(ring.producer->TakeParked()) << "one doorbell for one parking";
  ring.consumer->Unpark();
  ASSERT_EQ(ring.Receive(2), 64u);
  EXPECT_TRUE(ring.consumer->PrepareToPark(&ring_producer));
  EXPECT_TRUE(ring.producer->TakeParked()) << "parked again";
}

TEST(RingTest, RoomIsAskedForAndTold) {
  Ring ring;
  EXPECT_TRUE(ring.producer->HasRoom());
  EXPECT_FALSE(ring.producer->AskForRoom()) << "there is room";
  while (ring.Send(200, 7)) {
  }
  EXPECT_FALSE(ring.producer->HasRoom());
  EXPECT_TRUE(ring.producer->AskForRoom());
  std::vector<uint8_t> record(kMaxRecord);
  const size_t length = ring.consumer->Peek();
  ASSERT_EQ(length, 200u);
  EXPECT_TRUE(ring.consumer->Take(length, record.data())) << "the wish is seen with the next record taken";
  EXPECT_FALSE(ring.consumer->Take(ring.consumer->Peek(), record.data())) << "and answered once";
}

TEST(RingTest, PeerBehindUntilEverythingIsConsumed) {
  Ring ring;
  EXPECT_FALSE(ring.producer->PeerBehind());
  ASSERT_TRUE(ring.Send(64, 1));
  EXPECT_TRUE(ring.producer->PeerBehind());
  ASSERT_EQ(ring.Receive(1), 64u);
  EXPECT_FALSE(ring.producer->PeerBehind());
}

TEST(RingTest, ConsumerPositionOutsideTheWindowBreaksTheProducer) {
  for (const uint64_t consumed :
       {uint64_t{1} << 40, ~uint64_t{0}, uint64_t{64} * 1000, uint64_t{65}, ~uint64_t{0} - 63}) {
    Ring ring;
    while (ring.Send(200, 1)) {
    }
    EXPECT_TRUE(ring.producer->broken().ok());
    ring.consumer_control->consumed = consumed;
    EXPECT_EQ(ring.producer->Reserve(200), nullptr) << consumed;
    EXPECT_TRUE(absl::IsInternal(ring.producer->broken())) << consumed << " " << ring.producer->broken();
    EXPECT_EQ(ring.producer->Reserve(64), nullptr) << "it stays broken";
  }
}

TEST(RingTest, ConsumerPositionGoingBackwardsBreaksTheProducer) {
  Ring ring;
  while (ring.Send(200, 1)) {
  }
  for (int i = 0; i < 8; ++i) ASSERT_EQ(ring.Receive(1), 200u);
  ASSERT_TRUE(ring.Send(200, 1));
  while (ring.Send(200, 1)) {
  }
  ring.consumer_control->consumed = 256;
  EXPECT_EQ(ring.producer->Reserve(200), nullptr);
  EXPECT_FALSE(ring.producer->broken().ok());
}

// The receiver's thread reads what has broken the producer, without a lock, while others still try to send.
TEST(RingTest, WhatBreaksTheProducerIsNotWrittenAgain) {
  Ring ring;
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(ring.Send(200, 1));
  ring.consumer_control->consumed = 1;
  EXPECT_FALSE(ring.producer->AskForRoom());
  const absl::Status broken = ring.producer->broken();
  EXPECT_TRUE(absl::IsInternal(broken)) << broken;
  std::thread receiver([&] { EXPECT_EQ(ring.producer->broken(), broken); });
  for (const uint64_t consumed : {uint64_t{3}, uint64_t{1} << 40, uint64_t{64}}) {
    ring.consumer_control->consumed = consumed;
    EXPECT_FALSE(ring.producer->AskForRoom());
    EXPECT_EQ(ring.producer->Reserve(200), nullptr);
    EXPECT_EQ(ring.producer->broken(), broken);
  }
  receiver.join();
}

TEST(RingTest, RecordLengthsThatCannotBeBreakTheConsumer) {
  for (const uint32_t length : {uint32_t{1}, uint32_t{kMinRecord - 1}, uint32_t{kMaxRecord + 1}, uint32_t{kCapacity},
                                uint32_t{0x80000000}, uint32_t{0xfffffffe}}) {
    Ring ring;
    std::memcpy(ring.data(), &length, sizeof length);
    EXPECT_EQ(ring.consumer->Peek(), 0u) << length;
    EXPECT_TRUE(absl::IsInternal(ring.consumer->broken())) << length;
    EXPECT_TRUE(absl::StrContains(ring.consumer->broken().message(), std::to_string(length)));
    EXPECT_EQ(ring.consumer->Peek(), 0u);
  }
}

TEST(RingTest, RecordBeyondTheRingsEndBreaksTheConsumer) {
  Ring ring;
  while (ring.producer->produced() < kCapacity - 256) {
    ASSERT_TRUE(ring.Send(256, 1));
    ASSERT_EQ(ring.Receive(1), 256u);
  }
  const uint32_t length = 512;
  std::memcpy(ring.data() + kCapacity - 256, &length, sizeof length);
  EXPECT_EQ(ring.consumer->Peek(), 0u);
  EXPECT_FALSE(ring.consumer->broken().ok());
}

TEST(RingTest, PaddingWithoutARecordBehindItOrWithoutReasonBreaksTheConsumer) {
  const uint32_t padding = 0xffffffff;
  {
    Ring ring;  // padding at the beginning: a whole ring of it
    std::memcpy(ring.data(), &padding, sizeof padding);
    EXPECT_EQ(ring.consumer->Peek(), 0u);
    EXPECT_FALSE(ring.consumer->broken().ok());
  }
  {
    Ring ring;  // padding at the end, and padding again at the beginning
    while (ring.producer->produced() < kCapacity - 256) {
      ASSERT_TRUE(ring.Send(256, 1));
      ASSERT_EQ(ring.Receive(1), 256u);
    }
    std::memcpy(ring.data(), &padding, sizeof padding);
    std::memcpy(ring.data() + kCapacity - 256, &padding, sizeof padding);
    EXPECT_EQ(ring.consumer->Peek(), 0u);
    EXPECT_FALSE(ring.consumer->broken().ok());
  }
}

TEST(RingTest, TheCopysLengthIsTheCheckedOneWhateverTheMemorySays) {
  Ring ring;
  ASSERT_TRUE(ring.Send(64, 1));
  const size_t length = ring.consumer->Peek();
  const uint32_t other = 900;
  std::memcpy(ring.data(), &other, sizeof other);  // the peer changes it between check and use
  std::vector<uint8_t> record(length);
  ring.consumer->Take(length, record.data());
  uint32_t word;
  std::memcpy(&word, record.data(), sizeof word);
  EXPECT_EQ(word, 64u);
}

// Doorbells between two threads: a counter to sleep on.
class Doorbell {
 public:
  void Ring() {
    MutexLock lock(&mutex_);
    ++rung_;
    changed_.Signal();
  }
  void Sleep() {
    MutexLock lock(&mutex_);
    while (rung_ == 0) changed_.Wait(&mutex_);
    rung_ = 0;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int rung_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Both ends at full speed, each sleeping whenever it has nothing to do and with no time limit on the sleep: a lost
// wake-up hangs the test, a wrong order shows as wrong contents, and a missing barrier as a TSan report.
TEST(RingStressTest, NothingIsLostReorderedOrSleptThrough) {
#if SHMRPC_TSAN
  constexpr uint32_t kRecords = 40'000;
#else
  constexpr uint32_t kRecords = 1'000'000;
#endif
  Ring ring(~uint64_t{0} - 64 * 1024 + 1);
  Doorbell for_consumer, for_producer;

  std::thread producer([&] {
    std::minstd_rand random(1);
    for (uint32_t i = 0; i < kRecords; ++i) {
      const size_t length = 20 + random() % (random() % 8 == 0 ? kMaxRecord - 20 : 100);
      uint8_t* record;
      while ((record = ring.producer->Reserve(length)) == nullptr) {
        if (ring.producer->AskForRoom()) for_producer.Sleep();
      }
      std::memset(record + 4, static_cast<int>(i), length - 4);
      std::memcpy(record + 4, &i, sizeof i);
      ring.producer->Commit(length);
      if (ring.producer->TakeParked()) for_consumer.Ring();
      if (random() % 1024 == 0) std::this_thread::yield();
    }
  });

  std::minstd_rand random(2);
  std::vector<uint8_t> record(kMaxRecord);
  uint32_t wrong = 0;
  for (uint32_t i = 0; i < kRecords;) {
    const size_t length = ring.consumer->Peek();
    if (length == 0) {
      ASSERT_TRUE(ring.consumer->broken().ok()) << ring.consumer->broken();
      bool ring_producer = false;
      const bool parked = ring.consumer->PrepareToPark(&ring_producer);
      if (ring_producer) for_producer.Ring();
      if (parked) {
        for_consumer.Sleep();
        ring.consumer->Unpark();
      }
      continue;
    }
    if (ring.consumer->Take(length, record.data())) for_producer.Ring();
    uint32_t number;
    std::memcpy(&number, record.data() + 4, sizeof number);
    if (number != i || (length > 8 && record[length - 1] != static_cast<uint8_t>(i))) ++wrong;
    ++i;
    if (random() % 2048 == 0) std::this_thread::yield();
  }
  producer.join();
  EXPECT_EQ(wrong, 0u);
}

// Lets two threads do one thing each at the very same time, again and again: what the memory-order rules are about
// happens within some ten nanoseconds. The caller's own thread is the first.
class Race {
 public:
  static constexpr int kRounds = SHMRPC_TSAN ? 20'000 : 100'000;

  // `first` and `second` are called with the round's number; `then` when both are back. All of it again as long as it
  // was no race, which `happened` tells: on a busy machine one side may always have come first.
  template <typename First, typename Second, typename Then, typename Happened>
  void Run(First first, Second second, Then then, Happened happened) {
    for (int runs = 0; runs < 50 && !happened(); ++runs) RunOnce(first, second, then);
  }

 private:
  template <typename First, typename Second, typename Then>
  void RunOnce(First first, Second second, Then then) {
    arrived_.store(0);
    std::thread other([&] {
      for (int round = 1; round <= kRounds; ++round) {
        Meet(round * 2 - 1, round);
        second(round);
        Meet(round * 2, 0);
      }
    });
    for (int round = 1; round <= kRounds; ++round) {
      Meet(round * 2 - 1, round / 64);
      first(round);
      Meet(round * 2, 0);
      then();
    }
    other.join();
  }

  // Both threads come here; then each waits a little, up to some 30 turns of a loop, so that every order occurs.
  void Meet(int64_t meeting, int delay) {
    arrived_.fetch_add(1);
    for (int looks = 0; arrived_.load() < 2 * meeting; ++looks) {
      if (looks > 10'000) std::this_thread::yield();
    }
    for (int i = 0; i < delay % 32; ++i) (void)arrived_.load();
  }

  std::atomic<int64_t> arrived_{0};
};

TEST(RingRaceTest, AConsumerThatParksFindsTheRecordOrIsRung) {
  Ring ring;
  Race race;
  bool rung = false;
  bool parked = false;
  int missed = 0;
  int slept = 0;
  race.Run(
      [&](int) {
        ASSERT_TRUE(ring.Send(16, 7));
        rung = ring.producer->TakeParked();
      },
      [&](int) {
        bool ignored;
        parked = ring.consumer->PrepareToPark(&ignored);
      },
      [&] {
        if (parked && !rung) ++missed;
        if (parked) ++slept;
        ring.consumer->Unpark();
        ASSERT_EQ(ring.Receive(7), 16u);
      },
      [&] { return slept > 0; });
  EXPECT_EQ(missed, 0) << "of " << Race::kRounds;
  EXPECT_GT(slept, 0);
}

TEST(RingRaceTest, AProducerThatAsksForRoomFindsItOrIsRung) {
  // Records of a quarter of the ring: Take promises to see the wish once per quarter.
  static_assert(kMaxRecord >= kCapacity / 4);
  Ring ring;
  Race race;
  bool asked = false;
  bool rung = false;
  int missed = 0;
  int waited = 0;
  std::vector<uint8_t> record(kMaxRecord);
  const auto fill = [&] {
    while (ring.Send(kMaxRecord, 7)) {
    }
    ASSERT_FALSE(ring.producer->HasRoom());
    const size_t length = ring.consumer->Peek();
    ring.consumer->Take(length, record.data());  // with the next one there is room
    ASSERT_FALSE(ring.producer->HasRoom());
  };
  fill();
  race.Run([&](int) { asked = ring.producer->AskForRoom(); },
           [&](int) {
             const size_t length = ring.consumer->Peek();
             rung = ring.consumer->Take(length, record.data());
           },
           [&] {
             ASSERT_TRUE(ring.producer->HasRoom());
             if (asked && !rung) ++missed;
             if (asked) ++waited;
             fill();
           },
           [&] { return waited > 0; });
  EXPECT_EQ(missed, 0) << "of " << Race::kRounds;
  EXPECT_GT(waited, 0);
}

// A peer that changes every byte it may write as fast as it can: the consumer gets wrong records or an error, and
// touches nothing outside the ring (which ASan watches: the memory is a heap block of just that size).
TEST(RingStressTest, AConsumerSurvivesAPeerThatScribbles) {
  Ring ring;
  std::atomic<bool> stop{false};
  std::thread scribbler([&] {
    std::minstd_rand random(3);
    while (!stop) {
      const size_t line = random() % (kCapacity / kCacheLine);
      const uint32_t choices[] = {
          0, 16, 64, 200, kMaxRecord, kMaxRecord + 1, 0xffffffff, static_cast<uint32_t>(random())};
      std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(ring.data() + line * kCacheLine))
          .store(choices[random() % 8], std::memory_order_relaxed);
    }
  });
  std::vector<uint8_t> record(kMaxRecord);
  int sessions = 0;
  for (uint64_t i = 0; sessions < 2'000; ++i) {
    const size_t length = ring.consumer->Peek();
    if (length != 0) {
      ASSERT_GE(length, kMinRecord);
      ASSERT_LE(length, kMaxRecord);
      // Copying what somebody else writes is a race by design, so TSan does not get to see it.
      if (!SHMRPC_TSAN) ring.consumer->Take(length, record.data());
    }
    if (!ring.consumer->broken().ok()) {
      ++sessions;
      ring.consumer =
          std::make_unique<RingConsumer>(ring.data(), kCapacity, kMinRecord, kMaxRecord, ring.consumer_control.get(),
                                         ring.producer_control.get(), (i % 64) * kCacheLine);
    }
  }
  stop = true;
  scribbler.join();
}

}  // namespace
}  // namespace shmrpc::shm
