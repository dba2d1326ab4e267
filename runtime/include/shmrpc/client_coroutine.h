#ifndef SHMRPC_CLIENT_COROUTINE_H_
#define SHMRPC_CLIENT_COROUTINE_H_

// Calls from coroutines (see shmrpc/task.h); any other coroutine type can await them too.
//
//   absl::StatusOr<HelloReply> reply = co_await stub.co().SayHello(request);
//
//   shmrpc::CoClientReader<Point> reader = stub.co().ListPoints(&context, area);
//   while (std::optional<Point> point = co_await reader.Read()) Draw(*point);
//   absl::Status status = co_await reader.Finish();
//
// No thread is kept while a call is under way. The coroutine resumes on the thread that completed the operation, or
// does not stop at all when it is complete at once.
//
// Rules of the three stream classes:
//  - The call begins with the object. The context (may be null: no deadline, no metadata) outlives it, or its Finish;
//    the request need not.
//  - Read() gives the server's next message, and nullopt when no more will come; Read(&message) fills the message in,
//    whose memory it uses again, and gives false when no more will come. Write gives false when the call is over.
//    Finish then tells why. A message that cannot be sent (it is too large, or lacks required fields) or received (it
//    does not parse) ends the call with a status that says so.
//  - Write is complete when the message is on its way; it waits while the server does not read what was sent before.
//  - At most one read, and one write or WritesDone, at a time; two coroutines may share the two directions. Finish
//    comes last, once, with nothing else awaited.
//  - Destroying one that is not finished cancels the call. That is legal unless something is being awaited.

#include <coroutine>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/client_stream.h"
#include "shmrpc/method_kind.h"

namespace shmrpc {

namespace internal {

// Starts a unary call for an awaiting coroutine. False: the call is over. True: `waiting` is resumed when it is, later
// or already; `*status` is set before, and lives until then.
bool StartCoUnaryCall(const std::shared_ptr<Channel>& channel, const char* method, ClientContext* context,
                      const google::protobuf::MessageLite& request, google::protobuf::MessageLite* reply,
                      absl::Status* status, std::coroutine_handle<> waiting);

}  // namespace internal

// What a unary method returns: the call begins when it is awaited, which is done once. The context (may be null)
// outlives the call; the request lives until then, as a temporary in the co_await expression does.
//
// Movable until it is awaited.
template <typename Reply>
class [[nodiscard]] CoUnaryCall final {
 public:
  // `method` is "/package.Service/Method", static storage.
  CoUnaryCall(std::shared_ptr<Channel> channel, const char* method, ClientContext* context,
              const google::protobuf::MessageLite& request)
      : channel_(std::move(channel)), method_(method), context_(context), request_(&request) {}
  // One that is over, for mocks.
  explicit CoUnaryCall(absl::StatusOr<Reply> result) : status_(result.status()) {
    if (result.ok()) reply_ = *std::move(result);
  }
  CoUnaryCall(CoUnaryCall&& other) = default;

  bool await_ready() const noexcept { return request_ == nullptr; }
  bool await_suspend(std::coroutine_handle<> waiting) {
    return internal::StartCoUnaryCall(channel_, method_, context_, *request_, &reply_, &status_, waiting);
  }
  absl::StatusOr<Reply> await_resume() {
    if (!status_.ok()) return std::move(status_);
    return std::move(reply_);
  }

 private:
  std::shared_ptr<Channel> channel_;
  const char* method_ = nullptr;
  ClientContext* context_ = nullptr;
  const google::protobuf::MessageLite* request_ = nullptr;  // null for one that is over
  Reply reply_;
  absl::Status status_;
};

// What a CoClientStream does. All return false when the operation is complete: `*ok` (or `*status`) says how. True: it
// is set and `waiting` resumed, later or already; it and the message live until then.
class CoClientOperations {
 public:
  virtual ~CoClientOperations() = default;
  virtual bool StartRead(google::protobuf::MessageLite* message, bool* ok, std::coroutine_handle<> waiting) = 0;
  virtual bool StartWrite(const google::protobuf::MessageLite& message, bool last, bool* ok,
                          std::coroutine_handle<> waiting) = 0;
  virtual bool StartHalfClose(bool* ok, std::coroutine_handle<> waiting) = 0;
  virtual bool StartFinish(absl::Status* status, std::coroutine_handle<> waiting) = 0;
  // The stream goes. Nothing is being awaited.
  virtual void OnStreamGone() = 0;
};

// The stream of one call, whatever its messages are; see above. The typed classes below are what users see of it.
// Movable, not while something is awaited.
class CoClientStream final {
 public:
  // Begins a call of `method`, which is not unary. `request` is null if the client streams. `reply` is where the one
  // reply of a client-streaming method goes; it belongs to the call, complete when Finish gives OK.
  CoClientStream(const std::shared_ptr<Channel>& channel, const char* method, MethodKind kind, ClientContext* context,
                 const google::protobuf::MessageLite* request, std::unique_ptr<google::protobuf::MessageLite> reply);
  // One without a channel, for tests: does what `stream` does, whose functions are called where it is awaited, and
  // should not block. `reply` as above.
  explicit CoClientStream(std::unique_ptr<ClientStream> stream,
                          std::unique_ptr<google::protobuf::MessageLite> reply = nullptr);
  ~CoClientStream();
  CoClientStream(CoClientStream&& other) noexcept = default;
  CoClientStream& operator=(CoClientStream&& other) noexcept;

