// What a thread puts off, and what makes it go; and which tasks count as slow.

#include "transports/framed/send_batch.h"

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/message.h"
#include "shmrpc/steady_time.h"
#include "tests/unit/framed_forwarding_link.h"
#include "tests/unit/framed_raw_peer.h"
#include "transports/framed/poller.h"
#include "transports/framed/sender.h"

namespace shmrpc::framed {
namespace {

using std::chrono::microseconds;

// ---- Histories.

TEST(TaskHistoryTest, ANewKindIsSlowFromItsFirstLongTaskOn) {
  TaskHistory history;
  EXPECT_FALSE(history.IsSlow());
  EXPECT_FALSE(history.IsKnownFast());
  history.OnTask(2 * TaskHistory::kLong);
  EXPECT_TRUE(history.IsSlow());
}

TEST(TaskHistoryTest, AKindOfWhichOneInTwentyIsLongStaysSlow) {
  TaskHistory history;
  int slow = 0;
  for (int i = 0; i < 100'000; ++i) {
    slow += history.IsSlow();
    history.OnTask(i % 20 == 0 ? microseconds(500) : microseconds(1));
  }
  EXPECT_GT(slow, 99'000);
}

TEST(TaskHistoryTest, RareExceptionsDoNotMakeAKindSlow) {
  TaskHistory history;
  for (int i = 0; i < 1000; ++i) history.OnTask(microseconds(1));
  for (int i = 0; i < 100'000; ++i) {
    EXPECT_FALSE(history.IsSlow());
    history.OnTask(i % 100 == 0 ? microseconds(5000) : microseconds(1));
  }
}

TEST(TaskHistoryTest, AKindThatHasBecomeFastIsFastAfterAWhile) {
  TaskHistory history;
  for (int i = 0; i < 1'000'000; ++i) history.OnTask(microseconds(500));
  int tasks = 0;
  for (; history.IsSlow(); ++tasks) history.OnTask(microseconds(1));
  EXPECT_GT(tasks, TaskHistory::kStep);
  EXPECT_LE(tasks, TaskHistory::kMost);
}

// ---- Batches.

class CountingLink final : public ForwardingLink {
 public:
  using ForwardingLink::ForwardingLink;

  void Commit(size_t size) override {
    ForwardingLink::Commit(size);
    ++unflushed;
  }
  void Flush(bool always_ring) override {
    ForwardingLink::Flush(always_ring);
    ++flushes;
    unflushed = 0;
  }
  void Shutdown() override {
    EXPECT_EQ(unflushed, 0);
    ForwardingLink::Shutdown();
  }

  int flushes = 0;
  int unflushed = 0;  // frames
};

class Host final : public Sender::Host {
  bool WaitForRoom(SteadyTime, absl::FunctionRef<bool()>) override { return false; }
  void WatchWritable() override {}
};

// The test's thread is the one that runs tasks. They take as long as the test says.
class SendBatchTest : public ::testing::Test {
 protected:
  SendBatchTest() : link_(peer_.TakeLink()), sender_(&host_, &link_, /*may_spill=*/true, /*may_spin=*/false) {
    Batch().SetClockForTest([] { return now_; });
  }
  ~SendBatchTest() override {
    Batch().End();
    Batch().SetClockForTest(&SteadyClock::now);
  }

  static SendBatch& Batch() { return SendBatch::OfThisThread(); }
  bool NextTask(bool more, int most_frames = SendBatch::kMostFrames) {
    return Batch().NextTask(&sender_, more, &history_, most_frames);
  }
  void Send(size_t bytes = 10) {
    google::protobuf::BytesValue message;
    message.set_value(std::string(bytes, 'x'));
    FrameHeader header;
    header.type = FrameType::kResponse;
    const OutgoingProto outgoing(message);
    EXPECT_EQ(sender_.Send(header, "", &outgoing, SteadyTime::InfiniteFuture(), [] { return false; }),
              Sender::Outcome::kSent);
  }
  void ExpectReceived(int frames) {
    for (int i = 0; i < frames; ++i) peer_.Expect(FrameType::kResponse);
  }
  static void Pass(std::chrono::nanoseconds time) { now_ += time; }

  RawPeer peer_;
  CountingLink link_;
  Host host_;
  Sender sender_;
  // Of the tasks here, which outlive the batch, as they do in a session.
  TaskHistory history_;
  TaskHistory other_history_;

 private:
  static inline thread_local SteadyClock::time_point now_ = SteadyClock::now();
};

TEST_F(SendBatchTest, WithoutFurtherInputNothingIsPutOff) {
  EXPECT_FALSE(NextTask(/*more=*/false));
  Send();
  EXPECT_EQ(link_.flushes, 1);
  Send();
  EXPECT_EQ(link_.flushes, 2);
  EXPECT_FALSE(sender_.HasLeftover());
}

TEST_F(SendBatchTest, WhatTasksSendGoesTogetherWithTheLast) {
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(NextTask(/*more=*/true));
    Send();
  }
  EXPECT_EQ(link_.flushes, 0);
  EXPECT_TRUE(NextTask(/*more=*/false)) << "what was put off waits for this task";
  Send();
  EXPECT_EQ(link_.flushes, 1);
  EXPECT_EQ(link_.unflushed, 0);
  ExpectReceived(6);
}

TEST_F(SendBatchTest, ABatchEndsWhenItsThreadTurnsToSomethingElse) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  Batch().End();
  EXPECT_EQ(link_.flushes, 1);
  Send();
  EXPECT_EQ(link_.flushes, 2) << "afterwards nothing is put off";
  Batch().End();
  EXPECT_EQ(link_.flushes, 2);
  ExpectReceived(2);
}

TEST_F(SendBatchTest, ATaskThatWaitsSendsWhatWasPutOff) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  Poller::TaskBlocks();
  EXPECT_EQ(link_.unflushed, 0);
  Send();
  EXPECT_EQ(link_.unflushed, 0) << "and the rest of what it sends";
}

