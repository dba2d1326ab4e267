#ifndef SHMRPC_TESTS_UNIT_RUNTIME_FAKE_SERVER_CALL_H_
#define SHMRPC_TESTS_UNIT_RUNTIME_FAKE_SERVER_CALL_H_

// A transport whose client is the test: it says when messages, credits, half-close and cancellation come, and sees what
// the server sends. It also watches that the runtime keeps to the rules of ServerCall.

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
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "shmrpc/mutex.h"
#include "shmrpc/server.h"
#include "shmrpc/service.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/task.h"
#include "shmrpc/transport.h"
#include "tests/unit/runtime_test_service.h"

namespace shmrpc::testing {

// One call. A thread of its own delivers its events; another runs OnCall. Made by FakeTransport::Call; joined and
// destroyed by its owner.
class FakeServerCall final : public ServerCall {
 public:
  struct Options {
    std::string method;
    std::optional<std::string> request;  // a serialised message, given with OnCall
    SteadyTime deadline = SteadyTime::InfiniteFuture();
    int credits = 1 << 20;            // messages that Send takes
    bool done_inside_finish = false;  // OnDone comes before Finish returns, where the rules allow it
  };

  FakeServerCall(Options options, CallHandler* handler) : options_(std::move(options)) {
    events_thread_ = std::thread([this] { DeliverEvents(); });
    handler_thread_ = std::thread([this, handler] {
      if (!options_.request.has_value()) return handler->OnCall(ServerCallPtr(this), nullptr);
      const std::string_view piece = *options_.request;
      const IncomingMessage message(std::span(&piece, piece.empty() ? 0 : 1));
      handler->OnCall(ServerCallPtr(this), &message);
    });
  }

  ~FakeServerCall() override {
    handler_thread_.join();
    events_thread_.join();
  }

  // ---- The client.

  void SendBytes(std::string bytes) {
    MutexLock lock(&mutex_);
    inbox_.push_back(std::move(bytes));
    changed_.SignalAll();
  }
  void Send(const std::string& text) { SendBytes(Text(text).SerializeAsString()); }
  void HalfClose() {
    MutexLock lock(&mutex_);
    half_closed_ = true;
    changed_.SignalAll();
  }
  void Cancel() {
    MutexLock lock(&mutex_);
    if (cancelled_) return;
    cancelled_ = cancelled_due_ = true;
    changed_.SignalAll();
  }
  void Grant(int credits) {
    MutexLock lock(&mutex_);
    options_.credits += credits;
    if (sender_waits_ && options_.credits > 0) sendable_due_ = true;
    changed_.SignalAll();
  }

  // Waits for the end: until the call is finished and, if it has events, they are over.
  absl::Status WaitForStatus() {
    MutexLock lock(&mutex_);
    if (!WaitFor([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return gone_; })) {
      return absl::InternalError("the call did not end");
    }
    return status_;
  }
  // The texts of the messages that have been sent, once there are `count` of them.
  std::vector<std::string> WaitForSent(size_t count) {
    MutexLock lock(&mutex_);
    EXPECT_TRUE(WaitFor([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return sent_.size() >= count; }));
    return sent_;
  }
  // Until the server has asked for a message that has not come, or for credit.
  void WaitForReceive() {
    MutexLock lock(&mutex_);
    EXPECT_TRUE(WaitFor([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return wanted_; }));
  }
  void WaitForSenderToWait() {
    MutexLock lock(&mutex_);
    EXPECT_TRUE(WaitFor([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return sender_waits_; }));
  }
  std::vector<std::string> sent() {
    MutexLock lock(&mutex_);
    return sent_;
  }
  // The same for messages of any type.
  std::vector<std::string> sent_bytes() {
    MutexLock lock(&mutex_);
    return sent_bytes_;
  }
  Metadata headers() {
    MutexLock lock(&mutex_);
    return headers_;
  }
  bool headers_sent() {
    MutexLock lock(&mutex_);
    return headers_sent_;
  }
  Metadata trailing_metadata() {
    MutexLock lock(&mutex_);
    return trailing_;
  }
  bool started() {
    MutexLock lock(&mutex_);
    return events_ != nullptr;
  }

