#include "runtime/src/peer_text.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace shmrpc::internal {

std::string PeerText(absl::string_view text) {
  if (text.size() <= kMostPeerText) {
    std::string whole = absl::CHexEscape(text);
    if (whole.size() <= kMostPeerText) return whole;
  }
  const std::string rest = absl::StrCat("... (", text.size(), " bytes)");
  std::string begin;
  for (const char& c : text) {
    const std::string escaped = absl::CHexEscape(absl::string_view(&c, 1));
    if (begin.size() + escaped.size() + rest.size() > kMostPeerText) break;
    begin += escaped;
  }
  return begin + rest;
}

}  // namespace shmrpc::internal