TEST_F(SendBatchTest, SoManyFramesAreSentAndANewBatchBegins) {
  for (const int most : {SendBatch::kMostFrames, 4}) {
    link_.flushes = 0;
    for (int i = 1; i <= 3 * most; ++i) {
      EXPECT_TRUE(NextTask(/*more=*/true, most));
      Send();
      EXPECT_EQ(link_.flushes, i / most);
      EXPECT_EQ(link_.unflushed, i % most);
    }
    Batch().End();
    EXPECT_EQ(link_.flushes, 3);
    ExpectReceived(3 * most);
  }
}

TEST_F(SendBatchTest, SoManyBytesAreSent) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send(SendBatch::kMostBytes / 2);
  EXPECT_EQ(link_.unflushed, 1);
  Send(SendBatch::kMostBytes / 2);
  EXPECT_EQ(link_.unflushed, 0);
  Send(SendBatch::kMostBytes);
  EXPECT_EQ(link_.unflushed, 0) << "a large frame does not wait";
  Send(1'000'000);
  EXPECT_EQ(link_.unflushed, 0) << "nor do pieces";
}

TEST_F(SendBatchTest, ATaskThatTookLongIsTheLastOfItsBatch) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  Pass(2 * SendBatch::kMaxAge);
  EXPECT_TRUE(Batch().NextTask(&sender_, /*more=*/true, &other_history_)) << "the next may begin another batch";
  EXPECT_EQ(link_.unflushed, 0);
  Send();
  EXPECT_EQ(link_.unflushed, 1);
}

TEST_F(SendBatchTest, TasksOfAKindThatIsKnownToBeFastAreLookedAtTogether) {
  while (!history_.IsKnownFast()) history_.OnTask({});
  std::vector<int> unflushed;
  for (int i = 0; i <= SendBatch::kTasksPerLook; ++i) {
    EXPECT_TRUE(NextTask(/*more=*/true));
    unflushed.push_back(link_.unflushed);
    Send();
    if (i == 0) Pass(2 * SendBatch::kMaxAge);
  }
  EXPECT_EQ(unflushed, std::vector<int>({0, 1, 2, 3, 0}));
  EXPECT_FALSE(history_.IsKnownFast()) << "from now on each is looked at";
}

TEST_F(SendBatchTest, WhatATaskTakesIsNotedWhenTheBatchEnds) {
  while (!history_.IsKnownFast()) history_.OnTask({});
  EXPECT_TRUE(NextTask(/*more=*/true));
  Pass(2 * TaskHistory::kLong);
  EXPECT_TRUE(history_.IsKnownFast());
  Batch().End();
  EXPECT_FALSE(history_.IsKnownFast());
}

TEST_F(SendBatchTest, NothingWaitsForATaskOfASlowKindNorInIt) {
  other_history_.OnTask(2 * TaskHistory::kLong);
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  EXPECT_FALSE(Batch().NextTask(&sender_, /*more=*/true, &other_history_));
  EXPECT_EQ(link_.unflushed, 0);
  Send();
  EXPECT_EQ(link_.unflushed, 0);
}