  // ---- ServerCall

  std::string_view method() const override { return options_.method; }
  SteadyTime deadline() const override { return options_.deadline; }
  const Metadata& metadata() const override { return metadata_; }
  const Peer& peer() const override { return peer_; }
  bool IsCancelled() const override {
    MutexLock lock(&mutex_);
    CheckUsable();
    return cancelled_ || (options_.deadline != SteadyTime::InfiniteFuture() && SteadyTime::Now() >= options_.deadline);
  }
  void Start(ServerCallEvents* events) override {
    MutexLock lock(&mutex_);
    CheckUsable();
    EXPECT_EQ(events_, nullptr) << "started twice";
    events_ = events;
    changed_.SignalAll();
  }
  void Receive() override {
    MutexLock lock(&mutex_);
    CheckUsable();
    EXPECT_NE(events_, nullptr);
    EXPECT_FALSE(wanted_) << "Receive before the answer to the previous one";
    EXPECT_FALSE(half_close_told_) << "Receive after the half-close";
    wanted_ = true;
    changed_.SignalAll();
  }
  void SendHeaders(const Metadata& metadata) override {
    MutexLock lock(&mutex_);
    CheckUsable();
    EXPECT_FALSE(headers_sent_) << "headers sent twice";
    headers_sent_ = true;
    headers_ = metadata;
    changed_.SignalAll();
  }
  SendResult Send(const OutgoingMessage& message) override {
    std::string bytes(message.size(), '\0');
    message.SerializeToArray(reinterpret_cast<uint8_t*>(bytes.data()));
    MutexLock lock(&mutex_);
    CheckUsable();
    EXPECT_NE(events_, nullptr);
    EXPECT_FALSE(sender_waits_ && !sendable_due_ && !cancelled_) << "Send without OnSendable";
    if (cancelled_) return SendResult::kOver;
    if (options_.credits == 0) {
      sender_waits_ = true;
      changed_.SignalAll();
      return SendResult::kWait;
    }
    --options_.credits;
    headers_sent_ = true;
    AddSent(bytes);
    return SendResult::kSent;
  }
  bool WaitUntil(absl::FunctionRef<bool()> done, SteadyTime deadline) override {
    MutexLock lock(&mutex_);
    while (!done()) {
      if (changed_.WaitUntil(&mutex_, deadline)) return done();
    }
    return true;
  }
  void Finish(const Reply& reply) override {
    ServerCallEvents* done_now = nullptr;
    {
      MutexLock lock(&mutex_);
      CheckUsable();
      if (reply.message != nullptr) {
        EXPECT_TRUE(reply.status.ok());
        std::string bytes(reply.message->size(), '\0');
        reply.message->SerializeToArray(reinterpret_cast<uint8_t*>(bytes.data()));
        AddSent(bytes);
      }
      if (reply.initial_metadata != nullptr) {
        EXPECT_FALSE(headers_sent_);
        headers_ = *reply.initial_metadata;
      }
      if (reply.trailing_metadata != nullptr) trailing_ = *reply.trailing_metadata;
      // With a reference count of its own, which ThreadSanitizer would not see in Debian's Abseil.
      status_ = absl::Status(reply.status.code(), reply.status.message());
      finished_ = true;
      if (events_ == nullptr) {
        gone_ = true;
      } else if (options_.done_inside_finish && !delivering_) {
        delivering_ = true;
        done_now = events_;
      }
      changed_.SignalAll();
    }
    if (done_now == nullptr) return;
    done_now->OnDone();
    MutexLock lock(&mutex_);
    gone_ = true;
    changed_.SignalAll();
  }

 private:
  void Abandon() override {
    Reply reply;
    reply.status = absl::InternalError("abandoned");
    Finish(reply);
  }

  void CheckUsable() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    EXPECT_FALSE(finished_) << "the call was used after Finish";
  }

  void AddSent(const std::string& bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    StringValue message;
    EXPECT_TRUE(message.ParsePartialFromString(bytes));
    sent_.push_back(message.value());
    sent_bytes_.push_back(bytes);
    changed_.SignalAll();
  }

