#ifndef SHMRPC_TRANSPORT_H_
#define SHMRPC_TRANSPORT_H_

// The one plug-in interface: what a transport is to the runtime. Users of stubs and services need not read it.
//
// A transport starts calls and accepts calls that carry opaque message bytes; how they travel is its own business.
//
//   client:  Transport::Connect → Connection::StartCall → Call, which reports to CallEvents
//   server:  Transport::Listen → Listener, which hands each ServerCall to the CallHandler → ServerCallEvents
//
// Both sides send with Send and receive with Receive. Flow control is the transport's: Send takes a message or says
// kWait, and Receive asks for the next message, so that what nobody asks for stays bounded, with the sender waiting in
// the end. How much is under way for one call and for one connection is up to ListenOptions and ConnectOptions.
//
// Glossary. Peer: the process at the other end. Deliver: to call a method of CallEvents, CallHandler or
// ServerCallEvents. Over: a call is over when its status has been delivered; a connection is over when IsOver() says
// so, and never comes back. Half-close: the client's last message has been sent.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shmrpc/access.h"
#include "shmrpc/message.h"
#include "shmrpc/metadata.h"
#include "shmrpc/options.h"
#include "shmrpc/peer.h"
#include "shmrpc/steady_time.h"
#include "shmrpc/target.h"

namespace google::protobuf {
class Descriptor;
}

namespace shmrpc {

namespace internal {
class ConnectionLimiter;
}

// What a client says of one call. A plain struct, so that fields can be added.
struct CallSpec {
  std::string_view method;                             // "/package.Service/Method"
  SteadyTime deadline = SteadyTime::InfiniteFuture();  // told to the server as time left; the *runtime* enforces it
  const Metadata* metadata = nullptr;                  // initial metadata, validated; null when there is none
  size_t max_receive_message_bytes = kDefaultMaxMessageBytes;
  // What the clock said when the call began, if that was just now, so that the transport need not read it again;
  // InfinitePast when it has to.
  SteadyTime now;
  // While StartCall runs: becomes true, seq_cst, when the call is to be cancelled. Null: it is not. See StartCall.
  const std::atomic<bool>* cancelled = nullptr;

  // The client's messages follow with Call::Send; otherwise the request given to StartCall is the only one.
  bool client_streams = false;
  // Messages come one for each Call::Receive; otherwise they are delivered as they arrive, which is for calls whose
  // reply is one message.
  bool server_streams = false;
};

enum class SendResult {
  kSent,  // taken: it will be delivered unless the call fails
  kWait,  // not taken, because the peer's side is full: OnSendable will come
  kOver,  // not taken: the call is over, or about to be
};

// How a call ended, as its client learns it. A plain struct, so that fields can be added.
struct CallEnd {
  absl::Status status;
  Metadata trailing_metadata = {};
  // No handler has begun with this call, and none ever will: its request may be sent again. Only if that is certain,
  // neither OnHeaders nor OnMessage has come, and a further attempt may fare better: because nothing of the request was
  // sent, not all of it, or the server says so. With UNAVAILABLE the runtime does so by itself, on another connection.
  bool not_processed = false;
};

// What happens to one client call, in the grammar  [OnHeaders OnMessage*] OnStatus,  with OnSendable at any time before
// OnStatus. The events of one call never run concurrently with each other. After OnStatus, which comes exactly once,
// the transport uses neither this object nor, except for its memory, the Call.
class CallEvents {
 public:
  virtual ~CallEvents() = default;

  // The server's initial metadata; left out when the server sent nothing but a status.
  virtual void OnHeaders(Metadata metadata) = 0;
  virtual void OnMessage(const IncomingMessage& message) = 0;
  // Send may be tried again. Comes once for each kWait, unless the call ends first; on another thread perhaps before
  // the Send that says kWait has returned.
  virtual void OnSendable() {}
  // Comes after all messages when the server has ended the call. When it ends for another reason (Cancel, a lost
  // connection) it comes at once and messages that were not asked for yet are dropped.
  virtual void OnStatus(CallEnd end) = 0;

  // True when an event may run the user's code, which may take long, start calls, wait for calls, or destroy any
  // object. A transport delivers such events with none of its locks held, with nobody waiting for it, and never
  // from inside Send, Receive or DropMessages. Constant.
  virtual bool RunsUserCode() const = 0;

