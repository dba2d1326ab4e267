#ifndef SHMRPC_CLIENT_STREAM_H_
#define SHMRPC_CLIENT_STREAM_H_

// The client's end of streaming calls, for callers that wait:
//
//   shmrpc::ClientContext context;
//   std::unique_ptr<shmrpc::ClientReader<Point>> reader = stub.ListPoints(&context, area);
//   Point point;
//   while (reader->Read(&point)) Draw(point);
//   absl::Status status = reader->Finish();
//
// Rules of all three classes:
//  - Read gives the server's next message, and false when no more will come; Write gives false when the call is over.
//    Finish then tells why. A message that cannot be sent (it is too large, or lacks required fields) or received (it
//    does not parse) ends the call with a status that says so.
//  - Write returns when the message is on its way; it waits while the server does not read what was sent before.
//  - One thread may read while another writes. Everything else is for one thread at a time, and Finish comes last.
//  - The context outlives the stream, or its Finish. Its deadline and its TryCancel end the call, and so whatever
//    thread waits here.
//  - Destroying a stream that is not finished cancels the call. The stream keeps its channel alive.

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/method_kind.h"

namespace shmrpc {

// The stream of one call, whatever its messages are; see above. Which of the methods make sense depends on the kind of
// the method: the typed classes below have only those.
class ClientStream {
 public:
  virtual ~ClientStream() = default;
  ClientStream(const ClientStream&) = delete;
  ClientStream& operator=(const ClientStream&) = delete;

  virtual bool Read(google::protobuf::MessageLite* message) = 0;
  // Half-closes with the message if it is the `last`. False also after a half-close.
  virtual bool Write(const google::protobuf::MessageLite& message, bool last) = 0;
  // Half-closes. False when the call is over.
  virtual bool WritesDone() = 0;
  // Waits until the server has sent its initial metadata or the call is over.
  virtual void WaitForInitialMetadata() = 0;
  // Half-closes unless that has been done, drops messages that were not read, waits for the end of the call and returns
  // its status. Afterwards Read and Write return false.
  virtual absl::Status Finish() = 0;

 protected:
  ClientStream() = default;
};

// Starts a call of `method` ("/package.Service/Method", static storage), which is not unary. Waits for a connection.
// Never null: the stream of a call that could not be started is over. `context` may be null. `request` is null if the
// client streams. `reply` is where the one reply of a client-streaming method goes, complete when Finish returns OK,
// and otherwise null.
std::unique_ptr<ClientStream> StartClientStream(const std::shared_ptr<Channel>& channel, const char* method,
                                                MethodKind kind, ClientContext* context,
                                                const google::protobuf::MessageLite* request,
                                                google::protobuf::MessageLite* reply);

// What a server-streaming method returns: the server's messages of type R.
template <typename R>
class ClientReader final {
 public:
  explicit ClientReader(std::unique_ptr<ClientStream> stream) : stream_(std::move(stream)) {}

  // Waits until the context's server metadata is there. Read implies it.
  void WaitForInitialMetadata() { stream_->WaitForInitialMetadata(); }
  bool Read(R* message) { return stream_->Read(message); }
  // Messages that were not read are dropped: waits for the server to end the call.
  absl::Status Finish() { return stream_->Finish(); }

 private:
  const std::unique_ptr<ClientStream> stream_;
};

// What a client-streaming method returns: where the client's messages of type W go.
template <typename W>
class ClientWriter final {
 public:
  explicit ClientWriter(std::unique_ptr<ClientStream> stream) : stream_(std::move(stream)) {}

  void WaitForInitialMetadata() { stream_->WaitForInitialMetadata(); }
  bool Write(const W& message) { return stream_->Write(message, /*last=*/false); }
  // As Write and WritesDone, together in one go.
  bool WriteLast(const W& message) { return stream_->Write(message, /*last=*/true); }
  // Tells the server that no more messages come.
  bool WritesDone() { return stream_->WritesDone(); }
  // WritesDone, if need be; then waits for the reply. It is complete if the status is OK and unspecified otherwise.
  absl::Status Finish() { return stream_->Finish(); }

 private:
  const std::unique_ptr<ClientStream> stream_;
};

// What a bidirectional-streaming method returns: the client writes W and reads R, in any order.
template <typename W, typename R>
class ClientReaderWriter final {
 public:
  explicit ClientReaderWriter(std::unique_ptr<ClientStream> stream) : stream_(std::move(stream)) {}

  void WaitForInitialMetadata() { stream_->WaitForInitialMetadata(); }
  bool Read(R* message) { return stream_->Read(message); }
  bool Write(const W& message) { return stream_->Write(message, /*last=*/false); }
  bool WriteLast(const W& message) { return stream_->Write(message, /*last=*/true); }
  bool WritesDone() { return stream_->WritesDone(); }
  // WritesDone, if need be; messages that were not read are dropped: waits for the server to end the call.
  absl::Status Finish() { return stream_->Finish(); }

 private:
  const std::unique_ptr<ClientStream> stream_;
};

}  // namespace shmrpc

#endif  // SHMRPC_CLIENT_STREAM_H_
