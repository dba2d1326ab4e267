#ifndef SHMRPC_TESTS_FAULT_NATIVE_WIRE_H_
#define SHMRPC_TESTS_FAULT_NATIVE_WIRE_H_

// What proto/PROTOCOL.md says of bytes, written down a second time: hellos, frames, and the Protocol Buffers messages
// in them. Nothing here comes from the library, so that a mistake there is not made here as well, and so that each rule
// can be broken. Pure functions.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace shmrpc::fault {

// Integers as they are on the wire.
std::string U32(uint32_t value);
std::string U64(uint64_t value);
// A length and so many bytes.
std::string Block(absl::string_view bytes);

// ---- Protocol Buffers.

// A message, field by field, in any order and with any content.
class Proto {
 public:
  Proto& Number(uint32_t field, uint64_t value);
  Proto& Bytes(uint32_t field, absl::string_view value);
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

struct ProtoField {
  uint32_t field = 0;
  uint64_t number = 0;
  std::string bytes;
};
// None: not a message of numbers and bytes.
std::optional<std::vector<ProtoField>> ParseProto(absl::string_view bytes);

// ---- Hellos.

inline constexpr absl::string_view kMagic = "SHMRPC1\n";
inline constexpr size_t kHelloPrefixBytes = 12;

// The fields of ClientHello and ServerHello that a peer has something to say in. As it is made it is in order.
struct Hello {
  struct Offer {
    uint64_t segment_bytes = 266240;
    uint64_t ring_bytes = 262144;
  };
  struct Window {
    uint64_t call_bytes = 65536;
    uint64_t connection_bytes = 1 << 20;
  };
  struct Rendezvous {
    std::string abstract_name;
    std::string token;
  };

  // The ends of a TCP connection: 16 bytes of address, 2 of port.
  struct Connection {
    std::string client;
    std::string server;
  };

  uint64_t version = 1;
  std::string host_id;            // this host's
  std::string cpus = "\xff\xff";  // so that both sides spin if they can
  std::string token;              // of a client, as the next
  std::optional<Connection> token_connection;
  std::optional<Offer> shm;
  std::optional<Window> window = Window();
  std::optional<uint64_t> keepalive_ms;
  std::optional<Rendezvous> rendezvous;  // this and the rest: of a server
  std::string instance_id = std::string(16, 'i');
  std::string no_shm_reason;
  std::string refused;
  bool shm_only = false;

  Hello();
  std::string EncodeAsClient() const { return Encode(ClientMessage()); }
  std::string EncodeAsServer() const { return Encode(ServerMessage()); }
  std::string ClientMessage() const;
  std::string ServerMessage() const;
  // Magic and length before any bytes.
  static std::string Encode(absl::string_view message);

  // From the message alone; none when that cannot be read.
  static std::optional<Hello> FromClient(absl::string_view message);
  static std::optional<Hello> FromServer(absl::string_view message);
};

// The UUID of version 5 for "shmrpc" in the namespace /proc/sys/kernel/random/boot_id.
std::string OwnHostId();

// ---- Frames.

enum FrameType : uint8_t {
  kMethodFrame = 1,
  kRequestFrame = 2,
  kResponseFrame = 3,
  kFragmentFrame = 4,
  kResetFrame = 5,
  kGoAwayFrame = 6,
  kHeadersFrame = 7,
  kMessageFrame = 8,
  kCreditFrame = 9,
  kAliveFrame = 10,
};

enum FrameFlag : uint8_t {
  kMore = 1,
  kDeadline = 2,
  kMetadata = 4,
  kStatus = 8,
  kNoMessage = 16,
  kOpen = 32,
  kNotProcessed = 64,
  kUnknownFlag = 128,
};

inline constexpr size_t kFrameHeader = 16;
inline constexpr size_t kLargestFrame = 65536;

struct NativeFrame {
  uint8_t type = 0;
  uint8_t flags = 0;
  uint16_t code = 0;
  uint64_t call_id = 0;
  std::string body = {};  // everything behind the header
};

// With the length that the frame has.
std::string EncodeFrame(const NativeFrame& frame);
// `bytes`: of one whole frame.
NativeFrame DecodeFrame(absl::string_view bytes);

// The block of metadata, and that of a status.
using MetadataPairs = std::vector<std::pair<std::string, std::string>>;
std::string MetadataBlock(const MetadataPairs& pairs);
std::string StatusBlock(absl::string_view message, const MetadataPairs& trailing = {});

}  // namespace shmrpc::fault

#endif  // SHMRPC_TESTS_FAULT_NATIVE_WIRE_H_