  // The type of the messages that OnMessage is for, as far as it is known: a transport that is getting a large one may
  // take it apart while it comes. Any thread, before OnStatus; with locks of the transport's held.
  virtual const google::protobuf::Descriptor* message_type() const { return nullptr; }
};

// One call of a client. Thread-safe, but for Release; of Send, HalfClose and of Receive, DropMessages one thread at a
// time each. All may be called from inside any event of the call, and are harmless between OnStatus and Release,
// because who calls them cannot know that the call ends at that moment.
class Call {
 public:
  // Sends one more message, and half-closes with it if it is the `last`. For calls with client_streams, before
  // HalfClose. May block while the way to the server is full, but not for the server's application: that is kWait.
  virtual SendResult Send(const OutgoingMessage& message, bool last) = 0;

  // Half-closes without a message.
  virtual void HalfClose() = 0;

  // Asks for the next message: one OnMessage, or OnStatus. (OnHeaders comes without being asked for.) For calls with
  // server_streams; the next one only when the previous one has been answered, which may be from inside OnMessage.
  virtual void Receive() = 0;

  // Messages that were not asked for, and those that still come, are of no interest: only the status is. Afterwards no
  // more Receive.
  virtual void DropMessages() = 0;

  // Ends the call with `status` (not OK) unless it is over or about to be, and tells the server. OnStatus is
  // delivered before this returns, or soon by another thread that was already delivering.
  virtual void Cancel(absl::Status status) = 0;

  // Blocks until `done()` holds or `deadline` passed; returns done(). The calling thread may do the connection's
  // work meanwhile: it may deliver the events of this and of other calls (of those with RunsUserCode() only when they
  // are this call's own). `done` is asked often: on this thread, or under a lock on another; it must be cheap, must
  // not block, and may only turn true through an event of this call. Several threads may wait for one call.
  virtual bool WaitUntil(absl::FunctionRef<bool()> done, SteadyTime deadline) = 0;

  // Gives the object back. Called once, during or after OnStatus, and not while another thread is inside the StartCall
  // that made it; maybe after the connection is gone.
  virtual void Release() = 0;

 protected:
  virtual ~Call() = default;
};

struct CallReleaser {
  void operator()(Call* call) const { call->Release(); }
};
using CallPtr = std::unique_ptr<Call, CallReleaser>;

// Which way a connection goes, and why not a better one. Shown to users.
struct TransportChoice {
  std::string name;    // "shm", "tcp", "unix", "inproc", "grpc"
  std::string reason;  // empty for the best way there is; else e.g. "peer on another host", or "asked for"

  // "shm", or "tcp: peer on another host".
  std::string ToString() const { return reason.empty() ? name : name + ": " + reason; }
};

// A client's connection to one server. Thread-safe. Destroying it ends calls in flight with CANCELLED; it may be
// destroyed inside an event that it delivers.
class Connection {
 public:
  virtual ~Connection() = default;

  // Starts a call and reports to `events`, which must live until OnStatus. `request` is the first message; null only
  // with client_streams. Without client_streams it is sent together with the half-close. Events may be delivered before
  // this returns. May block while the way to the server is full, until the spec's deadline.
  // `*call` is never null; it is set before the first event can be delivered. From then on the call may be cancelled,
  // and that ends the waiting: for that it is set, seq_cst, before StartCall waits for anything, and spec.cancelled is
  // looked at afterwards, for whoever wanted to cancel and found no call. Who has set that cancels the call, at the
  // latest when StartCall has returned.
  // A call that cannot be started is told so through OnStatus: UNAVAILABLE and not_processed when the connection is
  // over, RESOURCE_EXHAUSTED when the peer does not take a message this large.
  virtual void StartCall(const CallSpec& spec, const OutgoingMessage* request, CallEvents* events,
                         std::atomic<Call*>* call) = 0;

  virtual const TransportChoice& choice() const = 0;
  virtual const Peer& peer() const = 0;

  // True when no further call can succeed: the peer is gone, asked us to leave, or broke the protocol. Cheap enough to
  // ask before every call; may make a system call when the connection has been quiet for a while.
  virtual bool IsOver() = 0;

