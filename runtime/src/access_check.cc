#include "runtime/src/access_check.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/src/absl_strings.h"
#include "runtime/src/small_file.h"

namespace shmrpc::internal {
namespace {

// All ids but the one that means "none".
constexpr uint64_t kAllIds = 0xffffffff;
constexpr uint32_t kUsualOverflowId = 65534;

// What ids look like that a map of the user namespace does not have, if there are any. A map has a line for each range:
// the first id inside, the first id outside, how many.
std::optional<uint32_t> OverflowId(const char* map_path, const char* overflow_path) {
  uint64_t mapped = 0;
  const std::string map = ReadSmallFile(map_path).value_or("");
  for (const absl::string_view line : absl::StrSplit(map, '\n', absl::SkipWhitespace())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipWhitespace());
    uint64_t count = 0;
    if (fields.size() == 3 && absl::SimpleAtoi(fields[2], &count)) mapped += count;
  }
  if (mapped >= kAllIds) return std::nullopt;
  uint32_t id = 0;
  return absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadSmallFile(overflow_path).value_or("")), &id)
             ? id
             : kUsualOverflowId;
}

template <typename Id>
bool Contains(const std::vector<Id>& ids, Id id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

Viewpoint Viewpoint::OfThisProcess() {
  Viewpoint own;
  own.uid = geteuid();
  own.overflow_uid = OverflowId("/proc/thread-self/uid_map", "/proc/sys/kernel/overflowuid");
  own.overflow_gid = OverflowId("/proc/thread-self/gid_map", "/proc/sys/kernel/overflowgid");
  return own;
}

bool LetsIn(const AccessPolicy& policy, const std::optional<PeerCredentials>& peer, const Viewpoint& own) {
  if (policy.any_user) return true;
  if (!peer.has_value()) return false;
  if (own.overflow_uid != peer->uid) {
    if (peer->uid == own.uid || peer->uid == 0 || Contains(policy.users, peer->uid)) return true;
  }
  const auto is_in_listed = [&](gid_t gid) { return own.overflow_gid != gid && Contains(policy.groups, gid); };
  return (peer->gid.has_value() && is_in_listed(*peer->gid)) ||
         std::any_of(peer->groups.begin(), peer->groups.end(), is_in_listed);
}

std::string DescribeUser(const std::optional<PeerCredentials>& peer, const Viewpoint& own) {
  if (!peer.has_value()) return "unknown to the kernel";
  const bool ambiguous = own.overflow_uid == peer->uid;
  return absl::StrCat("uid ", peer->uid, ambiguous ? ", which here stands for all users of other user namespaces" : "");
}

std::string WhyNotLetIn(const AccessPolicy& policy, const std::optional<PeerCredentials>& peer,
                        std::string_view peer_is, std::string_view purpose, std::string_view option) {
  if (policy.any_user) return std::string();
  const Viewpoint own = Viewpoint::OfThisProcess();
  if (LetsIn(policy, peer, own)) return std::string();
  return absl::StrCat(ToAbsl(peer_is), " runs as another user (", DescribeUser(peer, own), ") than those that ",
                      ToAbsl(purpose), ": ", ToAbsl(option), " names them, by default the own one (uid ", own.uid,
                      ") and root");
}

}  // namespace shmrpc::internal
