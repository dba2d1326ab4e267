#ifndef SHMRPC_ACCESS_H_
#define SHMRPC_ACCESS_H_

#include <sys/types.h>

#include <utility>
#include <vector>

namespace shmrpc {

// Which processes this one shares memory with, or talks to over Unix sockets. They are known by what the kernel says of
// the other end of a Unix socket (see PeerCredentials); over TCP nothing is known, and nothing is checked.
//
// The user that this process runs as (its effective uid) and root are always let in, and by default nobody else.
// Everybody else is let in who is one of `users`, or is in one of `groups` with their group id or a supplementary
// group. Both sides have a policy of their own and check it, so each has to let the other in.
//
// In a user namespace the kernel shows all users who do not exist there as one, the overflow uid (65534, "nobody").
// Where that can happen, a peer with that uid is nobody in particular: it is not the same user, even if this process
// has the uid as well, nor is it one of `users`. The same holds for groups. Only `any_user` lets it in.
//
// A value type.
struct AccessPolicy {
  bool any_user = false;
  std::vector<uid_t> users = {};
  std::vector<gid_t> groups = {};

  static AccessPolicy SameUser() { return {}; }
  static AccessPolicy AnyUser() { return {.any_user = true}; }
  static AccessPolicy Users(std::vector<uid_t> users) { return {.users = std::move(users)}; }
  static AccessPolicy Groups(std::vector<gid_t> groups) { return {.groups = std::move(groups)}; }
};

}  // namespace shmrpc

#endif  // SHMRPC_ACCESS_H_
