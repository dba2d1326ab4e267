#ifndef SHMRPC_TESTS_UNIT_RUNTIME_FAKE_SERVER_H_
#define SHMRPC_TESTS_UNIT_RUNTIME_FAKE_SERVER_H_

// A transport whose server is the test: it sees each call, and says when what happens. It keeps the rules of
// shmrpc/transport.h for a Connection, and fails the test when the runtime breaks those for the user of one.

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/channel.h"
#include "shmrpc/mutex.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/transport.h"

namespace shmrpc::testing {

// Runs functions one after the other on a thread of its own: the fake's poller.
class FakePoller final {
 public:
  FakePoller() : thread_([this] { Run(); }) {}
  ~FakePoller() {
    Post(nullptr);
    thread_.join();
  }

  void Post(std::function<void()> function) {
    MutexLock lock(&mutex_);
    functions_.push_back(std::move(function));
    added_.Signal();
  }

 private:
  void Run() {
    for (;;) {
      std::function<void()> function;
      {
        MutexLock lock(&mutex_);
        while (functions_.empty()) added_.Wait(&mutex_);
        function = std::move(functions_.front());
        functions_.pop_front();
      }
      if (function == nullptr) return;
      function();
    }
  }

  Mutex mutex_;
  CondVar added_;
  std::deque<std::function<void()>> functions_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// A copy that shares nothing: ThreadSanitizer does not see into Abseil, how copies count their references.
inline absl::Status DeepCopy(const absl::Status& status) { return absl::Status(status.code(), status.message()); }

// One call, from both sides. Events are delivered by the poller, but OnStatus inside Cancel if nobody is delivering.
class FakeCall final : public Call, public std::enable_shared_from_this<FakeCall> {
 public:
  // Runs in Send when it is about to return kWait, so that a test can put something between the two.
  using OnWait = std::function<void(FakeCall&)>;

  FakeCall(FakePoller* poller, const CallSpec& spec, size_t window, OnWait on_wait, CallEvents* events)
      : method(spec.method),
        deadline(spec.deadline),
        metadata(spec.metadata != nullptr ? *spec.metadata : Metadata()),
        client_streams(spec.client_streams),
        server_streams(spec.server_streams),
        poller_(poller),
        window_(window),
        on_wait_(std::move(on_wait)),
        events_(events) {}

  const std::string method;
  const SteadyTime deadline;
  const Metadata metadata;
  const bool client_streams;
  const bool server_streams;

  // The server's side; on any thread.

  void SendHeaders(Metadata headers) {
    {
      MutexLock lock(&mutex_);
      headers_sent_ = true;
      AddEvent([this, headers] { events_->OnHeaders(headers); });
    }
    Poll();
  }
  void SendBytes(std::string bytes) {
    {
      MutexLock lock(&mutex_);
      if (!std::exchange(headers_sent_, true)) AddEvent([this] { events_->OnHeaders({}); });
      if (!end_.has_value()) messages_.push_back(std::move(bytes));
      Advance();
    }
    Poll();
  }
  void SendMessage(const google::protobuf::MessageLite& message) { SendBytes(message.SerializePartialAsString()); }
  // What the client says of the messages that it expects.
  const google::protobuf::Descriptor* message_type() const { return events_->message_type(); }

  void SendText(const std::string& text) {
    google::protobuf::StringValue message;
    message.set_value(text);
    SendMessage(message);
  }
  void Finish(absl::Status status, Metadata trailing_metadata = {}) {
    EndWith(std::move(status), std::move(trailing_metadata), /*not_processed=*/false);
  }
  // Says that no handler has seen the call.
  void Refuse(absl::Status status) { EndWith(std::move(status), {}, /*not_processed=*/true); }
  void EndWith(absl::Status status, Metadata trailing_metadata, bool not_processed) {
    {
      MutexLock lock(&mutex_);
      if (end_.has_value()) return;
      end_ = DeepCopy(status);
      trailing_metadata_ = std::move(trailing_metadata);
      not_processed_ = not_processed;
      Advance();
    }
    Poll();
  }
  // The text of the client's next message, or nullopt when there are no more.
  std::optional<std::string> Take() {
    std::optional<std::string> text;
    {
      MutexLock lock(&mutex_);
      while (sent_.empty() && !half_closed_ && !ended_) changed_.Wait(&mutex_);
      if (sent_.empty()) return std::nullopt;
      google::protobuf::StringValue message;
      EXPECT_TRUE(message.ParseFromString(sent_.front()));
      text = message.value();
      sent_.pop_front();
      if (std::exchange(send_blocked_, false)) AddEvent([this] { events_->OnSendable(); });
    }
    Poll();
    return text;
  }
  // Waits until all events so far have been delivered.
  void WaitForDelivery() {
    MutexLock lock(&mutex_);
    while (!pending_.empty() || delivering_) changed_.Wait(&mutex_);
  }
  bool half_closed() const {
    MutexLock lock(&mutex_);
    return half_closed_;
  }
  bool drops_messages() const {
    MutexLock lock(&mutex_);
    return drops_;
  }
  size_t sent() const {
    MutexLock lock(&mutex_);
    return sent_.size();
  }
  // What the client has cancelled the call with. Waits for it.
  absl::Status WaitForCancel() {
    MutexLock lock(&mutex_);
    while (!cancelled_.has_value()) changed_.Wait(&mutex_);
    return DeepCopy(*cancelled_);
  }