  // Why, once IsOver().
  virtual absl::Status reason_over() const = 0;
};

// How much of the messages of streams is kept for a receiver that has not asked for it. A message is counted with
// its size and kMessageOverheadBytes; the last one may go beyond the limit, so that any message fits.
struct FlowControlOptions {
  size_t stream_bytes = 256 * 1024;       // of one call and direction; at least kMinStreamBytes
  size_t connection_bytes = 4096 * 1024;  // of all calls of a connection; at least stream_bytes. Each call may always
                                          // have a quarter of stream_bytes under way, whatever the others do
  static constexpr size_t kMinStreamBytes = 16 * 1024;
  static constexpr size_t kMaxBytes = size_t{1} << 30;
  static constexpr size_t kMessageOverheadBytes = 64;
};

struct ConnectOptions {
  TransportPreference transport = TransportPreference::kAuto;
  WaitMode wait_mode = WaitMode::kAdaptive;
  FlowControlOptions flow_control;  // of what this side receives
  absl::Duration keepalive_timeout = kDefaultKeepaliveTimeout;
  AccessPolicy shared_memory_access;  // whom the server may run as
  AccessPolicy unix_socket_access;
  SteadyTime deadline = SteadyTime::InfiniteFuture();
  // A descriptor that becomes readable when the attempt shall be given up, or -1. Not owned.
  int interrupt_fd = -1;
};

// What happens to one call on the server after Start. The events of one call never run concurrently with each other.
//
// OnMessage and OnHalfClose answer Receive; none comes after OnHalfClose. OnCancelled comes at most once: the client
// has cancelled the call or is gone, Receive is not answered any more and Send says kOver; Finish is still to be
// called, and there it may come too late to be told. A call that was cancelled before Start is told so after it. OnDone
// comes exactly once, as the last event, when Finish has been called, maybe inside it: then the transport uses this
// object no more, and the ServerCall is not to be used any more either.
class ServerCallEvents {
 public:
  virtual ~ServerCallEvents() = default;
  virtual void OnMessage(const IncomingMessage& message) = 0;
  virtual void OnHalfClose() = 0;
  virtual void OnSendable() = 0;
  virtual void OnCancelled() = 0;
  virtual void OnDone() = 0;

  // As for CallEvents.
  virtual bool RunsUserCode() const = 0;
};

// What a CallHandler knows of a method beforehand. Opaque to transports.
class ResolvedMethod {
 protected:
  ~ResolvedMethod() = default;
};

// One call as the server sees it. Exactly one Finish, from any thread; without Start the object is gone with it, after
// Start with OnDone. Everything else may be called from any thread until then; Send and Receive by one thread at a time
// each. Destroying an unfinished call finishes it with INTERNAL.
class ServerCall {
 public:
  virtual std::string_view method() const = 0;
  // What CallHandler::ResolveMethod has said of it; null also when the transport has not asked.
  virtual const ResolvedMethod* resolved_method() const { return nullptr; }
  virtual SteadyTime deadline() const = 0;
  // While OnCall begins: when the call came, if the transport has looked at the clock for that just before;
  // InfinitePast otherwise.
  virtual SteadyTime arrival() const { return SteadyTime::InfinitePast(); }
  virtual const Metadata& metadata() const = 0;
  virtual const Peer& peer() const = 0;

  // True once the reply can no longer be of use: cancelled, past its deadline, or the client is gone.
  virtual bool IsCancelled() const = 0;

  // How the client has ended the call, if it has and the transport knows: DEADLINE_EXCEEDED or CANCELLED; otherwise OK.
  virtual absl::StatusCode ended_by_client() const { return absl::StatusCode::kOk; }

  // From now on what happens is told to `events`, which lives until OnDone. At most once, and before Send and Receive.
  virtual void Start(ServerCallEvents* events) = 0;

  // Asks for the next message of the client: one OnMessage, OnHalfClose or OnCancelled. The next one only when the
  // previous one has been answered, which may be from inside OnMessage. A message that OnCall has brought is not
  // delivered again: what follows it is the half-close.
  virtual void Receive() = 0;

  // Sends the initial metadata (validated) ahead of the reply; at most once, and then Reply::initial_metadata is null.
  // Send does it with none when it was not called before.
  virtual void SendHeaders(const Metadata& metadata) = 0;

  // Sends one more message. May block while the way to the client is full, a little; not for the client's application.
  virtual SendResult Send(const OutgoingMessage& message) = 0;

  // As Call::WaitUntil. For handlers that block.
  virtual bool WaitUntil(absl::FunctionRef<bool()> done, SteadyTime deadline) = 0;

  struct Reply {
    const Metadata* initial_metadata = nullptr;  // validated; null when there is none
    const OutgoingMessage* message = nullptr;    // the last one, only with the status OK; null when there is none
    absl::Status status;
    const Metadata* trailing_metadata = nullptr;  // validated; null when there is none
    // The client is to be told that no handler has begun with the call: see CallEnd. Not with OK, nor after SendHeaders
    // or Send, and then without a message and metadata.
    bool not_processed = false;
  };

  // Sends the reply and ends the call. May block while the way to the client is full, for as long as the client
  // lives. A reply that the client does not take any more is dropped silently. What the client still sends is dropped.
  virtual void Finish(const Reply& reply) = 0;

