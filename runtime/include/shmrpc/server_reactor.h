#ifndef SHMRPC_SERVER_REACTOR_H_
#define SHMRPC_SERVER_REACTOR_H_

// The callback style of a server. A method returns a reactor at once; the call goes on through it:
//
//   class Counter final : public shmrpc::ServerWriteReactor<Number> {
//    public:
//     Counter() { OnWriteDone(true); }
//     void OnWriteDone(bool ok) override {
//       if (!ok || number_.value() == 100) return Finish(absl::OkStatus());
//       number_.set_value(number_.value() + 1);
//       StartWrite(&number_);
//     }
//     void OnDone() override { delete this; }
//    private:
//     Number number_;
//   };

#include <atomic>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/mutex.h"

namespace shmrpc {

namespace internal {
class ServerReactorCall;
}  // namespace internal

// What the reactors of all kinds of methods have in common; users derive from one of the classes below. A reactor is
// the user's object, serves one call, and must live until its OnDone, which may delete it.
//
// Start... and Finish may be called from any thread, also before the method has returned the reactor (in its
// constructor, say), and also with a lock held that reactions take: they never run a reaction before they return. At
// most one read, and at most one write, may be under way at a time. Each started operation is answered by its
// On...Done, once; `ok` is false when it did nothing because the call is over, or, for a read, because the client has
// half-closed. A second read or write beside one that is under way is a mistake of the program: a library that was
// built without NDEBUG aborts and says so, any other ends the call with INTERNAL and does not answer it.
//
// Reactions (the On... methods) run on threads of the library, one at a time for each call, and never before the method
// has returned the reactor. They should be short and must not wait for other reactions. One that throws finishes the
// call with UNKNOWN.
class ServerReactor {
 public:
  ServerReactor() = default;
  ServerReactor(const ServerReactor&) = delete;
  ServerReactor& operator=(const ServerReactor&) = delete;
  virtual ~ServerReactor() = default;

  // Sends the context's initial metadata now, rather than with the first message. At most once, before any write.
  void StartSendInitialMetadata();

  // Ends the call. Exactly one Finish, also after OnCancel; further ones do nothing. A write under way is sent first
  // when the status is OK, and fails otherwise; a read under way fails. Afterwards come the answers that are missing,
  // then OnDone.
  void Finish(absl::Status status);

  virtual void OnSendInitialMetadataDone(bool ok) {}

  // The client has cancelled the call or is gone, or the deadline has passed. At most once; not after Finish. Reads and
  // writes that are under way fail. The call still has to be finished.
  virtual void OnCancel() {}

  // The last reaction, exactly once, after Finish and after all answers. The request and the reply go when it returns;
  // the context has gone with Finish.
  virtual void OnDone() = 0;

 protected:
  // For messages of any type; the derived classes say of which.
  void StartReadMessage(google::protobuf::MessageLite* message);
  void StartWriteMessage(const google::protobuf::MessageLite* message);
  void StartWriteMessageAndFinish(const google::protobuf::MessageLite* message, absl::Status status);

 private:
  friend class internal::ServerReactorCall;

  // Reactors without reads or writes never see these.
  virtual void OnReadDone(bool ok) {}
  virtual void OnWriteDone(bool ok) {}

  // Begins to belong to `call`, and starts there what was asked for earlier.
  void Bind(internal::ServerReactorCall* call);

  // What was asked for before the call was known.
  struct Backlog {
    bool send_initial_metadata = false;
    google::protobuf::MessageLite* read = nullptr;
    const google::protobuf::MessageLite* write = nullptr;
    bool finish = false;
    const google::protobuf::MessageLite* last_message = nullptr;
    absl::Status status;
  };

  static void NoteFirst(const void* earlier, const char* what, Backlog* backlog);

  // The call; when it is not known yet, null, after `remember` has noted what to do.
  internal::ServerReactorCall* CallOr(absl::FunctionRef<void(Backlog*)> remember);

  // Null until the method has returned; set under mutex_, after which the backlog is empty.
  std::atomic<internal::ServerReactorCall*> call_{nullptr};
  Mutex mutex_;
  Backlog backlog_ ABSL_GUARDED_BY(mutex_);
};

// Of a unary method. See also ServerContext::DefaultReactor.
class ServerUnaryReactor : public ServerReactor {};

// Of a client-streaming method.
template <typename R>
class ServerReadReactor : public ServerReactor {
 public:
  // `message` lives until OnReadDone, which says whether it has been filled.
  void StartRead(R* message) { StartReadMessage(message); }
  void OnReadDone(bool ok) override {}
};

// Of a server-streaming method.
template <typename W>
class ServerWriteReactor : public ServerReactor {
 public:
  // `message` lives unchanged until OnWriteDone.
  void StartWrite(const W* message) { StartWriteMessage(message); }

  // A write and Finish in one; without OnWriteDone. `message` lives unchanged until OnDone.
  void StartWriteAndFinish(const W* message, absl::Status status) {
    StartWriteMessageAndFinish(message, std::move(status));
  }
  void OnWriteDone(bool ok) override {}
};

// Of a bidirectional method.
template <typename R, typename W>
class ServerBidiReactor : public ServerReactor {
 public:
  void StartRead(R* message) { StartReadMessage(message); }
  void StartWrite(const W* message) { StartWriteMessage(message); }
  void StartWriteAndFinish(const W* message, absl::Status status) {
    StartWriteMessageAndFinish(message, std::move(status));
  }
  void OnReadDone(bool ok) override {}
  void OnWriteDone(bool ok) override {}
};

// A reactor that does nothing but finish its call, and deletes itself:
//
//   return new shmrpc::FinishingReactor<shmrpc::ServerWriteReactor<Reply>>(absl::NotFoundError("no such thing"));
template <typename Reactor>
class FinishingReactor final : public Reactor {
 public:
  explicit FinishingReactor(absl::Status status) { this->Finish(std::move(status)); }
  void OnDone() override { delete this; }

 private:
  ~FinishingReactor() override = default;
};

}  // namespace shmrpc

#endif  // SHMRPC_SERVER_REACTOR_H_
