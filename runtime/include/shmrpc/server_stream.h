#ifndef SHMRPC_SERVER_STREAM_H_
#define SHMRPC_SERVER_STREAM_H_

// The streams of synchronous handlers: they block until there is a message, or room for one.

#include "google/protobuf/message_lite.h"

namespace shmrpc {

// The stream of one call, whatever its messages are. It belongs to the call, and ends with the handler; the typed
// classes below are views of it.
//
// Read and Write may run on two threads at the same time; each by one thread at a time. A message that cannot be
// accepted (it does not parse, is too large, lacks required fields) makes Read or Write return false and the call fail,
// with a status that says so, whatever the handler returns then.
class ServerStream {
 public:
  // Waits for the client's next message. False when there are no more: the client has half-closed, or the call is
  // cancelled or past its deadline (ServerContext::IsCancelled tells). `message` is then unspecified.
  virtual bool Read(google::protobuf::MessageLite* message) = 0;

  // Sends a message; waits while the client has not read enough of the earlier ones. False when the call is over:
  // cancelled or past its deadline; the handler should then return.
  virtual bool Write(const google::protobuf::MessageLite& message) = 0;

  // Sends the context's initial metadata now, rather than with the first message. At most once, before any Write.
  virtual void SendInitialMetadata() = 0;

 protected:
  virtual ~ServerStream() = default;
};

// What a server-streaming handler writes its replies to.
template <typename W>
class ServerWriter final {
 public:
  explicit ServerWriter(ServerStream* stream) : stream_(stream) {}
  bool Write(const W& message) { return stream_->Write(message); }
  void SendInitialMetadata() { stream_->SendInitialMetadata(); }

 private:
  ServerStream* const stream_;
};

// What a client-streaming handler reads its requests from.
template <typename R>
class ServerReader final {
 public:
  explicit ServerReader(ServerStream* stream) : stream_(stream) {}
  bool Read(R* message) { return stream_->Read(message); }
  void SendInitialMetadata() { stream_->SendInitialMetadata(); }

 private:
  ServerStream* const stream_;
};

// Both, for a bidirectional one.
template <typename W, typename R>
class ServerReaderWriter final {
 public:
  explicit ServerReaderWriter(ServerStream* stream) : stream_(stream) {}
  bool Read(R* message) { return stream_->Read(message); }
  bool Write(const W& message) { return stream_->Write(message); }
  void SendInitialMetadata() { stream_->SendInitialMetadata(); }

 private:
  ServerStream* const stream_;
};

}  // namespace shmrpc

#endif  // SHMRPC_SERVER_STREAM_H_