  // False when that took implausibly long.
  bool WaitFor(absl::FunctionRef<bool()> condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const SteadyTime deadline = SteadyTime::Now() + kHang;
    while (!condition()) {
      if (changed_.WaitUntil(&mutex_, deadline)) return condition();
    }
    return true;
  }

  void DeliverEvents() {
    mutex_.Lock();
    for (;;) {
      while (!gone_ && (events_ == nullptr || delivering_ || !IsDue())) changed_.Wait(&mutex_);
      if (gone_) break;
      delivering_ = true;
      const bool done = finished_;
      const std::function<void()> event = TakeEvent();
      mutex_.Unlock();
      event();
      mutex_.Lock();
      delivering_ = false;
      if (done) gone_ = true;
      changed_.SignalAll();
    }
    mutex_.Unlock();
  }

  bool IsDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return finished_ || cancelled_due_ || sendable_due_ ||
           (wanted_ && !cancelled_ && (!inbox_.empty() || (half_closed_ && !half_close_told_)));
  }

  std::function<void()> TakeEvent() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ServerCallEvents* const events = events_;
    if (finished_) return [events] { events->OnDone(); };
    if (cancelled_due_) {
      cancelled_due_ = false;
      return [events] { events->OnCancelled(); };
    }
    if (sendable_due_) {
      sendable_due_ = sender_waits_ = false;
      return [events] { events->OnSendable(); };
    }
    wanted_ = false;
    if (inbox_.empty()) {
      half_close_told_ = true;
      return [events] { events->OnHalfClose(); };
    }
    std::string bytes = std::move(inbox_.front());
    inbox_.pop_front();
    return [events, bytes = std::move(bytes)] {
      const std::string_view piece = bytes;
      events->OnMessage(IncomingMessage(std::span(&piece, piece.empty() ? 0 : 1)));
    };
  }

  Options options_;
  const Metadata metadata_;
  const Peer peer_;
  std::thread events_thread_;
  std::thread handler_thread_;

  mutable Mutex mutex_;
  CondVar changed_;
  ServerCallEvents* events_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool delivering_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::string> inbox_ ABSL_GUARDED_BY(mutex_);
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_close_told_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool sender_waits_ ABSL_GUARDED_BY(mutex_) = false;
  bool sendable_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool headers_sent_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::string> sent_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> sent_bytes_ ABSL_GUARDED_BY(mutex_);
  Metadata headers_ ABSL_GUARDED_BY(mutex_);
  Metadata trailing_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

// Listens on any inproc: address, and hands over the calls that the test makes.
class FakeTransport final : public Transport {
 public:
  std::string_view name() const override { return "fake"; }
  bool Handles(const Target& target) const override { return true; }
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target&, const ConnectOptions&) override {
    return absl::UnimplementedError("the fake has no client");
  }
  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target& target, const ListenOptions& options,
                                                   CallHandler* handler) override {
    handler_ = handler;
    options_ = options;
    return std::make_unique<FakeListener>(target);
  }

  const ListenOptions& options() const { return options_; }

  std::unique_ptr<FakeServerCall> Call(FakeServerCall::Options options) {
    return std::make_unique<FakeServerCall>(std::move(options), handler_);
  }

 private:
  // Tests end their calls before they shut the server down.
  class FakeListener final : public Listener {
   public:
    explicit FakeListener(Target target) : address_(std::move(target)) {}
    const Target& address() const override { return address_; }
    void Shutdown(SteadyTime deadline) override {}

   private:
    const Target address_;
  };

  CallHandler* handler_ = nullptr;
  ListenOptions options_;
};

// "test.Kinds": a method of each kind; all of them run the one function that is set. Messages are StringValues, but for
// Required, which streams both ways and whose messages have required fields.
class KindsService final : public Service {
 public:
  using MessageLite = google::protobuf::MessageLite;
  using NamePart = google::protobuf::UninterpretedOption_NamePart;
  using Invoke = std::function<absl::Status(ServerContext*, const StringValue*, StringValue*, ServerStream*)>;
  using React = std::function<ServerReactor*(ServerContext*, const StringValue*, StringValue*)>;
  using CoInvoke = std::function<Task<absl::Status>(ServerContext*, const StringValue*, StringValue*, CoServerStream*)>;