  // As CoClientOperations.
  bool StartRead(google::protobuf::MessageLite* message, bool* ok, std::coroutine_handle<> waiting);
  bool StartWrite(const google::protobuf::MessageLite& message, bool last, bool* ok, std::coroutine_handle<> waiting);
  bool StartHalfClose(bool* ok, std::coroutine_handle<> waiting);
  bool StartFinish(absl::Status* status, std::coroutine_handle<> waiting);

 private:
  void Cancel();

  std::shared_ptr<CoClientOperations> call_;
};

// What Read returns; to be awaited once, at once.
template <typename R>
class [[nodiscard]] CoClientRead final {
 public:
  explicit CoClientRead(CoClientStream* stream) : stream_(stream) {}
  CoClientRead(const CoClientRead&) = delete;
  CoClientRead& operator=(const CoClientRead&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return stream_->StartRead(&message_, &ok_, waiting); }
  std::optional<R> await_resume() {
    if (!ok_) return std::nullopt;
    return std::move(message_);
  }

 private:
  CoClientStream* const stream_;
  R message_;
  bool ok_ = false;
};

// What Read into a message returns; to be awaited once, at once.
class [[nodiscard]] CoClientReadInto final {
 public:
  CoClientReadInto(CoClientStream* stream, google::protobuf::MessageLite* message)
      : stream_(stream), message_(message) {}
  CoClientReadInto(const CoClientReadInto&) = delete;
  CoClientReadInto& operator=(const CoClientReadInto&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return stream_->StartRead(message_, &ok_, waiting); }
  bool await_resume() const noexcept { return ok_; }

 private:
  CoClientStream* const stream_;
  google::protobuf::MessageLite* const message_;
  bool ok_ = false;
};

// What Write returns; to be awaited once, at once.
class [[nodiscard]] CoClientWrite final {
 public:
  CoClientWrite(CoClientStream* stream, const google::protobuf::MessageLite& message, bool last)
      : stream_(stream), message_(message), last_(last) {}
  CoClientWrite(const CoClientWrite&) = delete;
  CoClientWrite& operator=(const CoClientWrite&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return stream_->StartWrite(message_, last_, &ok_, waiting); }
  bool await_resume() const noexcept { return ok_; }

 private:
  CoClientStream* const stream_;
  const google::protobuf::MessageLite& message_;
  const bool last_;
  bool ok_ = false;
};

// What WritesDone returns; to be awaited once, at once.
class [[nodiscard]] CoClientHalfClose final {
 public:
  explicit CoClientHalfClose(CoClientStream* stream) : stream_(stream) {}
  CoClientHalfClose(const CoClientHalfClose&) = delete;
  CoClientHalfClose& operator=(const CoClientHalfClose&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return stream_->StartHalfClose(&ok_, waiting); }
  bool await_resume() const noexcept { return ok_; }

 private:
  CoClientStream* const stream_;
  bool ok_ = false;
};

// What Finish returns; to be awaited once, at once.
class [[nodiscard]] CoClientFinish final {
 public:
  explicit CoClientFinish(CoClientStream* stream) : stream_(stream) {}
  CoClientFinish(const CoClientFinish&) = delete;
  CoClientFinish& operator=(const CoClientFinish&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return stream_->StartFinish(&status_, waiting); }
  absl::Status await_resume() { return std::move(status_); }

