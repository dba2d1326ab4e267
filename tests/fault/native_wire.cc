#include "native_wire.h"

#include <uuid/uuid.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace shmrpc::fault {
namespace {

std::string LittleEndian(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

uint64_t FromLittleEndian(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i > 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[i - 1]);
  return value;
}

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}

bool TakeVarint(absl::string_view* rest, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64 && !rest->empty(); shift += 7) {
    const uint8_t byte = static_cast<uint8_t>(rest->front());
    rest->remove_prefix(1);
    *value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

constexpr uint32_t kVarintType = 0;
constexpr uint32_t kBytesType = 2;

std::string OfferMessage(const Hello::Offer& offer) {
  return Proto().Number(1, offer.segment_bytes).Number(2, offer.ring_bytes).bytes();
}

std::string WindowMessage(const Hello::Window& window) {
  return Proto().Number(1, window.call_bytes).Number(2, window.connection_bytes).bytes();
}

// The two numbers of an Offer or a Window.
bool ReadNumbers(absl::string_view message, uint64_t* first, uint64_t* second) {
  const auto fields = ParseProto(message);
  if (!fields.has_value()) return false;
  *first = *second = 0;
  for (const ProtoField& field : *fields) {
    if (field.field == 1) *first = field.number;
    if (field.field == 2) *second = field.number;
  }
  return true;
}

bool ReadOffer(const ProtoField& field, Hello* hello) {
  hello->shm.emplace();
  return ReadNumbers(field.bytes, &hello->shm->segment_bytes, &hello->shm->ring_bytes);
}

bool ReadWindow(const ProtoField& field, Hello* hello) {
  hello->window.emplace();
  return ReadNumbers(field.bytes, &hello->window->call_bytes, &hello->window->connection_bytes);
}

bool ReadRendezvous(const ProtoField& field, Hello* hello) {
  const auto fields = ParseProto(field.bytes);
  if (!fields.has_value()) return false;
  hello->rendezvous.emplace();
  for (const ProtoField& inner : *fields) {
    if (inner.field == 1) hello->rendezvous->abstract_name = inner.bytes;
    if (inner.field == 2) hello->rendezvous->token = inner.bytes;
  }
  return true;
}

bool ReadConnection(const ProtoField& field, Hello* hello) {
  const auto fields = ParseProto(field.bytes);
  if (!fields.has_value()) return false;
  hello->token_connection.emplace();
  for (const ProtoField& inner : *fields) {
    if (inner.field == 1) hello->token_connection->client = inner.bytes;
    if (inner.field == 2) hello->token_connection->server = inner.bytes;
  }
  return true;
}

// A hello in which nothing was said.
Hello Silence() {
  Hello hello;
  hello.version = 0;
  hello.host_id.clear();
  hello.cpus.clear();
  hello.instance_id.clear();
  hello.window.reset();
  return hello;
}

}  // namespace

std::string U32(uint32_t value) { return LittleEndian(value, 4); }
std::string U64(uint64_t value) { return LittleEndian(value, 8); }
std::string Block(absl::string_view bytes) { return absl::StrCat(U32(static_cast<uint32_t>(bytes.size())), bytes); }

Proto& Proto::Number(uint32_t field, uint64_t value) {
  absl::StrAppend(&bytes_, Varint(uint64_t{field} << 3 | kVarintType), Varint(value));
  return *this;
}

Proto& Proto::Bytes(uint32_t field, absl::string_view value) {
  absl::StrAppend(&bytes_, Varint(uint64_t{field} << 3 | kBytesType), Varint(value.size()), value);
  return *this;
}

std::optional<std::vector<ProtoField>> ParseProto(absl::string_view bytes) {
  std::vector<ProtoField> fields;
  while (!bytes.empty()) {
    uint64_t tag;
    ProtoField field;
    if (!TakeVarint(&bytes, &tag) || !TakeVarint(&bytes, &field.number)) return std::nullopt;
    field.field = static_cast<uint32_t>(tag >> 3);
    if ((tag & 7) == kBytesType) {
      if (field.number > bytes.size()) return std::nullopt;
      field.bytes = std::string(bytes.substr(0, field.number));
      bytes.remove_prefix(field.number);
    } else if ((tag & 7) != kVarintType) {
      return std::nullopt;
    }
    fields.push_back(std::move(field));
  }
  return fields;
}

std::string OwnHostId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string line;
  std::getline(file, line);
  uuid_t boot_id;
  uuid_t id;
  if (uuid_parse(line.c_str(), boot_id) != 0) return std::string();
  uuid_generate_sha1(id, boot_id, "shmrpc", 6);
  char text[UUID_STR_LEN];
  uuid_unparse_lower(id, text);
  return text;
}

Hello::Hello() : host_id(OwnHostId()) {}

