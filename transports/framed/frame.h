#ifndef SHMRPC_TRANSPORTS_FRAMED_FRAME_H_
#define SHMRPC_TRANSPORTS_FRAMED_FRAME_H_

// The frames of the native protocol, as proto/PROTOCOL.md specifies them: their headers and control parts, to and from
// bytes. Pure functions on private memory.

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shmrpc/metadata.h"
#include "shmrpc/steady_time.h"
#include "transports/framed/flow_control.h"
#include "transports/framed/link.h"

namespace shmrpc::framed {

static_assert(std::endian::native == std::endian::little,
              "frames are little-endian; other hosts need conversions here");

enum class FrameType : uint8_t {
  kMethod = 1,    // client: `code` is from now on the number of the method whose path is the body
  kRequest = 2,   // client: a call, with its message or the beginning of it
  kResponse = 3,  // server: the end of a call, with its message or the beginning of it
  kFragment = 4,  // both: the next piece of the message that was begun
  kReset = 5,     // client: the call is cancelled. Both: the message that was begun for this call will not be finished
  kGoAway = 6,    // server: begin no more calls on this connection
  kHeaders = 7,   // server: the call's initial metadata, ahead of the response
  kMessage = 8,   // both: one more message of the call, or the beginning of it
  kCredit = 9,    // both: so much of the peer's messages has been read; see flow_control.h
  kAlive = 10,    // both: nothing but that the sender is alive; see keepalive.h
};

// Flags of a frame. Those that a type does not use are zero.
inline constexpr uint8_t kFlagMore = 1;        // request, response, message, fragment: goes on in a fragment. All but
                                               // a fragment then begin with the message's size, 4 bytes
inline constexpr uint8_t kFlagDeadline = 2;    // request: time left, 8 bytes, nanoseconds
inline constexpr uint8_t kFlagMetadata = 4;    // request, response, headers: a MetadataBlock
inline constexpr uint8_t kFlagStatus = 8;      // response: a StatusBlock
inline constexpr uint8_t kFlagNoMessage = 16;  // request, response, message: there is none, as opposed to 0 bytes
inline constexpr uint8_t kFlagOpen = 32;       // request: more messages follow. message, from a client: the same.
                                               // Without it the client has half-closed
// response: no handler has begun with this call, nor will one. go-away: the same is true of all calls without response
inline constexpr uint8_t kFlagNotProcessed = 64;

struct FrameHeader {
  uint32_t length = 0;  // of the whole frame
  FrameType type = {};
  uint8_t flags = 0;
  uint16_t code = 0;     // method, request: the method's number. response, reset: the status code
  uint64_t call_id = 0;  // chosen by the client, never twice on one connection; 0 where there is no call
};
static_assert(sizeof(FrameHeader) == kFrameHeaderBytes);

// Loads the header of a frame in private memory.
inline FrameHeader LoadFrameHeader(const uint8_t* frame) {
  FrameHeader header;
  std::memcpy(&header, frame, sizeof header);
  return header;
}

// Stores all of the header but the length word, which Link::Commit writes.
inline void StoreFrameHeader(uint8_t* frame, const FrameHeader& header) {
  std::memcpy(frame + sizeof(uint32_t), reinterpret_cast<const uint8_t*>(&header) + sizeof(uint32_t),
              sizeof header - sizeof(uint32_t));
}

// Whether a frame of a call may come while a message of the same call and direction is in pieces. A response without
// message may: the call was refused, or the server shuts down, and the message is given up.
inline bool MayStandBetweenPieces(const FrameHeader& header) {
  switch (header.type) {
    case FrameType::kRequest:
    case FrameType::kHeaders:
    case FrameType::kMessage:
      return false;
    case FrameType::kResponse:
      return (header.flags & kFlagNoMessage) != 0;
    default:
      return true;
  }
}

// What a client may announce on one connection: that many methods, paths of that length, and that much of both
// together, where each method counts its path's bytes and kMethodOverheadBytes.
inline constexpr size_t kMaxMethods = 65536;
inline constexpr size_t kMaxMethodBytes = 4096;
inline constexpr size_t kMethodOverheadBytes = 32;
inline constexpr size_t kMaxMethodTableBytes = size_t{1} << 20;

// What stands between a frame's header and its message bytes at most; more is a violation. Of a message in pieces the
// size comes first, which the sender of the frames adds to what is encoded here.
inline constexpr size_t kMaxControlBytes = 48 * 1024;
inline constexpr size_t kMaxEncodedControlBytes = kMaxControlBytes - sizeof(uint32_t);

// A MetadataBlock at most. Whatever keeps the rules of Metadata is shorter, because its encoding adds less to an entry
// than the 32 bytes that are counted for it; so a longer block is refused without a look.
inline constexpr size_t kMaxMetadataBlockBytes = 10 * 1024;

// A status at most: its message; the number of its payloads, and their encoded bytes in all. Both sides cut what is
// beyond, and say so at the end of the message, for which there is room besides.
inline constexpr size_t kMaxStatusMessageBytes = 16 * 1024;
inline constexpr size_t kMaxStatusPayloads = 64;
inline constexpr size_t kMaxStatusPayloadBytes = 12 * 1024;

// The control part of a request: `deadline` InfiniteFuture and metadata null or empty where there is none. Sets the
// flags for what is there. `out` is overwritten. Metadata that is valid (Metadata::Validate) fits; of other metadata
// the sender finds out.
// `now`: what the clock says, or InfinitePast when it is to be read here.
void EncodeRequestControl(SteadyTime deadline, const Metadata* metadata, uint8_t* flags, std::string* out,
                          SteadyTime now = SteadyTime::InfinitePast());

// The control part of a response, which always fits. A status message or payloads beyond the limits are cut or left
// out, and so are, in that order, payloads, trailing and initial metadata that do not fit together; the message then
// says so. Without its metadata a status is INTERNAL if it was OK. Sets flags and code.
void EncodeResponseControl(const Metadata* initial_metadata, const absl::Status& status,
                           const Metadata* trailing_metadata, uint8_t* flags, uint16_t* code, std::string* out);

struct RequestControl {
  SteadyTime deadline = SteadyTime::InfiniteFuture();
  SteadyTime arrival;  // when the deadline was computed, if there is one
  Metadata metadata;
  size_t message_offset = 0;  // in the frame
  size_t message_bytes = 0;   // of the whole message, over all fragments
};
// The metadata may have kPreviousAttempts, with a number: then that comes last.
// INTERNAL when `frame` is not one that the protocol allows, which ends the connection; INVALID_ARGUMENT when only the
// metadata in it breaks the rules, which ends the call; everything else is then there.
absl::Status DecodeRequestControl(std::string_view frame, const FrameHeader& header, RequestControl* out);

// Whether a go-away is the last frame of the connection: no call is without response that a handler has begun with.
absl::Status DecodeGoAway(const FrameHeader& header, bool* last);

// The body of a headers frame, for valid metadata; sets the flags.
void EncodeHeaders(const Metadata& metadata, uint8_t* flags, std::string* out);
absl::Status DecodeHeaders(std::string_view frame, const FrameHeader& header, Metadata* out);

// Where the message of a message frame begins, and how long it is over all fragments. `from_client`: the flags differ.
struct MessageControl {
  size_t message_offset = 0;
  size_t message_bytes = 0;
};
absl::Status DecodeMessageControl(std::string_view frame, const FrameHeader& header, bool from_client,
                                  MessageControl* out);

// A credit for nothing is not one that the protocol allows: it would cost the receiver something all the same.
inline constexpr size_t kCreditBytes = 8;
void EncodeCredit(const Credit& credit, char* out);
absl::Status DecodeCredit(std::string_view frame, const FrameHeader& header, Credit* out);

struct ResponseControl {
  Metadata initial_metadata;
  absl::Status status;
  Metadata trailing_metadata;
  bool not_processed = false;
  size_t message_offset = 0;
  size_t message_bytes = 0;
};
// A response that says both that it is the result of a call and that the call was not processed is not one that the
// protocol allows.
absl::Status DecodeResponseControl(std::string_view frame, const FrameHeader& header, ResponseControl* out);

}  // namespace shmrpc::framed

#endif  // SHMRPC_TRANSPORTS_FRAMED_FRAME_H_
