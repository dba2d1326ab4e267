#ifndef SHMRPC_METHOD_KIND_H_
#define SHMRPC_METHOD_KIND_H_

namespace shmrpc {

// Which side of a method streams.
enum class MethodKind {
  kUnary,            // one request, one reply
  kServerStreaming,  // one request, any number of replies
  kClientStreaming,  // any number of requests, one reply
  kBidiStreaming,    // any number of each, in any order
};

constexpr bool ClientStreams(MethodKind kind) {
  return kind == MethodKind::kClientStreaming || kind == MethodKind::kBidiStreaming;
}

constexpr bool ServerStreams(MethodKind kind) {
  return kind == MethodKind::kServerStreaming || kind == MethodKind::kBidiStreaming;
}

}  // namespace shmrpc

#endif  // SHMRPC_METHOD_KIND_H_
