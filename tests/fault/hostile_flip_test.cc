// Peers that change what they have sent while it is being received: a second thread of theirs flips bytes in their own
// ring as fast as it can, payload, headers and lengths, between the check and the use of whoever reads them. Nobody
// reads or writes out of bounds (what AddressSanitizer is for), nobody crashes or hangs, and no honest client's call
// fails.

#include <atomic>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "hostile_fixture.h"
#include "process_state.h"
#include "shmrpc/steady_time.h"

namespace shmrpc::fault {
namespace {

using conformance::CountMemfdMappings;
using conformance::Echo;
using conformance::EchoReply;
using conformance::EchoRequest;
using conformance::Eventually;
using conformance::Item;
using conformance::kHangGuard;

constexpr absl::Duration kTime = SHMRPC_LONG_TESTS ? absl::Seconds(60) : absl::Seconds(2);

// Echo that does nothing but that: a request that was changed may ask for anything.
class PlainEcho final : public Echo::Service {
 public:
  absl::Status Echo(ServerContext*, const EchoRequest* request, EchoReply* reply) override {
    reply->set_payload(request->payload());
    return absl::OkStatus();
  }
  absl::Status Nothing(ServerContext*, const conformance::Empty*, conformance::Empty*) override {
    return absl::OkStatus();
  }
};

// Changes bytes of a ring between what the other side has consumed and what was produced, until it is destroyed. What
// is not about the payload is put back at once, most of the time: so a session lives on, and a reader may see one value
// when it checks and another when it looks again.
class Flipper {
 public:
  enum Aim { kPayload, kHeaders, kLengths, kEverything };

  Flipper(NativeConnection* connection, Aim aim, uint32_t seed)
      : thread_([this, connection, aim, seed] { Run(*connection, aim, seed); }) {}
  ~Flipper() {
    stop_ = true;
    thread_.join();
  }