  // Call
  SendResult Send(const OutgoingMessage& message, bool last) override {
    EXPECT_FALSE(in_send_.exchange(true)) << "two threads send";
    const SendResult result = TrySend(message, last);
    in_send_ = false;
    if (result == SendResult::kWait && on_wait_ != nullptr) on_wait_(*this);
    return result;
  }
  void HalfClose() override {
    MutexLock lock(&mutex_);
    EXPECT_TRUE(client_streams);
    EXPECT_FALSE(half_closed_) << "half-closed twice";
    half_closed_ = true;
    changed_.SignalAll();
  }
  void Receive() override {
    {
      MutexLock lock(&mutex_);
      EXPECT_TRUE(server_streams);
      EXPECT_FALSE(asked_ && !ended_) << "asked twice";
      EXPECT_FALSE(drops_) << "asked after DropMessages";
      asked_ = true;
      Advance();
    }
    Poll();
  }
  void DropMessages() override {
    {
      MutexLock lock(&mutex_);
      EXPECT_TRUE(server_streams);
      drops_ = true;
      Advance();
    }
    Poll();
  }
  void Cancel(absl::Status status) override {
    EXPECT_FALSE(status.ok());
    const std::shared_ptr<FakeCall> self = shared_from_this();
    {
      MutexLock lock(&mutex_);
      if (ended_) return;
      cancelled_ = DeepCopy(status);
      end_ = std::move(status);
      not_processed_ = false;
      trailing_metadata_.clear();
      pending_.clear();
      messages_.clear();
      changed_.SignalAll();
      Advance();
    }
    Deliver();
  }
  bool WaitUntil(absl::FunctionRef<bool()> done, SteadyTime until) override {
    MutexLock lock(&mutex_);
    while (!done()) {
      if (changed_.WaitUntil(&mutex_, until)) return done();
    }
    return true;
  }
  void Release() override {
    std::shared_ptr<FakeCall> self;
    MutexLock lock(&mutex_);
    EXPECT_TRUE(ended_) << "released before the end";
    self = std::move(self_);
    EXPECT_NE(self, nullptr) << "released twice";
  }

  // The connection's.
  void Begin(const OutgoingMessage* request) {
    EXPECT_EQ(request == nullptr, client_streams);
    MutexLock lock(&mutex_);
    self_ = shared_from_this();
    if (request == nullptr) return;
    Keep(*request);
    half_closed_ = true;
  }

 private:
  SendResult TrySend(const OutgoingMessage& message, bool last) {
    MutexLock lock(&mutex_);
    EXPECT_TRUE(client_streams);
    EXPECT_FALSE(half_closed_) << "sent after half-close";
    if (end_.has_value()) return SendResult::kOver;
    if (sent_.size() >= window_) {
      send_blocked_ = true;
      return SendResult::kWait;
    }
    Keep(message);
    half_closed_ = last;
    changed_.SignalAll();
    return SendResult::kSent;
  }

  void Keep(const OutgoingMessage& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::string bytes(message.size(), '\0');
    message.SerializeToArray(reinterpret_cast<uint8_t*>(bytes.data()));
    sent_.push_back(std::move(bytes));
  }

  void AddEvent(std::function<void()> event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!ended_) pending_.push_back(std::move(event));
  }

  // Makes events of what has become due.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (ended_) return;
    while (!drops_ && !messages_.empty() && (asked_ || !server_streams)) {
      asked_ = false;
      AddEvent([this, bytes = std::move(messages_.front())] {
        std::string_view piece(bytes);
        events_->OnMessage(IncomingMessage(std::span<const std::string_view>(&piece, bytes.empty() ? 0 : 1)));
      });
      messages_.pop_front();
    }
    if (!end_.has_value() || (!drops_ && !messages_.empty())) return;
    AddEvent([this, end = CallEnd{DeepCopy(*end_), trailing_metadata_, not_processed_}]() mutable {
      events_->OnStatus(std::move(end));
    });
    ended_ = true;
    asked_ = false;
    changed_.SignalAll();
  }

  // Lets the poller deliver.
  void Poll() {
    poller_->Post([self = shared_from_this()] { self->Deliver(); });
  }

  void Deliver() {
    {
      MutexLock lock(&mutex_);
      if (std::exchange(delivering_, true)) return;  // whoever it is, perhaps a caller of this function, goes on
    }
    for (;;) {
      std::function<void()> event;
      {
        MutexLock lock(&mutex_);
        if (pending_.empty()) delivering_ = false;
        changed_.SignalAll();
        if (pending_.empty()) return;
        event = std::move(pending_.front());
        pending_.pop_front();
      }
      event();
    }
  }

  FakePoller* const poller_;
  const size_t window_;  // of messages that the server has not taken
  const OnWait on_wait_;
  CallEvents* const events_;
  std::atomic<bool> in_send_{false};