 protected:
  friend struct ServerCallDeleter;
  virtual ~ServerCall() = default;
  // The owner let go of an unfinished call.
  virtual void Abandon() = 0;
};

struct ServerCallDeleter {
  void operator()(ServerCall* call) const { call->Abandon(); }
};
// Finish through `FinishCall(std::move(call), reply)`.
using ServerCallPtr = std::unique_ptr<ServerCall, ServerCallDeleter>;

inline void FinishCall(ServerCallPtr call, const ServerCall::Reply& reply) { call.release()->Finish(reply); }

// What a server does with calls. Implemented by the runtime.
class CallHandler {
 public:
  virtual ~CallHandler() = default;

  // One call has arrived. `request`: the client's one message, which it has half-closed with, or null: the client
  // streams, or has yet to send. Runs the user's code; may block; runs on many threads at once. The message is valid
  // only until this returns.
  virtual void OnCall(ServerCallPtr call, const IncomingMessage* request) = 0;

  // For transports on which a method's path travels once and its calls follow: what is to be known of `method` for
  // each of them (ServerCall::resolved_method). Null: nothing, OnCall finds out. Lives as long as this object. From any
  // thread.
  virtual const ResolvedMethod* ResolveMethod(std::string_view method) const { return nullptr; }

  // Whether a call of `method` is of no use to the server before its one request and the half-close have come. For
  // transports that learn of a call earlier: then they need not keep a thread waiting in OnCall. From any thread.
  virtual bool NeedsRequest(std::string_view method) const { return false; }

  // The type of the messages that clients send to `method`, if that is known; see CallEvents::message_type. From any
  // thread, with locks of the transport's held.
  virtual const google::protobuf::Descriptor* request_type(std::string_view method) const { return nullptr; }
};

struct ListenOptions {
  TransportPreference transport = TransportPreference::kAuto;
  WaitMode wait_mode = WaitMode::kAdaptive;
  size_t max_receive_message_bytes = kDefaultMaxMessageBytes;
  FlowControlOptions flow_control;  // of what this side receives
  absl::Duration keepalive_timeout = kDefaultKeepaliveTimeout;
  int max_threads = 512;              // threads that run handlers, at most
  mode_t unix_socket_mode = 0600;     // of the socket file of a unix: address
  AccessPolicy shared_memory_access;  // whom clients may run as
  AccessPolicy unix_socket_access;
  ConnectionLimits limits;
  // Counts the connections of all listeners of a server together. Null: each counts its own.
  std::shared_ptr<internal::ConnectionLimiter> connection_limiter;
};

// A server's ear at one address. Thread-safe.
class Listener {
 public:
  // As Shutdown(InfinitePast()).
  virtual ~Listener() = default;

  // Where it listens, with the port that the kernel chose where 0 was asked for.
  virtual const Target& address() const = 0;

  // Takes no further connections or calls (clients are told to go elsewhere), waits until the accepted calls have
  // finished or `deadline` passed, then cancels what is left, closes all connections and waits for handlers that are
  // still running, and for the OnDone of calls that have events. A call that came too late ends with not_processed at
  // its client, whenever it was sent; so does one that the listener has not looked at when it closes. Idempotent. Must
  // not be called from a handler.
  virtual void Shutdown(SteadyTime deadline) = 0;
};

// A way to carry calls. Thread-safe. One object serves any number of channels and servers, and outlives them.
class Transport {
 public:
  virtual ~Transport() = default;

  // The name that errors call it by.
  virtual std::string_view name() const = 0;

  // Whether this transport is the one for `target`.
  virtual bool Handles(const Target& target) const = 0;

  // Blocks until there is a connection, the deadline passed (DEADLINE_EXCEEDED), the interrupt came (CANCELLED), or
  // it is certain that there will be none (UNAVAILABLE, or INVALID_ARGUMENT for a target that can never work).
  virtual absl::StatusOr<std::unique_ptr<Connection>> Connect(const Target& target, const ConnectOptions& options) = 0;

  // Starts to listen. `handler` outlives the listener.
  virtual absl::StatusOr<std::unique_ptr<Listener>> Listen(const Target& target, const ListenOptions& options,
                                                           CallHandler* handler) = 0;
};

using TransportSet = std::vector<std::shared_ptr<Transport>>;

// What comes with the main library: inproc:, and for everything else shared memory, TCP or a Unix socket as fits.
// Defined beside the transports, not in the runtime: a program that passes its own set links only that.
const TransportSet& DefaultTransports();

}  // namespace shmrpc

#endif  // SHMRPC_TRANSPORT_H_
