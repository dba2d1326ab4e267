#include "shmrpc/signals.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "gtest/gtest.h"

namespace shmrpc {
namespace {

bool HasDisposition(int number, void (*handler)(int)) {
  struct sigaction action;
  return sigaction(number, nullptr, &action) == 0 && action.sa_handler == handler;
}

TEST(ShutdownSignalsTest, WaitTellsTheSignalThatCameBefore) {
  for (const int number : {SIGTERM, SIGINT}) {
    ShutdownSignals signals;
    ASSERT_EQ(kill(getpid(), number), 0);
    EXPECT_EQ(signals.Wait(), number);
    EXPECT_TRUE(HasDisposition(number, SIG_DFL)) << "a second signal ends the process";
    EXPECT_EQ(signals.Wait(), 0) << "it has returned before";
  }
  EXPECT_TRUE(HasDisposition(SIGTERM, SIG_DFL));
  EXPECT_TRUE(HasDisposition(SIGINT, SIG_DFL));
}

TEST(ShutdownSignalsTest, WaitIsWokenByASignalToAnyThread) {
  ShutdownSignals signals;
  int number = -1;
  std::thread waiter([&] { number = signals.Wait(); });
  ASSERT_EQ(pthread_kill(pthread_self(), SIGTERM), 0);
  waiter.join();
  EXPECT_EQ(number, SIGTERM);
}

TEST(ShutdownSignalsTest, WaitWorksOnAThreadThatHasTheSignalsBlocked) {
  sigset_t all, before;
  sigfillset(&all);
  ShutdownSignals signals;
  pthread_sigmask(SIG_SETMASK, &all, &before);
  ASSERT_EQ(kill(getpid(), SIGTERM), 0);
  EXPECT_EQ(signals.Wait(), SIGTERM);
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, &before, &after);
  EXPECT_EQ(sigismember(&after, SIGTERM), 1) << "the thread's mask is as it was";
}

TEST(ShutdownSignalsTest, RequestStopEndsTheWait) {
  ShutdownSignals signals;
  std::thread stopper([&] { signals.RequestStop(); });
  EXPECT_EQ(signals.Wait(), 0);
  stopper.join();
}

TEST(ShutdownSignalsTest, AnIgnoredSignalStaysIgnored) {
  ASSERT_NE(signal(SIGINT, SIG_IGN), SIG_ERR);
  {
    ShutdownSignals signals;
    EXPECT_TRUE(HasDisposition(SIGINT, SIG_IGN));
    ASSERT_EQ(kill(getpid(), SIGINT), 0);
    ASSERT_EQ(kill(getpid(), SIGTERM), 0);
    EXPECT_EQ(signals.Wait(), SIGTERM);
  }
  EXPECT_TRUE(HasDisposition(SIGINT, SIG_IGN));
  signal(SIGINT, SIG_DFL);
}

TEST(ShutdownSignalsTest, ASignalEndsAForkedChild) {
  ShutdownSignals signals;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    for (;;) pause();
  }
  ASSERT_EQ(kill(child, SIGTERM), 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
  signals.RequestStop();
  EXPECT_EQ(signals.Wait(), 0) << "the parent was not told";
}

TEST(ShutdownSignalsDeathTest, ASecondOneAtATimeIsAMistake) {
  EXPECT_DEATH(
      {
        ShutdownSignals first;
        ShutdownSignals second;
      },
      "only one at a time");
}

}  // namespace
}  // namespace shmrpc