 private:
  CoClientStream* const stream_;
  absl::Status status_;
};

// As CoClientFinish, with the one reply of the call.
template <typename Reply>
class [[nodiscard]] CoClientFinishWithReply final {
 public:
  CoClientFinishWithReply(CoClientStream* stream, Reply* reply) : stream_(stream), reply_(reply) {}
  CoClientFinishWithReply(const CoClientFinishWithReply&) = delete;
  CoClientFinishWithReply& operator=(const CoClientFinishWithReply&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return stream_->StartFinish(&status_, waiting); }
  absl::StatusOr<Reply> await_resume() {
    if (!status_.ok()) return std::move(status_);
    return std::move(*reply_);
  }

 private:
  CoClientStream* const stream_;
  Reply* const reply_;
  absl::Status status_;
};

// What a server-streaming method returns.
template <typename R>
class CoClientReader final {
 public:
  CoClientReader(const std::shared_ptr<Channel>& channel, const char* method, ClientContext* context,
                 const google::protobuf::MessageLite& request)
      : stream_(channel, method, MethodKind::kServerStreaming, context, &request, nullptr) {}
  // For tests: see CoClientStream.
  explicit CoClientReader(std::unique_ptr<ClientStream> stream) : stream_(std::move(stream)) {}

  // co_await gives std::optional<R>.
  CoClientRead<R> Read() { return CoClientRead<R>(&stream_); }
  // co_await gives bool, and the message is filled in when it is true: for large messages, whose memory is used again.
  CoClientReadInto Read(R* message) { return CoClientReadInto(&stream_, message); }
  // co_await gives absl::Status. Messages that were not read are dropped.
  CoClientFinish Finish() { return CoClientFinish(&stream_); }

 private:
  CoClientStream stream_;
};

// What a client-streaming method returns.
template <typename W, typename Reply>
class CoClientWriter final {
 public:
  CoClientWriter(const std::shared_ptr<Channel>& channel, const char* method, ClientContext* context)
      : CoClientWriter(channel, method, context, std::make_unique<Reply>()) {}
  // For tests: see CoClientStream. `reply` is what Finish gives when the stream's Finish says OK.
  CoClientWriter(std::unique_ptr<ClientStream> stream, Reply reply)
      : CoClientWriter(std::move(stream), std::make_unique<Reply>(std::move(reply))) {}

  // co_await gives bool. The message lives until then.
  CoClientWrite Write(const W& message) { return CoClientWrite(&stream_, message, /*last=*/false); }
  // As Write and WritesDone, together in one go.
  CoClientWrite WriteLast(const W& message) { return CoClientWrite(&stream_, message, /*last=*/true); }
  // co_await gives bool. Tells the server that no more messages come.
  CoClientHalfClose WritesDone() { return CoClientHalfClose(&stream_); }
  // co_await gives absl::StatusOr<Reply>. WritesDone, if need be; then waits for the reply.
  CoClientFinishWithReply<Reply> Finish() { return CoClientFinishWithReply<Reply>(&stream_, reply_); }

 private:
  CoClientWriter(const std::shared_ptr<Channel>& channel, const char* method, ClientContext* context,
                 std::unique_ptr<Reply> reply)
      : reply_(reply.get()),
        stream_(channel, method, MethodKind::kClientStreaming, context, nullptr, std::move(reply)) {}
  CoClientWriter(std::unique_ptr<ClientStream> stream, std::unique_ptr<Reply> reply)
      : reply_(reply.get()), stream_(std::move(stream), std::move(reply)) {}

  Reply* reply_;  // the stream's
  CoClientStream stream_;
};

// What a bidirectional-streaming method returns.
template <typename W, typename R>
class CoClientReaderWriter final {
 public:
  CoClientReaderWriter(const std::shared_ptr<Channel>& channel, const char* method, ClientContext* context)
      : stream_(channel, method, MethodKind::kBidiStreaming, context, nullptr, nullptr) {}
  // For tests: see CoClientStream.
  explicit CoClientReaderWriter(std::unique_ptr<ClientStream> stream) : stream_(std::move(stream)) {}

  CoClientRead<R> Read() { return CoClientRead<R>(&stream_); }
  CoClientReadInto Read(R* message) { return CoClientReadInto(&stream_, message); }
  CoClientWrite Write(const W& message) { return CoClientWrite(&stream_, message, /*last=*/false); }
  CoClientWrite WriteLast(const W& message) { return CoClientWrite(&stream_, message, /*last=*/true); }
  CoClientHalfClose WritesDone() { return CoClientHalfClose(&stream_); }
  // co_await gives absl::Status. WritesDone, if need be; messages that were not read are dropped.
  CoClientFinish Finish() { return CoClientFinish(&stream_); }

 private:
  CoClientStream stream_;
};

}  // namespace shmrpc

#endif  // SHMRPC_CLIENT_COROUTINE_H_