TEST_F(SendBatchTest, ASlowKindIsMeasuredAndCanBecomeFastAgain) {
  history_.OnTask(2 * TaskHistory::kLong);
  int tasks = 0;
  while (history_.IsSlow() && ++tasks < 1'000'000) {
    (void)NextTask(/*more=*/true);
    Send();
  }
  EXPECT_FALSE(history_.IsSlow());
}

TEST_F(SendBatchTest, TheTimeThatSendingTakesIsNotTheTasks) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Batch().Pause();
  Pass(2 * TaskHistory::kLong);
  Batch().Resume();
  EXPECT_TRUE(Batch().NextTask(&sender_, /*more=*/true, &other_history_));
  EXPECT_FALSE(history_.IsSlow());
  Pass(2 * TaskHistory::kLong);
  Batch().Pause();
  Batch().Resume();
  Batch().End();
  EXPECT_TRUE(other_history_.IsSlow()) << "but what comes before it is";
}

TEST_F(SendBatchTest, AnotherThreadsFrameTakesAllAlong) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  std::thread([this] {
    EXPECT_TRUE(sender_.HasLeftover());
    EXPECT_TRUE(sender_.NeedsContinue());
    Send();
  }).join();
  EXPECT_EQ(link_.flushes, 1);
  EXPECT_FALSE(sender_.HasLeftover());
  Batch().End();
  EXPECT_EQ(link_.flushes, 1) << "there was nothing left";
  ExpectReceived(2);
}

TEST_F(SendBatchTest, WhoeverLooksAfterLeftoversSendsWhatWasPutOff) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  EXPECT_FALSE(sender_.NeedsContinue()) << "its own thread has not forgotten it";
  std::thread([this] { EXPECT_TRUE(sender_.Continue()); }).join();
  EXPECT_EQ(link_.unflushed, 0);
}

TEST_F(SendBatchTest, ARevokedTaskPutsNothingOffAnyMore) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  std::thread([this] { sender_.RevokeBatches(); }).join();
  EXPECT_EQ(link_.flushes, 0);
  Send();
  EXPECT_EQ(link_.unflushed, 0);

  // The task before took long.
  EXPECT_TRUE(Batch().NextTask(&sender_, /*more=*/true, &other_history_));
  Send();
  EXPECT_EQ(link_.unflushed, 1) << "the next task does";
  std::thread([this] { sender_.RevokeBatches(); }).join();
  EXPECT_EQ(link_.unflushed, 0);
  Send();
  EXPECT_EQ(link_.unflushed, 0);
  ExpectReceived(3);
}

TEST_F(SendBatchTest, AFrameThatHasToRingDoesNotWait) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  FrameHeader header;
  header.type = FrameType::kCredit;
  sender_.SendControl(header, "", /*always_ring=*/false);
  EXPECT_EQ(link_.unflushed, 2);
  header.type = FrameType::kReset;
  sender_.SendControl(header);
  EXPECT_EQ(link_.unflushed, 0);
}

TEST_F(SendBatchTest, ASenderThatIsClosedSendsWhatWasPutOff) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  std::thread([this] { sender_.Close(); }).join();
  EXPECT_EQ(link_.unflushed, 0);
  link_.Shutdown();
  ExpectReceived(1);
  EXPECT_TRUE(peer_.SeesTheEnd());
  Batch().End();
}

TEST_F(SendBatchTest, ASenderThatFinishesSendsWhatWasPutOff) {
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  std::thread([this] { EXPECT_TRUE(sender_.Finish()); }).join();
  ExpectReceived(1);
  EXPECT_TRUE(peer_.SeesTheEnd());
}

TEST_F(SendBatchTest, ATaskOfAnotherSessionEndsTheBatch) {
  RawPeer other_peer;
  CountingLink other_link(other_peer.TakeLink());
  Sender other(&host_, &other_link, /*may_spill=*/true, /*may_spin=*/false);
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  EXPECT_FALSE(Batch().NextTask(&other, /*more=*/false, &history_));
  EXPECT_EQ(link_.unflushed, 0);
  EXPECT_TRUE(NextTask(/*more=*/true));
  Send();
  EXPECT_TRUE(Batch().NextTask(&other, /*more=*/true, &history_));
  EXPECT_EQ(link_.unflushed, 0);
  Send();
  EXPECT_EQ(link_.unflushed, 0) << "nor is what goes over another session than the task's put off";
  Batch().End();
}

}  // namespace
}  // namespace shmrpc::framed
