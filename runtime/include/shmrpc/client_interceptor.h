#ifndef SHMRPC_CLIENT_INTERCEPTOR_H_
#define SHMRPC_CLIENT_INTERCEPTOR_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "shmrpc/metadata.h"
#include "shmrpc/method_kind.h"
#include "shmrpc/steady_time.h"

namespace shmrpc {

// A call that is about to begin, as an interceptor of the channel sees it. It belongs to the call, and outlives the
// functions that it is given, so that they may ask it what it is about; to change something or to add functions is for
// the interceptor itself.
//
// The functions run on threads of the caller or, for calls that nobody waits for, of the library. OnSend's and
// OnReceive's may run at the same time, if the call streams both ways; a message that is being written while the call
// ends may be seen after the end. They have to be short, must not throw, and must not destroy the channel. They are
// destroyed some time after the call's end: let them own what they use.
class InterceptedClientCall {
 public:
  InterceptedClientCall(const InterceptedClientCall&) = delete;
  InterceptedClientCall& operator=(const InterceptedClientCall&) = delete;

  // "/package.Service/Method".
  std::string_view method() const { return method_; }
  MethodKind kind() const { return kind_; }
  // As ClientContext::deadline.
  absl::Time deadline() const { return deadline_.ToSystem(); }

  // What the server will see: at first what the caller has put into the ClientContext, which does not change.
  Metadata& metadata() { return metadata_; }

  // Answers the call in the server's place: nothing is sent to that. `reply` is what the caller gets. Of a method whose
  // replies stream there may be several, or, with AnswerWithoutReply, none; the caller reads them as if they came from a
  // server. What the interceptor returns is the call's status: OK, or an error that comes after the replies of a stream.
  // The messages of a client that streams are taken, shown to the functions of OnSend, and thrown away.
  void Reply(const google::protobuf::MessageLite& reply);
  void AnswerWithoutReply();

  // `function` is called with each message, before it is sent or before the caller sees it. A message that cannot be
  // sent (it is too large, the call is over) may be left out.
  void OnSend(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function);
  void OnReceive(absl::AnyInvocable<void(const google::protobuf::MessageLite&)> function);

  // The same for functions that change messages. TransformSend's gets a copy of what the caller sends, which goes on in
  // its place, to the next interceptor and then to the server; TransformReceive's gets the caller's own message.
  // Functions run in the order in which an interceptor has added them. The limits of size hold for what is sent.
  void TransformSend(absl::AnyInvocable<void(google::protobuf::MessageLite*)> function);
  void TransformReceive(absl::AnyInvocable<void(google::protobuf::MessageLite*)> function);

  // With the server's initial metadata, before any message is received; not if the server has sent a status only.
  void OnInitialMetadata(absl::AnyInvocable<void(const Metadata&)> function);

  // Exactly once, before the caller learns it: the call has ended with `*status`, which may be replaced, and with the
  // server's trailing metadata. Of a stream that its user waits for this comes with Finish, or when the stream is
  // destroyed. Also when nothing could be sent.
  void OnEnd(absl::AnyInvocable<void(absl::Status* status, const Metadata& trailing_metadata)> function);

 protected:
  // `reply` is null if the replies stream.
  InterceptedClientCall(std::string_view method, MethodKind kind, SteadyTime deadline, const Metadata* metadata,
                        google::protobuf::MessageLite* reply);
  ~InterceptedClientCall() = default;

  const std::string_view method_;
  const MethodKind kind_;
  const SteadyTime deadline_;
  Metadata metadata_;

  google::protobuf::MessageLite* const reply_;
  bool answered_ = false;
  std::vector<std::string> replies_;  // encoded
  absl::Status reply_error_;

  // One of the two is set.
  struct MessageFunction {
    absl::AnyInvocable<void(const google::protobuf::MessageLite&)> see;
    absl::AnyInvocable<void(google::protobuf::MessageLite*)> transform;
  };
  std::vector<MessageFunction> on_send_;
  std::vector<MessageFunction> on_receive_;
  std::vector<absl::AnyInvocable<void(const Metadata&)>> on_initial_metadata_;
  std::vector<absl::AnyInvocable<void(absl::Status*, const Metadata&)>> on_end_;
};

// What a channel does with each of its calls before it begins, whatever the kind of the method and the style of the
// caller: one function, which may read and change the metadata, ask to be told what happens to the call, and answer it.
//
//   options.interceptors.push_back([token](shmrpc::InterceptedClientCall* call) {
//     call->metadata().Add("authorization", "Bearer " + token);
//     call->OnEnd([method = std::string(call->method())](absl::Status* status, const shmrpc::Metadata&) {
//       LOG(INFO) << method << ": " << *status;
//     });
//     return absl::OkStatus();
//   });
//
// OK: the call goes on, to the next interceptor and then to the server. Any other status: it ends with that and nothing
// is sent. The first interceptor of a channel is the nearest to the caller: it comes first when something goes out, and
// last when something comes in. When one answers the call, the later ones do not see it.
//
// Called on the thread that starts the call, by many threads at the same time. It must not throw. Calls whose context
// has been used before, or was cancelled before, are not seen.
using ClientInterceptor = std::function<absl::Status(InterceptedClientCall* call)>;

}  // namespace shmrpc

#endif  // SHMRPC_CLIENT_INTERCEPTOR_H_
