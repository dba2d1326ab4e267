#!/usr/bin/env bash
# Client and server in different user, PID, network, mount and IPC namespaces: shared memory where the socket can be
# reached and both policies let the other in, otherwise the socket, with the same results and the reason. Needs root.
# (TCP between network namespaces is network_namespace_test.sh.)
# shellcheck source=tests/fault/limits.sh
. "$(dirname "$0")/limits.sh"

needs_other_users
for namespace in user pid net mount ipc; do
  unshare --$namespace --fork true 2>"$scratch/unshare.err" ||
    skip "cannot make a new $namespace namespace: $(cat "$scratch/unshare.err")"
done
nobody=65534
as_nobody=(setpriv --reuid=$nobody --regid=$nobody --clear-groups)
unix=unix:$scratch/socket

# ---- PID, mount, IPC, UTS: they do not matter, but for who is seen.

start_server 127.0.0.1:0
for namespace in pid mount ipc uts; do
  client_prefix=(unshare --$namespace --fork)
  call "$server_address"
  expect_way "a client in another $namespace namespace" shm
  expect "its credentials" "$seen" "uid=0 gid=0 pid=[1-9]* groups=*"
  call "$server_address" transport=shm
  expect_way "the same, insisting" shm
  call "$server_address" transport=tcp
  expect_way "the same, over TCP" "tcp: asked for"
done
client_prefix=(unshare --pid --fork)
call "$server_address"
expect "a server that is not in the client's PID namespace" "$server" "uid=0 gid=0 pid=none groups=*"

client_prefix=()
for namespace in pid mount ipc; do
  server_prefix=(unshare --$namespace --fork --kill-child)
  start_server 127.0.0.1:0
  call "$server_address"
  expect_way "a server in another $namespace namespace" shm
  [[ $namespace != pid ]] || expect "a client that is not in the server's PID namespace" "$seen" "uid=0 gid=0 pid=none *"
done
server_prefix=()

# ---- Network: the name of a socket file is the same everywhere, abstract names and ports are not.

start_server "$unix"
client_prefix=(unshare --net)
call "$server_address"
expect_way "a socket file from another network namespace" shm
start_server "unix-abstract:shmrpc-namespaces-$$"
call "$server_address"
expect_refused "an abstract name from another network namespace" "*nothing listens on*"

# ---- Mount: where the socket file cannot be seen, another address leads to the same server.

rm -f "$scratch/socket"
start_server "$unix"
client_prefix=(unshare --mount sh -c 'mount -t tmpfs none "$0" && exec "$@"' "$scratch")
call "$server_address"
expect_refused "a socket file that is not in the client's mount namespace" "*nothing listens on*"
start_server 127.0.0.1:0
call "$unix,$server_address"
expect_way "the same, with a second address" "shm to $server_address"

# ---- User: ids that do not exist in the other namespace all look alike there, and are nobody in particular.

start_server 127.0.0.1:0
client_prefix=(unshare --user --map-root-user)
call "$server_address"
expect_way "the same user, in a user namespace that has it" shm
client_prefix=(unshare --user)
call "$server_address"
expect_way "the same user, in a user namespace that does not have it" "tcp: *user (uid 65534, which here stands for all users of other user namespaces)*"
call "$server_address" shm=users:65534
expect_way "who cannot be listed either" "tcp: *user (uid 65534, which here stands for *"
call "$server_address" shm=groups:65534
expect_way "nor can its groups" "tcp: *user (uid 65534, which here stands for *"
call "$server_address" shm=any
expect_way "but anybody includes it" shm
client_prefix=("${as_nobody[@]}" unshare --user --map-root-user)
call "$server_address"
expect_way "root of a user namespace of another user's" "tcp: *server runs as another user (uid 65534, which here*"
call "$server_address" shm=any
expect_way "who is another user to the server as well" "tcp: *client runs as another user (uid $nobody)*"

# Each is 65534 in its own namespace and sees the other as 65534, but they are root and another user.
for server_map in --user "--user --map-root-user"; do
  # shellcheck disable=SC2206  # words
  server_prefix=(unshare $server_map)
  start_server 127.0.0.1:0
  client_prefix=("${as_nobody[@]}" unshare --user)
  call "$server_address"
  expect_way "two users who both look like 65534 (unshare $server_map)" "tcp: *user (uid 65534, which here stands for *"
  call "$server_address" shm=any
  expect_way "which the server finds as well" "tcp: *client runs as another user (uid 65534, which here stands for *"
  start_server 127.0.0.1:0 shm=users:65534
  call "$server_address" shm=any
  expect_way "whom the server cannot list" "tcp: *client runs as another user (uid 65534, which here stands for *"
  start_server 127.0.0.1:0 shm=groups:65534
  call "$server_address" shm=any
  expect_way "nor the group" "tcp: *client runs as another user (uid 65534, which here stands for *"
  start_server "unix-abstract:shmrpc-namespaces-$$"
  call "$server_address" unix=any shm=any
  expect_refused "nor may it connect to a Unix socket" "*refused the connection: the client runs as another user (uid 65534, which here*"
done
start_server 127.0.0.1:0 shm=any
call "$server_address" shm=any
expect_way "where anybody is let in, by both sides" shm
expect "the credentials of who does not exist here" "$seen" "uid=65534 gid=65534 pid=[1-9]* groups="

# Where all users exist, 65534 is a user like others.
server_prefix=("${as_nobody[@]}")
start_server 127.0.0.1:0
client_prefix=("${as_nobody[@]}")
call "$server_address"
expect_way "nobody and nobody, in the host's user namespace" shm