  static constexpr const char* kUnary = "/test.Kinds/Unary";
  static constexpr const char* kServerStreaming = "/test.Kinds/ServerStreaming";
  static constexpr const char* kClientStreaming = "/test.Kinds/ClientStreaming";
  static constexpr const char* kBidi = "/test.Kinds/Bidi";
  static constexpr const char* kRequired = "/test.Kinds/Required";

  explicit KindsService(Invoke invoke) : invoke_(std::move(invoke)) {}
  explicit KindsService(React react) : react_(std::move(react)) {}
  explicit KindsService(CoInvoke co_invoke) : co_invoke_(std::move(co_invoke)) {}

  std::string_view ShmrpcServiceName() const override { return "test.Kinds"; }
  std::span<const ServiceMethod> ShmrpcMethods() const override {
    methods_ = {{kUnary, MethodKind::kUnary, &Text, &Text},
                {kServerStreaming, MethodKind::kServerStreaming, &Text, &Text},
                {kClientStreaming, MethodKind::kClientStreaming, &Text, &Text},
                {kBidi, MethodKind::kBidiStreaming, &Text, &Text},
                {kRequired, MethodKind::kBidiStreaming, &Required, &Required}};
    for (ServiceMethod& method : methods_) {
      if (invoke_) method.invoke = &RunInvoke;
      if (react_) method.react = &RunReact;
      if (co_invoke_) method.co_invoke = &RunCoInvoke;
    }
    return methods_;
  }

 private:
  static const MessageLite& Text() { return StringValue::default_instance(); }
  static const MessageLite& Required() { return NamePart::default_instance(); }
  static absl::Status RunInvoke(Service* service, ServerContext* context, const MessageLite* request,
                                MessageLite* reply, ServerStream* stream) {
    return static_cast<KindsService*>(service)->invoke_(context, static_cast<const StringValue*>(request),
                                                        static_cast<StringValue*>(reply), stream);
  }
  static ServerReactor* RunReact(Service* service, ServerContext* context, const MessageLite* request,
                                 MessageLite* reply) {
    return static_cast<KindsService*>(service)->react_(context, static_cast<const StringValue*>(request),
                                                       static_cast<StringValue*>(reply));
  }
  static Task<absl::Status> RunCoInvoke(Service* service, ServerContext* context, const MessageLite* request,
                                        MessageLite* reply, CoServerStream* stream) {
    return static_cast<KindsService*>(service)->co_invoke_(context, static_cast<const StringValue*>(request),
                                                           static_cast<StringValue*>(reply), stream);
  }

  const Invoke invoke_;
  const React react_;
  const CoInvoke co_invoke_;
  mutable std::vector<ServiceMethod> methods_;  // written before the server starts
};

// A server whose clients are FakeServerCalls.
class ServerUnderTest {
 public:
  using Configure = std::function<void(ServerBuilder*)>;

  explicit ServerUnderTest(Service* service, const Configure& configure = nullptr) {
    ServerBuilder builder(TransportSet{transport_});
    builder.Listen("inproc:fake").Register(service);
    if (configure) configure(&builder);
    server_ = builder.Start().value();
  }

  const ListenOptions& options() const { return transport_->options(); }
  Server& server() { return *server_; }

  std::unique_ptr<FakeServerCall> Call(FakeServerCall::Options options) { return transport_->Call(std::move(options)); }
  // Whose request, if any, comes with the call.
  std::unique_ptr<FakeServerCall> Call(const std::string& method, const std::optional<std::string>& text = {}) {
    FakeServerCall::Options options;
    options.method = method;
    if (text.has_value()) options.request = Text(*text).SerializeAsString();
    return Call(std::move(options));
  }

 private:
  const std::shared_ptr<FakeTransport> transport_ = std::make_shared<FakeTransport>();
  std::unique_ptr<Server> server_;
};

}  // namespace shmrpc::testing

#endif  // SHMRPC_TESTS_UNIT_RUNTIME_FAKE_SERVER_CALL_H_
