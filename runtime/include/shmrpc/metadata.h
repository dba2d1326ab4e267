#ifndef SHMRPC_METADATA_H_
#define SHMRPC_METADATA_H_

#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace shmrpc {

// Among a call's client metadata when a RetryPolicy has let it be attempted before: how often, a decimal number. Added
// by the library, as gRPC does; the one key that a handler can see with a prefix that is reserved.
inline constexpr std::string_view kPreviousAttempts = "grpc-previous-rpc-attempts";

// Key/value pairs that travel beside a call's messages: an ordered multimap.
//
// Rules, as in gRPC (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Custom-Metadata"):
//  - keys are of a-z 0-9 _ - . and not empty; keys that begin with "grpc-" or "shmrpc-" are reserved;
//  - values of keys that end in "-bin" are any bytes; all other values are printable ASCII (0x20 to 0x7e).
// The order of pairs with the same key is kept.
//
// A value type: copyable, movable, not synchronised.
class Metadata {
 public:
  using Entry = std::pair<std::string, std::string>;
  using const_iterator = std::vector<Entry>::const_iterator;

  // What one endpoint sends with one call at most, counted by ByteSize().
  static constexpr size_t kMaxByteSize = 8192;

  Metadata() = default;
  Metadata(std::initializer_list<Entry> entries) : entries_(entries) {}

  // Appends a pair. Nothing is checked here: a call with metadata that breaks a rule fails with INVALID_ARGUMENT
  // and a message that names the pair.
  void Add(std::string_view key, std::string_view value);

  // The first value of `key`, or nullopt. The view lives until this object is changed.
  std::optional<std::string_view> Find(std::string_view key) const;

  // All values of `key`, in order.
  std::vector<std::string_view> FindAll(std::string_view key) const;

  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  void clear() { entries_.clear(); }
  const_iterator begin() const { return entries_.begin(); }
  const_iterator end() const { return entries_.end(); }

  // The size that counts against kMaxByteSize: for each pair key + value + 32 bytes, as HTTP/2 counts a header list
  // (RFC 9113, SETTINGS_MAX_HEADER_LIST_SIZE).
  size_t ByteSize() const;

  // OK, or INVALID_ARGUMENT (a rule above) or RESOURCE_EXHAUSTED (more than kMaxByteSize), naming the pair.
  absl::Status Validate() const;

  friend bool operator==(const Metadata& a, const Metadata& b) { return a.entries_ == b.entries_; }

 private:
  std::vector<Entry> entries_;
};

}  // namespace shmrpc

#endif  // SHMRPC_METADATA_H_