  mutable Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<FakeCall> self_ ABSL_GUARDED_BY(mutex_);  // until Release
  std::deque<std::function<void()>> pending_ ABSL_GUARDED_BY(mutex_);
  bool delivering_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;  // OnStatus is among the events, or has been delivered

  std::deque<std::string> sent_ ABSL_GUARDED_BY(mutex_);  // by the client
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool send_blocked_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> cancelled_ ABSL_GUARDED_BY(mutex_);

  bool headers_sent_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::string> messages_ ABSL_GUARDED_BY(mutex_);  // for the client
  bool asked_ ABSL_GUARDED_BY(mutex_) = false;
  bool drops_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  Metadata trailing_metadata_ ABSL_GUARDED_BY(mutex_);
  bool not_processed_ ABSL_GUARDED_BY(mutex_) = false;
};

// Where the calls arrive. Outlives the channels.
class FakeServer final {
 public:
  // A transport to this server. While it refuses, attempts to connect fail.
  TransportSet transports() { return {std::make_shared<FakeTransport>(this)}; }

  std::shared_ptr<Channel> NewChannel(ChannelOptions options = {}) {
    return Channel::Create("localhost:1", options, transports());
  }
  std::shared_ptr<Channel> NewConnectedChannel() {
    std::shared_ptr<Channel> channel = NewChannel();
    EXPECT_EQ(channel->WaitForConnected(absl::InfiniteFuture()), absl::OkStatus());
    return channel;
  }

  void set_refuses(bool refuses) { refuses_ = refuses; }
  // How many messages each new call may send before the server takes one.
  void set_window(size_t window) { window_ = window; }
  void set_on_wait(FakeCall::OnWait on_wait) { on_wait_ = std::move(on_wait); }
  // Called with each new call, in StartCall. Before the first one.
  void set_on_call(std::function<void(const std::shared_ptr<FakeCall>&)> on_call) { on_call_ = std::move(on_call); }

  // The call that arrived first and has not been asked for yet. Waits for it.
  std::shared_ptr<FakeCall> NextCall() {
    MutexLock lock(&mutex_);
    while (calls_.empty()) arrived_.Wait(&mutex_);
    std::shared_ptr<FakeCall> call = std::move(calls_.front());
    calls_.pop_front();
    return call;
  }

 private:
  class FakeConnection final : public Connection {
   public:
    explicit FakeConnection(FakeServer* server) : server_(server) {}
    ~FakeConnection() override {
      std::vector<std::weak_ptr<FakeCall>> calls;
      {
        MutexLock lock(&mutex_);
        calls.swap(calls_);
      }
      for (const std::weak_ptr<FakeCall>& weak : calls) {
        const std::shared_ptr<FakeCall> call = weak.lock();
        if (call != nullptr) call->Cancel(absl::CancelledError("the connection was destroyed"));
      }
    }

    void StartCall(const CallSpec& spec, const OutgoingMessage* request, CallEvents* events,
                   std::atomic<Call*>* result) override {
      const auto call =
          std::make_shared<FakeCall>(&server_->poller_, spec, server_->window_, server_->on_wait_, events);
      *result = call.get();
      call->Begin(request);
      {
        MutexLock lock(&mutex_);
        calls_.push_back(call);
      }
      server_->AddCall(call);
    }
    const TransportChoice& choice() const override { return choice_; }
    const Peer& peer() const override { return peer_; }
    bool IsOver() override { return false; }
    absl::Status reason_over() const override { return absl::OkStatus(); }

   private:
    FakeServer* const server_;
    const TransportChoice choice_ = {"fake", ""};
    const Peer peer_;
    Mutex mutex_;
    std::vector<std::weak_ptr<FakeCall>> calls_ ABSL_GUARDED_BY(mutex_);
  };

  class FakeTransport final : public Transport {
   public:
    explicit FakeTransport(FakeServer* server) : server_(server) {}
    std::string_view name() const override { return "fake"; }
    bool Handles(const Target&) const override { return true; }
    absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target&, const ConnectOptions&) override {
      if (server_->refuses_) return absl::UnavailableError("the fake refuses");
      return std::make_unique<FakeConnection>(server_);
    }
    absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target&, const ListenOptions&, CallHandler*) override {
      return absl::UnimplementedError("the fake does not listen");
    }

   private:
    FakeServer* const server_;
  };

  void AddCall(const std::shared_ptr<FakeCall>& call) {
    if (on_call_ != nullptr) return on_call_(call);
    MutexLock lock(&mutex_);
    calls_.push_back(call);
    arrived_.Signal();
  }

  std::atomic<bool> refuses_{false};
  std::atomic<size_t> window_{size_t{1} << 20};
  FakeCall::OnWait on_wait_;
  std::function<void(const std::shared_ptr<FakeCall>&)> on_call_;
  Mutex mutex_;
  CondVar arrived_;
  std::deque<std::shared_ptr<FakeCall>> calls_ ABSL_GUARDED_BY(mutex_);
  FakePoller poller_;
};

}  // namespace shmrpc::testing

#endif  // SHMRPC_TESTS_UNIT_RUNTIME_FAKE_SERVER_H_
