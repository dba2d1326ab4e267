#include "shmrpc/metadata.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/src/absl_strings.h"

namespace shmrpc {
namespace {

// What HTTP/2 adds to each pair (RFC 9113, 6.5.2).
constexpr size_t kEntryOverhead = 32;

bool IsKeyCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

bool IsPrintable(char c) { return c >= 0x20 && c <= 0x7e; }

absl::Status ValidateEntry(const Metadata::Entry& entry) {
  const auto& [key, value] = entry;
  if (key.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("metadata with the value \"", absl::CHexEscape(value), "\" has an empty key"));
  }
  for (char c : key) {
    if (IsKeyCharacter(c)) continue;
    return absl::InvalidArgumentError(absl::StrCat("metadata key \"", absl::CHexEscape(key), "\" contains '",
                                                   absl::CHexEscape(absl::string_view(&c, 1)),
                                                   "'; keys are made of a-z, 0-9, '_', '-' and '.'"));
  }
  for (std::string_view prefix : {"grpc-", "shmrpc-"}) {
    if (key.starts_with(prefix)) {
      return absl::InvalidArgumentError(absl::StrCat("metadata key \"", key, "\" begins with \"", ToAbsl(prefix),
                                                     "\", which is reserved for the protocol; choose another name"));
    }
  }
  if (key.ends_with("-bin")) return absl::OkStatus();
  for (char c : value) {
    if (IsPrintable(c)) continue;
    return absl::InvalidArgumentError(absl::StrCat("the value of metadata key \"", key, "\" is not printable ASCII: \"",
                                                   absl::CHexEscape(value),
                                                   "\"; values of any bytes belong under a key that ends in \"-bin\""));
  }
  return absl::OkStatus();
}

}  // namespace

void Metadata::Add(std::string_view key, std::string_view value) {
  entries_.emplace_back(std::string(key), std::string(value));
}

std::optional<std::string_view> Metadata::Find(std::string_view key) const {
  for (const Entry& entry : entries_) {
    if (entry.first == key) return std::string_view(entry.second);
  }
  return std::nullopt;
}

std::vector<std::string_view> Metadata::FindAll(std::string_view key) const {
  std::vector<std::string_view> values;
  for (const Entry& entry : entries_) {
    if (entry.first == key) values.push_back(entry.second);
  }
  return values;
}

size_t Metadata::ByteSize() const {
  size_t size = 0;
  for (const Entry& entry : entries_) size += entry.first.size() + entry.second.size() + kEntryOverhead;
  return size;
}

absl::Status Metadata::Validate() const {
  size_t size = 0;
  for (const Entry& entry : entries_) {
    absl::Status status = ValidateEntry(entry);
    if (!status.ok()) return status;
    size += entry.first.size() + entry.second.size() + kEntryOverhead;
    if (size > kMaxByteSize) {
      return absl::ResourceExhaustedError(absl::StrCat("metadata takes ", ByteSize(),
                                                       " bytes (each pair counts key + value + ", kEntryOverhead,
                                                       ") and exceeds the limit of ", kMaxByteSize, " with the key \"",
                                                       entry.first, "\"; send larger data in the message"));
    }
  }
  return absl::OkStatus();
}

}  // namespace shmrpc
