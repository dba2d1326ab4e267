#ifndef SHMRPC_SERVER_COROUTINE_H_
#define SHMRPC_SERVER_COROUTINE_H_

// The streams of handlers that are coroutines:
//
//   shmrpc::Task<absl::Status> Sum(shmrpc::ServerContext*, shmrpc::CoServerReader<Number>* reader, Number* sum) {
//     while (std::optional<Number> number = co_await reader->Read()) sum->set_value(sum->value() + number->value());
//     co_return absl::OkStatus();
//   }

#include <coroutine>
#include <optional>
#include <utility>

#include "google/protobuf/message_lite.h"

namespace shmrpc {

// The stream of one call, whatever its messages are. It belongs to the call, and ends when the handler's coroutine has
// returned; the typed classes below are views of it.
//
// At most one read and one write may be awaited at a time; a read and a write may be awaited by two coroutines. The
// coroutine is resumed on the thread that completed the operation, or does not stop at all when it is complete at once.
// A message that cannot be accepted (it does not parse, is too large, lacks required fields) ends the stream and makes
// the call fail, with a status that says so, whatever the handler returns then.
class CoServerStream {
 public:
  // Both return false when the operation is complete: `*ok` says how. True: `*ok` is set and `waiting` resumed, later
  // or already; `ok` and the message live until then.
  virtual bool StartRead(google::protobuf::MessageLite* message, bool* ok, std::coroutine_handle<> waiting) = 0;
  virtual bool StartWrite(const google::protobuf::MessageLite& message, bool* ok, std::coroutine_handle<> waiting) = 0;

  // Sends the context's initial metadata now, rather than with the first message. At most once, before any write.
  virtual void SendInitialMetadata() = 0;

 protected:
  virtual ~CoServerStream() = default;
};

// What Read returns; to be awaited once, at once.
template <typename R>
class [[nodiscard]] CoServerRead final {
 public:
  explicit CoServerRead(CoServerStream* stream) : stream_(stream) {}
  CoServerRead(const CoServerRead&) = delete;
  CoServerRead& operator=(const CoServerRead&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return stream_->StartRead(&message_, &ok_, waiting); }
  std::optional<R> await_resume() {
    if (!ok_) return std::nullopt;
    return std::move(message_);
  }

 private:
  CoServerStream* const stream_;
  R message_;
  bool ok_ = false;
};

// What Read into a message returns; to be awaited once, at once.
class [[nodiscard]] CoServerReadInto final {
 public:
  CoServerReadInto(CoServerStream* stream, google::protobuf::MessageLite* message)
      : stream_(stream), message_(message) {}
  CoServerReadInto(const CoServerReadInto&) = delete;
  CoServerReadInto& operator=(const CoServerReadInto&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return stream_->StartRead(message_, &ok_, waiting); }
  bool await_resume() const noexcept { return ok_; }

 private:
  CoServerStream* const stream_;
  google::protobuf::MessageLite* const message_;
  bool ok_ = false;
};

// What Write returns; to be awaited once, at once.
class [[nodiscard]] CoServerWrite final {
 public:
  CoServerWrite(CoServerStream* stream, const google::protobuf::MessageLite& message)
      : stream_(stream), message_(message) {}
  CoServerWrite(const CoServerWrite&) = delete;
  CoServerWrite& operator=(const CoServerWrite&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) { return stream_->StartWrite(message_, &ok_, waiting); }
  bool await_resume() const noexcept { return ok_; }

 private:
  CoServerStream* const stream_;
  const google::protobuf::MessageLite& message_;
  bool ok_ = false;
};

// What a client-streaming handler reads its requests from.
template <typename R>
class CoServerReader final {
 public:
  explicit CoServerReader(CoServerStream* stream) : stream_(stream) {}

  // co_await gives the client's next message, or nullopt when there are no more: the client has half-closed, or the
  // call is cancelled or past its deadline (ServerContext::IsCancelled tells).
  CoServerRead<R> Read() { return CoServerRead<R>(stream_); }
  // co_await gives bool, and the message is filled in when it is true: for large messages, whose memory is used again.
  CoServerReadInto Read(R* message) { return CoServerReadInto(stream_, message); }
  void SendInitialMetadata() { stream_->SendInitialMetadata(); }

 private:
  CoServerStream* const stream_;
};

// What a server-streaming handler writes its replies to.
template <typename W>
class CoServerWriter final {
 public:
  explicit CoServerWriter(CoServerStream* stream) : stream_(stream) {}

  // co_await gives true when the message has been sent, which takes until the client has read enough of the earlier
  // ones; false when the call is over: cancelled or past its deadline. The handler should then return.
  CoServerWrite Write(const W& message) { return CoServerWrite(stream_, message); }
  void SendInitialMetadata() { stream_->SendInitialMetadata(); }

 private:
  CoServerStream* const stream_;
};

// Both, for a bidirectional one.
template <typename W, typename R>
class CoServerReaderWriter final {
 public:
  explicit CoServerReaderWriter(CoServerStream* stream) : stream_(stream) {}
  CoServerRead<R> Read() { return CoServerRead<R>(stream_); }
  CoServerReadInto Read(R* message) { return CoServerReadInto(stream_, message); }
  CoServerWrite Write(const W& message) { return CoServerWrite(stream_, message); }
  void SendInitialMetadata() { stream_->SendInitialMetadata(); }

 private:
  CoServerStream* const stream_;
};

}  // namespace shmrpc

#endif  // SHMRPC_SERVER_COROUTINE_H_
