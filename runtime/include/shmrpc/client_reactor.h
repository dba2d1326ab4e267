#ifndef SHMRPC_CLIENT_REACTOR_H_
#define SHMRPC_CLIENT_REACTOR_H_

// The client's end of streaming calls in callback style: the program starts operations, and is called back when they
// are complete.
//
//   class PointPrinter final : public shmrpc::ClientReadReactor<Point> {
//    public:
//     PointPrinter(MapService::Stub& stub, const Area& area) {
//       stub.async().ListPoints(&context_, &area, this);
//       StartRead(&point_);
//       StartCall();
//     }
//     void OnReadDone(bool ok) override {
//       if (!ok) return;
//       Print(point_);
//       StartRead(&point_);
//     }
//     void OnDone(const absl::Status& status) override { delete this; }
//
//    private:
//     shmrpc::ClientContext context_;
//     Point point_;
//   };
//
// Rules:
//  - Operations may be started from any thread, before StartCall too: they begin with the call. At most one read and
//    one write at a time; what is read or written, the reply and the context live until the operation, or the call, is
//    over. The request lives until StartCall returns.
//  - A second read or write beside one that has not been answered is a mistake of the program, as is a Start of a
//    reactor that no stub's method was given. A library that was built without NDEBUG aborts and says so; any other
//    logs it, and ends the call, if there is one, with FAILED_PRECONDITION; the operation is not answered.
//  - Every operation that was started is answered by its callback: true when it was done; false when the call is over,
//    or no more messages come. The callbacks of one reactor never run concurrently.
//  - OnDone comes exactly once, as the last callback, when the server's status is there, everything started has been
//    answered and no hold is left. It may destroy the reactor, the context, the stub and the channel. As in gRPC the
//    status comes after all messages: a reactor that does not want the rest of them calls TryCancel on the context.
//  - A reactor whose operations are started elsewhere than in its own callbacks takes a hold before StartCall, so that
//    OnDone does not come before the last of them.
//  - Callbacks run on threads of the library: never inside StartCall or another Start, TryCancel or the destructor of
//    the channel, so a lock that they take may be held there. They should be short, because other calls' callbacks may
//    wait for them. An exception that leaves one ends the program.
//  - Nothing is sent without StartCall; a reactor that was never started may simply be destroyed.

#include <memory>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/channel.h"
#include "shmrpc/client_context.h"
#include "shmrpc/method_kind.h"

namespace shmrpc {

namespace internal {
class ClientReactorCall;
}  // namespace internal

// What the three kinds of reactor have in common. Users derive from those below.
class ClientReactor {
 public:
  ClientReactor();
  virtual ~ClientReactor();
  ClientReactor(const ClientReactor&) = delete;
  ClientReactor& operator=(const ClientReactor&) = delete;

  // Once, after the stub's method was given this reactor. May block while the way to the server is full.
  void StartCall();

  // OnDone waits until there have been as many RemoveHold as AddHold.
  void AddHold() { AddMultipleHolds(1); }
  void AddMultipleHolds(int holds);
  void RemoveHold();

  // The context has the server's initial metadata (ok), or the call is over and there was none. Once for every call,
  // before the first message.
  virtual void OnReadInitialMetadataDone(bool ok) {}
  virtual void OnDone(const absl::Status& status) = 0;

 protected:
  void StartReadMessage(google::protobuf::MessageLite* message);
  void StartWriteMessage(const google::protobuf::MessageLite* message, bool last);
  void StartHalfClose();

 private:
  friend class internal::ClientReactorCall;
  friend void PrepareClientReactor(const std::shared_ptr<Channel>&, const char*, MethodKind, ClientContext*,
                                   const google::protobuf::MessageLite*, google::protobuf::MessageLite*,
                                   ClientReactor*);

  // Answers to the protected operations. A kind of reactor makes public those that it has.
  virtual void OnReadDone(bool ok) {}
  virtual void OnWriteDone(bool ok) {}
  virtual void OnWritesDoneDone(bool ok) {}

  // Null, and that was said, when no method of a stub was given this reactor.
  std::shared_ptr<internal::ClientReactorCall> CallOrMisuse(const char* function);

  std::shared_ptr<internal::ClientReactorCall> call_;
};

// Binds `reactor` to a call of `method` ("/package.Service/Method", static storage), which is not unary; its StartCall
// then begins the call. `context` may be null. `request` is null if the client streams. `reply` is where the one reply
// of a client-streaming method goes, and otherwise null.
void PrepareClientReactor(const std::shared_ptr<Channel>& channel, const char* method, MethodKind kind,
                          ClientContext* context, const google::protobuf::MessageLite* request,
                          google::protobuf::MessageLite* reply, ClientReactor* reactor);

// For server-streaming methods: reads messages of type R.
template <typename R>
class ClientReadReactor : public ClientReactor {
 public:
  void StartRead(R* message) { StartReadMessage(message); }
  void OnReadDone(bool ok) override {}
};

// For client-streaming methods: writes messages of type W. The reply is complete in OnDone with the status OK.
template <typename W>
class ClientWriteReactor : public ClientReactor {
 public:
  void StartWrite(const W* message) { StartWriteMessage(message, /*last=*/false); }
  // As StartWrite and StartWritesDone, together in one go; answered by OnWriteDone alone.
  void StartWriteLast(const W* message) { StartWriteMessage(message, /*last=*/true); }
  // Tells the server that no more messages come. Once, not after StartWriteLast; may be started during a write.
  void StartWritesDone() { StartHalfClose(); }
  void OnWriteDone(bool ok) override {}
  void OnWritesDoneDone(bool ok) override {}
};

// For bidirectional-streaming methods: writes W and reads R, independently.
template <typename W, typename R>
class ClientBidiReactor : public ClientReactor {
 public:
  void StartRead(R* message) { StartReadMessage(message); }
  void StartWrite(const W* message) { StartWriteMessage(message, /*last=*/false); }
  void StartWriteLast(const W* message) { StartWriteMessage(message, /*last=*/true); }
  void StartWritesDone() { StartHalfClose(); }
  void OnReadDone(bool ok) override {}
  void OnWriteDone(bool ok) override {}
  void OnWritesDoneDone(bool ok) override {}
};

}  // namespace shmrpc

#endif  // SHMRPC_CLIENT_REACTOR_H_