 private:
  void Run(NativeConnection& connection, Aim aim, uint32_t seed) {
    std::minstd_rand random(seed);
    while (!stop_) {
      const uint64_t consumed = connection.peer().consumed().load(std::memory_order_relaxed);
      const uint64_t lines = (connection.producer().produced() - consumed) / kLine + 1;
      const uint64_t line = consumed + random() % lines * kLine;
      const Aim now = aim == kEverything ? Aim(random() % 3) : aim;
      if (now == kPayload) {
        Word(connection, line + kFrameHeader + random() % 12 * 4).store(random(), std::memory_order_relaxed);
        continue;
      }
      static constexpr uint32_t kWords[] = {0,     1,     15,    16,         17,         64,
                                            65535, 65536, 65537, 0x7fffffff, 0xfffffffe, 0xffffffff};
      const auto word = Word(connection, now == kLengths ? line : line + 4 + random() % 3 * 4);
      const uint32_t before = word.load(std::memory_order_relaxed);
      word.store(random() % 2 == 0 ? kWords[random() % std::size(kWords)] : before ^ 1u << random() % 32,
                 std::memory_order_relaxed);
      if (random() % 64 != 0) word.store(before, std::memory_order_relaxed);
    }
  }
  static std::atomic_ref<uint32_t> Word(NativeConnection& connection, uint64_t position) {
    return connection.own().word(position / 4 * 4);
  }

  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Sizes of messages: mostly small ones, some that fill much of the ring.
size_t RandomSize(std::minstd_rand& random) { return random() % 8 == 0 ? random() % 60000 : random() % 300; }

// ---- A client.

struct ClientStatistics {
  std::atomic<int64_t> sessions{0};
  std::atomic<int64_t> thrown_out{0};
  std::atomic<int64_t> frames_sent{0};
  std::atomic<int64_t> answers{0};
};

// One session: sends calls, streams and messages in pieces, reads what comes, and ends when it is thrown out, after a
// while, or when `end` has come.
void RunFlippingSession(const Target& address, uint32_t seed, SteadyTime end, ClientStatistics* statistics) {
  const std::unique_ptr<NativeConnection> connection = ConnectNative(Way::kShm, address);
  if (connection == nullptr) return;
  AnnounceMethods(*connection);
  ++statistics->sessions;
  const Flipper flipper(connection.get(), Flipper::Aim(seed % 4), seed);
  std::minstd_rand random(seed);
  EchoRequest request;
  for (uint64_t call_id = 1; call_id < 5000 && !end.HasPassed(); ++call_id) {
    request.set_payload(std::string(RandomSize(random), 'p'));
    const std::string body = request.SerializeAsString();
    std::vector<NativeFrame> frames;
    switch (random() % 4) {
      case 0:
        frames.push_back({.type = kRequestFrame, .flags = kNoMessage | kOpen, .code = kChatNumber, .call_id = call_id});
        frames.push_back({.type = kMessageFrame, .flags = kOpen, .call_id = call_id, .body = body});
        frames.push_back({.type = kMessageFrame, .call_id = call_id, .body = body});
        break;
      case 1:
        frames.push_back({.type = kRequestFrame,
                          .flags = kMore,
                          .code = kEchoNumber,
                          .call_id = call_id,
                          .body = U32(static_cast<uint32_t>(2 * body.size() + 1)) + body});
        frames.push_back({.type = kFragmentFrame, .flags = kMore, .call_id = call_id, .body = body});
        frames.push_back({.type = kFragmentFrame, .call_id = call_id, .body = "x"});
        break;
      default:
        frames.push_back(EchoRequestFrame(call_id, request));
    }
    for (const NativeFrame& frame : frames) {
      const std::string bytes = EncodeFrame(frame);
      bool sent = false;
      while (!sent && !connection->HasEnded() && !end.HasPassed()) {
        sent = connection->TrySendBytes(bytes);
        while (const std::optional<NativeFrame> answer = connection->TryReceive()) {
          statistics->answers += answer->type == kResponseFrame;
        }
        // What was changed may be more than the server's wish to be told; so it is told in any case.
        if (!sent) {
          connection->RingDoorbell();
          std::this_thread::yield();
        }
      }
      if (!sent) {
        statistics->thrown_out += connection->HasEnded();
        return;
      }
      ++statistics->frames_sent;
    }
  }
}

class HostileFlipTest : public HostileTest {};

TEST_F(HostileFlipTest, AClientThatChangesItsRingWhileItIsReadDisturbsNoHonestClient) {
  const int mappings_before = CountMemfdMappings();
  PlainEcho echo;
  conformance::StreamCounters counters;
  const std::unique_ptr<Service> streams =
      conformance::MakeStreamService(conformance::ServerStyle::kSynchronous, &counters);
  auto server = ServerBuilder().Listen("127.0.0.1:0").Register(&echo).Register(streams.get()).Start();
  ASSERT_TRUE(server.ok()) << server.status();
  const Target address = (*server)->addresses().front();

  std::atomic<bool> stop{false};
  std::atomic<int64_t> honest_calls{0};
  std::atomic<int64_t> honest_failures{0};
  std::vector<std::thread> honest;
  for (int i = 0; i < 4; ++i) {
    honest.emplace_back([&, i] {
      ChannelOptions options;
      options.transport = i < 2 ? TransportPreference::kShm : TransportPreference::kTcp;
      Echo::Stub stub(Channel::Create(address.ToString(), options));
      std::minstd_rand random(static_cast<uint32_t>(i + 1));
      EchoRequest request;
      while (!stop) {
        request.set_payload(absl::StrCat("honest ", i, " ", honest_calls.load(), std::string(RandomSize(random), 'h')));
        ClientContext context;
        context.set_timeout(kHangGuard);
        EchoReply reply;
        const absl::Status status = stub.Echo(&context, request, &reply);
        if (!status.ok() || reply.payload() != request.payload()) {
          ++honest_failures;
          ADD_FAILURE() << "an honest client's call failed: " << status;
          return;
        }
        ++honest_calls;
      }
    });
  }
  EXPECT_TRUE(Eventually([&] { return honest_calls > 100 || honest_failures > 0; }));

  ClientStatistics statistics;
  const SteadyTime end = SteadyTime::Now() + kTime;
  for (uint32_t seed = 1; !end.HasPassed(); ++seed) RunFlippingSession(address, seed, end, &statistics);

  const int64_t calls = honest_calls;
  EXPECT_TRUE(Eventually([&] { return honest_calls > calls + 100 || honest_failures > 0; }));
  // Two segments each at both ends of the two honest connections, and nothing else.
  EXPECT_TRUE(Eventually([&] { return CountMemfdMappings() == mappings_before + 2 * 2 * 2; }))
      << CountMemfdMappings() << " mappings, " << mappings_before << " before";
  stop = true;
  for (std::thread& client : honest) client.join();
  (*server)->Shutdown(absl::Now() + kHangGuard);

  EXPECT_EQ(honest_failures, 0);
  EXPECT_GT(statistics.thrown_out, 0);
  EXPECT_GT(statistics.answers, 0);
  RecordProperty("sessions", absl::StrCat(statistics.sessions.load()));
  RecordProperty("sessions_ended", absl::StrCat(statistics.thrown_out.load()));
  RecordProperty("hostile_frames", absl::StrCat(statistics.frames_sent.load()));
  RecordProperty("hostile_calls_answered", absl::StrCat(statistics.answers.load()));
  RecordProperty("honest_calls", absl::StrCat(honest_calls.load()));
  std::cout << "sessions: " << statistics.sessions << ", ended by the server: " << statistics.thrown_out
            << ", frames sent: " << statistics.frames_sent << ", calls answered: " << statistics.answers
            << "; honest calls: " << honest_calls << ", failed: " << honest_failures << std::endl;
}

// ---- A server.

// Answers whatever it is asked until the client has closed, or there is nothing more to do.
void ServeFlipping(NativeConnection& connection, uint32_t seed, const std::atomic<bool>& stop) {
  const Flipper flipper(&connection, Flipper::Aim(seed % 4), seed);
  std::minstd_rand random(seed);
  while (!stop && !connection.HasEnded()) {
    const std::optional<NativeFrame> frame = connection.TryReceive();
    if (!frame.has_value()) {
      // The client sleeps, and its flag of that may be long out of date for what the flipper has made of the answers.
      connection.RingDoorbell();
      std::this_thread::yield();
      continue;
    }
    if (frame->type != kRequestFrame) continue;
    EchoReply reply;
    reply.set_payload(std::string(RandomSize(random), 'r'));
    if (random() % 4 == 0) connection.Send({.type = kHeadersFrame, .call_id = frame->call_id});
    connection.Send({.type = kResponseFrame, .call_id = frame->call_id, .body = reply.SerializeAsString()});
  }
}

TEST_F(HostileFlipTest, AServerThatChangesItsRingWhileItIsReadDisturbsNoOtherServersClients) {
  NativeServer server(Way::kShm);
  std::atomic<bool> stop{false};
  std::atomic<int> sessions{0};
  ChannelOptions options;
  options.transport = TransportPreference::kShm;
  options.initial_backoff = absl::Milliseconds(1);
  options.max_backoff = absl::Milliseconds(1);
  auto channel = Channel::Create(server.address(), options);
  int64_t calls = 0;
  int64_t ok = 0;
  std::thread serving([&] {
    for (uint32_t seed = 1; !stop; ++seed) {
      const std::unique_ptr<NativeConnection> connection = server.Accept();
      if (connection == nullptr) return;
      ++sessions;
      ServeFlipping(*connection, seed, stop);
    }
  });
  {
    Echo::Stub stub(channel);
    const SteadyTime end = SteadyTime::Now() + kTime;
    EchoRequest request;
    while (!end.HasPassed()) {
      for (int i = 0; i < 20; ++i) {
        ClientContext context;
        context.set_timeout(absl::Milliseconds(200));  // an answer may be changed into none
        EchoReply reply;
        ok += stub.Echo(&context, request, &reply).ok();
        ++calls;
      }
      ExpectNeighboursServed(1);
    }
  }
  stop = true;
  // A last connection, for a server that waits for one.
  (void)channel->WaitForConnected(absl::Now() + kHangGuard);
  serving.join();
  channel = nullptr;
  EXPECT_GT(ok, 0);
  EXPECT_GT(sessions, 1);
  RecordProperty("sessions", sessions);
  RecordProperty("calls", absl::StrCat(calls));
  RecordProperty("calls_ok", absl::StrCat(ok));
  std::cout << "sessions: " << sessions << ", calls: " << calls << ", of which OK: " << ok << std::endl;
}

}  // namespace
}  // namespace shmrpc::fault
