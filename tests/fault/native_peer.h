#ifndef SHMRPC_TESTS_FAULT_NATIVE_PEER_H_
#define SHMRPC_TESTS_FAULT_NATIVE_PEER_H_

// A client and a server that speak the native protocol by hand, from proto/PROTOCOL.md and without the library: over
// TCP, and over shared memory after a rendezvous. As they stand they keep the rules, and so show that the page says
// enough; each step can be taken on its own, to break them.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "native_ring.h"
#include "native_wire.h"
#include "shmrpc/target.h"
#include "transports/framed/unique_fd.h"

namespace shmrpc::fault {

enum class Way { kShm, kTcp };
std::string WayName(Way way);

// ---- Sockets. What fails in them fails the test, but for sending: the other side may close meanwhile.

framed::UniqueFd ConnectTcpSocket(uint16_t port);
// To an abstract Unix socket, without the leading zero byte.
framed::UniqueFd ConnectAbstractSocket(absl::string_view name);
// To whatever the address names.
framed::UniqueFd ConnectSocketTo(const Target& address);

// Sends all the bytes, and the descriptors with the first of them. False when the other side has closed.
bool SendWithFds(int socket, absl::string_view bytes, const std::vector<int>& fds = {});

// What comes with the next receive call, at most `size` bytes; descriptors are appended to `fds` unless it is null.
// Empty: the other side has closed, or (`*ended` is false) nothing came for implausibly long.
std::string ReceiveSome(int socket, size_t size, std::vector<framed::UniqueFd>* fds, bool* ended);

// Whether the other side closes, whatever it sends before.
bool SocketSeesTheEnd(int socket);

// The message of the hello that comes next, and nothing behind it; none when the other side closes.
std::optional<std::string> ReceiveHelloMessage(int socket, std::vector<framed::UniqueFd>* fds);

// ---- Connections.

// Frames over a stream socket or over two rings. Not thread-safe; the memory of own() may be written by others.
class NativeConnection {
 public:
  explicit NativeConnection(framed::UniqueFd socket);
  NativeConnection(framed::UniqueFd socket, NativeSegment own, NativeSegment peer);

  // Waits for room. False when the other side has closed, or makes none for implausibly long.
  bool Send(const NativeFrame& frame) { return SendBytes(EncodeFrame(frame)); }
  // The same for a frame as bytes, whatever its length says; over a ring they are one record.
  bool SendBytes(absl::string_view frame);
  // Without waiting: false when there is no room. Over TCP a part of the frame may have gone; the rest goes with the
  // next call, before its frame.
  bool TrySendBytes(absl::string_view frame);

  // The next frame. None when the other side has closed, or nothing has come for implausibly long.
  std::optional<NativeFrame> Receive();
  // The next record of the ring, if it is there already.
  std::optional<NativeFrame> TryReceive();
  // Whether the other side has closed, as far as can be told without waiting. Over shared memory, where nothing but
  // doorbells comes by the socket.
  bool HasEnded();
  // The next frame that is neither alive nor credit, which has to be of this type and call.
  NativeFrame Expect(FrameType type, uint64_t call_id);
  // Whether the other side closes, whatever it sends before.
  bool SeesTheEnd();

  void RingDoorbell();
  void HangUp() { socket_.Reset(); }

  bool over_shm() const { return producer_ != nullptr; }
  int socket() const { return socket_.get(); }
  // Of shared memory.
  NativeSegment& own() { return own_; }
  NativeSegment& peer() { return peer_; }
  NativeProducer& producer() { return *producer_; }

 private:
  std::optional<std::string> ReceiveRecord();
  std::optional<std::string> ReceiveFromStream(size_t size);

  framed::UniqueFd socket_;
  NativeSegment own_;
  NativeSegment peer_;
  std::unique_ptr<NativeProducer> producer_;  // null: over a stream
  std::unique_ptr<NativeConsumer> consumer_;
  uint64_t rung_at_ = 0;
  std::string unsent_;
  bool ended_ = false;
};

// ---- A client.

// What a server says over TCP about its rendezvous, and the connection on which it did.
struct Invitation {
  framed::UniqueFd tcp;
  Hello hello;

  // What a client says at the rendezvous, but for an offer.
  Hello Acceptance() const;
};
// A connection over IPv4, as the client's hello names it; `client`: its socket.
Hello::Connection ConnectionOf(int client);
// Asks for one; a server that refuses fails the test.
Invitation AskForInvitation(uint16_t port);

// Exchanges hellos with a server; none when that closes instead. `fds`: what comes with the answer.
std::optional<Hello> ExchangeHellos(int socket, const Hello& hello, const std::vector<int>& fds_to_pass = {},
                                    std::vector<framed::UniqueFd>* fds = nullptr);

// Connects, as an honest client does, that way: to host:port directly or by way of the rendezvous, to a Unix socket
// with an offer of shared memory. Null, and a failure, when that does not work.
std::unique_ptr<NativeConnection> ConnectNative(Way way, const Target& address);

// ---- A server.

// Listens on 127.0.0.1, and with kShm on a rendezvous socket as well.
class NativeServer {
 public:
  explicit NativeServer(Way way);

  Way way() const { return way_; }
  std::string address() const;
  const std::string& rendezvous_name() const { return rendezvous_name_; }

  // The next client there, before any hello. Invalid, and a failure, when none comes.
  framed::UniqueFd AcceptTcp();
  framed::UniqueFd AcceptAtRendezvous();
  // Reads a client's hello and answers with this one.
  static bool AnswerHello(int socket, const Hello& answer);
  // The answer over TCP that leads to the rendezvous.
  Hello Invite() const;

  // The next client, served as it should be up to its first frame. Null, and a failure, when none comes.
  // `answer` is what the connection that the frames go over begins with, but for the offer.
  std::unique_ptr<NativeConnection> Accept(Hello answer = {});

 private:
  const Way way_;
  const std::string rendezvous_name_;
  framed::UniqueFd tcp_;
  framed::UniqueFd rendezvous_;
  uint16_t port_ = 0;
};

}  // namespace shmrpc::fault

#endif  // SHMRPC_TESTS_FAULT_NATIVE_PEER_H_
