#ifndef SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSION_H_
#define SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSION_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "shmrpc/mutex.h"
#include "shmrpc/transport.h"
#include "transports/framed/session.h"

namespace shmrpc::framed {

class FramedServerCall;

// The server's end of a framed connection: takes requests off the link and sends replies.
//
// A thread of the poller that finds a request copies it out, gives right_ back, and runs the handler right there; other
// threads can take the next request meanwhile. Replies are sent by the handler's thread.
//
// Locks: calls_mutex_ is taken with neither the sender's mutex nor right_ wanted afterwards. Handlers run with nothing
// held.
class ServerSession final : public Session {
 public:
  // What a listener does with its sessions.
  struct Options {
    CallHandler* handler = nullptr;  // outlives the session
    size_t max_receive_message_bytes = kDefaultMaxMessageBytes;
    Peer peer;
    // Called once when the connection is over, without locks; calls may still be running.
    std::function<void(ServerSession*)> on_over;
    // Called each time the last call in progress has ended while draining.
    std::function<void()> on_drained;
  };

  ServerSession(std::unique_ptr<Link> link, Poller* poller, SpinPolicy spin_policy, Options options);
  ~ServerSession() override;

  absl::Status Start();

  // Tells the client to begin no more calls; those that still come get UNAVAILABLE.
  void BeginDrain();
  // No call is in progress and no reply is waiting to be sent.
  bool IsDrained() const;

  // Hangs up; calls in progress see themselves cancelled and their replies go nowhere.
  void Close();

  Outcome Poll(bool scanning, Task** task) override;
  bool Park() override;

 private:
  friend class FramedServerCall;

  struct Method {
    std::string path;
  };

  absl::Status HandleFrame(ChunkPtr& chunk, FramedServerCall** call);
  absl::Status HandleMethod(const FrameHeader& header, const Chunk& chunk);
  absl::Status HandleRequest(const FrameHeader& header, ChunkPtr& chunk, FramedServerCall** call);
  absl::Status HandleReset(const FrameHeader& header);
  // A call whose request is whole is registered here; null when it was refused.
  absl::Status BeginCall(std::unique_ptr<FramedServerCall> begun, FramedServerCall** call);
  void Refuse(uint64_t call_id, const absl::Status& status);
  void SendReply(uint64_t call_id, const ServerCall::Reply& reply, absl::FunctionRef<bool()> stop);
  void EndCall(FramedServerCall* call);
  void Fail(const absl::Status& status);
  bool WaitForRoom(absl::Time deadline) override;

  const Options options_;
  std::atomic<bool> draining_{false};  // set with calls_mutex_
  std::atomic<bool> over_{false};

  // With right_: what the client has told of itself.
  std::vector<std::unique_ptr<const Method>> methods_;
  size_t method_bytes_ = 0;
  std::unique_ptr<FramedServerCall> assembling_;  // its request is in assembly_

  mutable Mutex calls_mutex_;
  absl::flat_hash_map<uint64_t, FramedServerCall*> calls_ ABSL_GUARDED_BY(calls_mutex_);
  std::vector<std::unique_ptr<FramedServerCall>> unused_calls_ ABSL_GUARDED_BY(calls_mutex_);
};

// One call in progress; its memory is reused.
class FramedServerCall final : public ServerCall, public Task {
 public:
  ~FramedServerCall() override = default;

  absl::string_view method() const override { return method_path; }
  absl::Time deadline() const override { return deadline_; }
  const Metadata& metadata() const override { return client_metadata; }
  const Peer& peer() const override;
  bool IsCancelled() const override;
  void Finish(const Reply& reply) override;

  // Hands the call to the handler.
  void Run() override;

  std::shared_ptr<ServerSession> session;
  uint64_t id = 0;
  absl::string_view method_path;
  absl::Time deadline_ = absl::InfiniteFuture();
  Metadata client_metadata;
  std::atomic<bool> cancelled{false};
  Pieces pieces;  // of the request
  Chunks chunks;  // own what pieces point to

 private:
  void Abandon() override;
};

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_SERVER_SESSION_H_
