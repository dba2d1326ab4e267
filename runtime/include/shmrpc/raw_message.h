#ifndef SHMRPC_RAW_MESSAGE_H_
#define SHMRPC_RAW_MESSAGE_H_

#include <string>
#include <string_view>
#include <utility>

#include "google/protobuf/message_lite.h"

namespace shmrpc {

// A message of a type that is not known when the program is compiled: just the bytes of its encoding, which are neither
// looked at nor checked. It goes wherever a generated message goes: readers and writers, reactors, coroutines,
// interceptors.
//
// A value, like a string. Not synchronised.
class RawMessage final : public google::protobuf::MessageLite {
 public:
  RawMessage() = default;
  explicit RawMessage(std::string bytes) : bytes_(std::move(bytes)) {}
  RawMessage(const RawMessage& other) : MessageLite(), bytes_(other.bytes_) {}
  RawMessage(RawMessage&& other) noexcept : MessageLite(), bytes_(std::move(other.bytes_)) {}
  RawMessage& operator=(const RawMessage& other) {
    bytes_ = other.bytes_;
    return *this;
  }
  RawMessage& operator=(RawMessage&& other) noexcept {
    bytes_ = std::move(other.bytes_);
    return *this;
  }

  const std::string& bytes() const { return bytes_; }
  std::string* mutable_bytes() { return &bytes_; }
  void set_bytes(std::string_view bytes) { bytes_.assign(bytes.data(), bytes.size()); }

  static const RawMessage& default_instance();

  // What MessageLite asks for.
  std::string GetTypeName() const override;
  MessageLite* New(google::protobuf::Arena* arena) const override;
  void Clear() override { bytes_.clear(); }
  bool IsInitialized() const override { return true; }
  void CheckTypeAndMergeFrom(const MessageLite& other) override;
  size_t ByteSizeLong() const override { return bytes_.size(); }
  int GetCachedSize() const override { return static_cast<int>(bytes_.size()); }
  const char* _InternalParse(const char* data, google::protobuf::internal::ParseContext* context) override;
  uint8_t* _InternalSerialize(uint8_t* target, google::protobuf::io::EpsCopyOutputStream* stream) const override;

 private:
  std::string bytes_;
};

}  // namespace shmrpc

#endif  // SHMRPC_RAW_MESSAGE_H_