std::string Hello::ClientMessage() const {
  Proto message;
  message.Number(1, version).Bytes(2, host_id).Bytes(3, cpus);
  if (!token.empty()) message.Bytes(4, token);
  if (shm.has_value()) message.Bytes(5, OfferMessage(*shm));
  if (window.has_value()) message.Bytes(6, WindowMessage(*window));
  if (keepalive_ms.has_value()) message.Number(7, *keepalive_ms);
  if (token_connection.has_value()) {
    message.Bytes(8, Proto().Bytes(1, token_connection->client).Bytes(2, token_connection->server).bytes());
  }
  return message.bytes();
}

std::string Hello::ServerMessage() const {
  Proto message;
  message.Number(1, version).Bytes(2, host_id).Bytes(3, cpus).Bytes(4, instance_id);
  if (rendezvous.has_value()) {
    message.Bytes(6, Proto().Bytes(1, rendezvous->abstract_name).Bytes(2, rendezvous->token).bytes());
  }
  if (shm.has_value()) message.Bytes(7, OfferMessage(*shm));
  if (!no_shm_reason.empty()) message.Bytes(8, no_shm_reason);
  if (!refused.empty()) message.Bytes(9, refused);
  if (window.has_value()) message.Bytes(10, WindowMessage(*window));
  if (keepalive_ms.has_value()) message.Number(11, *keepalive_ms);
  if (shm_only) message.Number(12, 1);
  return message.bytes();
}

std::string Hello::Encode(absl::string_view message) { return absl::StrCat(kMagic, Block(message)); }

std::optional<Hello> Hello::FromClient(absl::string_view message) {
  const auto fields = ParseProto(message);
  if (!fields.has_value()) return std::nullopt;
  Hello hello = Silence();
  for (const ProtoField& field : *fields) {
    if (field.field == 1) hello.version = field.number;
    if (field.field == 2) hello.host_id = field.bytes;
    if (field.field == 3) hello.cpus = field.bytes;
    if (field.field == 4) hello.token = field.bytes;
    if (field.field == 5 && !ReadOffer(field, &hello)) return std::nullopt;
    if (field.field == 6 && !ReadWindow(field, &hello)) return std::nullopt;
    if (field.field == 7) hello.keepalive_ms = field.number;
    if (field.field == 8 && !ReadConnection(field, &hello)) return std::nullopt;
  }
  return hello;
}

std::optional<Hello> Hello::FromServer(absl::string_view message) {
  const auto fields = ParseProto(message);
  if (!fields.has_value()) return std::nullopt;
  Hello hello = Silence();
  for (const ProtoField& field : *fields) {
    if (field.field == 1) hello.version = field.number;
    if (field.field == 2) hello.host_id = field.bytes;
    if (field.field == 3) hello.cpus = field.bytes;
    if (field.field == 6 && !ReadRendezvous(field, &hello)) return std::nullopt;
    if (field.field == 7 && !ReadOffer(field, &hello)) return std::nullopt;
    if (field.field == 8) hello.no_shm_reason = field.bytes;
    if (field.field == 9) hello.refused = field.bytes;
    if (field.field == 10 && !ReadWindow(field, &hello)) return std::nullopt;
    if (field.field == 11) hello.keepalive_ms = field.number;
    if (field.field == 4) hello.instance_id = field.bytes;
    if (field.field == 12) hello.shm_only = field.number != 0;
  }
  return hello;
}

std::string EncodeFrame(const NativeFrame& frame) {
  return absl::StrCat(U32(static_cast<uint32_t>(kFrameHeader + frame.body.size())), LittleEndian(frame.type, 1),
                      LittleEndian(frame.flags, 1), LittleEndian(frame.code, 2), U64(frame.call_id), frame.body);
}

NativeFrame DecodeFrame(absl::string_view bytes) {
  NativeFrame frame;
  frame.type = static_cast<uint8_t>(bytes[4]);
  frame.flags = static_cast<uint8_t>(bytes[5]);
  frame.code = static_cast<uint16_t>(FromLittleEndian(bytes.substr(6, 2)));
  frame.call_id = FromLittleEndian(bytes.substr(8, 8));
  frame.body = std::string(bytes.substr(kFrameHeader));
  return frame;
}

std::string MetadataBlock(const MetadataPairs& pairs) {
  Proto block;
  for (const auto& [key, value] : pairs) block.Bytes(1, Proto().Bytes(1, key).Bytes(2, value).bytes());
  return Block(block.bytes());
}

std::string StatusBlock(absl::string_view message, const MetadataPairs& trailing) {
  Proto block;
  block.Bytes(1, message);
  if (!trailing.empty()) block.Bytes(3, MetadataBlock(trailing).substr(4));
  return Block(block.bytes());
}

}  // namespace shmrpc::fault
