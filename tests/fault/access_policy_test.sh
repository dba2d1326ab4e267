#!/usr/bin/env bash
# Who may share memory and who may connect to a Unix socket, tried as real other users, with every kind of policy, on
# both sides. Who is refused is told why, at both ends. Needs root.
# shellcheck source=tests/fault/limits.sh
. "$(dirname "$0")/limits.sh"

needs_other_users

nobody=65534
somebody=54321
as_nobody=(setpriv --reuid=$nobody --regid=$nobody --clear-groups)
as_somebody=(setpriv --reuid=$somebody --regid=$somebody --clear-groups)
as_member=(setpriv --reuid=$somebody --regid=$somebody --groups=777,4242)
as_group=(setpriv --reuid=$somebody --regid=4242 --clear-groups)
unix=unix:$scratch/socket

# ---- Shared memory, arranged over TCP: the server's policy.

start_server 127.0.0.1:0
call "$server_address"
expect_way "root and root" shm
expect "root's credentials" "$seen" "uid=0 gid=0 pid=[1-9]* groups=*"
expect "root's credentials" "$server" "uid=0 gid=0 pid=$server_pid groups=*"
client_prefix=("${as_nobody[@]}")
call "$server_address"
expect_way "another user" "tcp: *client runs as another user (uid $nobody)*the option shared_memory_access*(uid 0)*"
expect "over TCP" "$seen" none
expect "over TCP" "$server" none
expect_log "another user" "no shared memory for a client.*another user (uid $nobody)"
call "$server_address" transport=shm
expect_refused "another user who insists" "*another user (uid $nobody)*"
call "$server_address" transport=tcp
expect "over TCP" "$seen" none

start_server 127.0.0.1:0 shm=any
call "$server_address"
expect_way "anybody" shm
expect "anybody's credentials" "$seen" "uid=$nobody gid=$nobody pid=[1-9]* groups="

start_server 127.0.0.1:0 shm=users:7,$nobody
call "$server_address"
expect_way "a listed user" shm
client_prefix=("${as_somebody[@]}")
call "$server_address"
expect_way "a user who is not listed" "tcp: *another user (uid $somebody)*"
client_prefix=()
call "$server_address"
expect_way "root, who is not listed" shm

start_server 127.0.0.1:0 shm=groups:4242
client_prefix=("${as_somebody[@]}")
call "$server_address"
expect_way "a user of another group" "tcp: *another user (uid $somebody)*"
client_prefix=("${as_member[@]}")
call "$server_address"
expect_way "a member of a listed group" shm
expect "a member's credentials" "$seen" "uid=$somebody gid=$somebody pid=[1-9]* groups=777,4242"
client_prefix=("${as_group[@]}")
call "$server_address"
expect_way "a user whose group is listed" shm

# ---- The client's policy.

server_prefix=("${as_nobody[@]}")
start_server 127.0.0.1:0 shm=any
client_prefix=("${as_somebody[@]}")
call "$server_address"
expect_way "a server of another user" "tcp: *server runs as another user (uid $nobody)*the option shared_memory_access*"
client_prefix=()
call "$server_address"
expect_way "root does not trust everybody" "tcp: *server runs as another user (uid $nobody)*"
call "$server_address" transport=shm
expect_refused "nor if it insists" "*server runs as another user (uid $nobody)*"
client_prefix=("${as_somebody[@]}")
call "$server_address" shm=users:$nobody
expect_way "a server of a listed user" shm
call "$server_address" shm=groups:$nobody
expect_way "a server of a listed group" shm

start_server 127.0.0.1:0
client_prefix=("${as_nobody[@]}")
call "$server_address"
expect_way "nobody and nobody" shm
client_prefix=()
call "$server_address" shm=any
expect_way "root is let in by everybody" shm
client_prefix=("${as_somebody[@]}")
call "$server_address" shm=any
expect_way "one side alone does not let anybody in" "tcp: *client runs as another user (uid $somebody)*"

# ---- Unix sockets: both policies, in the file system and in the abstract namespace.

server_prefix=()
client_prefix=("${as_nobody[@]}")
for address in "$unix" "unix-abstract:shmrpc-access-$$"; do
  start_server "$address" mode=0666
  call "$server_address"
  expect_refused "$address: another user" "*refused the connection: the client runs as another user (uid $nobody)*the option unix_socket_access*"
  expect_log "$address: another user" "refused a connection from unix:pid=.*another user (uid $nobody)"
  start_server "$address" mode=0666 unix=users:$nobody
  call "$server_address"
  expect_way "$address: a listed user" "unix: *another user (uid $nobody)*shared_memory_access*"
  expect "$address: credentials" "$seen" "uid=$nobody gid=$nobody pid=[1-9]* groups="
  start_server "$address" mode=0666 unix=users:$nobody shm=users:$nobody
  call "$server_address"
  expect_way "$address: a user listed for both" shm
  call "$server_address" transport=unix
  expect_way "$address: without shared memory" "unix: asked for"
done

start_server "$unix" unix=any shm=any
call "$server_address"
expect_refused "the mode of the socket file counts, too" "*Permission denied*owner and mode*"

server_prefix=("${as_nobody[@]}")
chmod 777 "$scratch"
rm -f "$scratch/socket"
start_server "$unix" mode=0666 unix=any shm=any
for client_prefix in "" "${as_somebody[*]}"; do
  # shellcheck disable=SC2128,SC2206  # words, not an array
  client_prefix=($client_prefix)
  call "$server_address"
  expect_refused "a Unix socket of another user" "*server runs as another user (uid $nobody)*the option unix_socket_access*"
  call "$server_address" unix=users:$nobody
  expect_way "a Unix socket of a listed user" "unix: *server runs as another user (uid $nobody)*shared_memory_access*"
  call "$server_address" unix=users:$nobody transport=shm
  expect_refused "the same, insisting on shared memory" "*server runs as another user (uid $nobody)*"
  call "$server_address" unix=users:$nobody shm=users:$nobody
  expect_way "a Unix socket and shared memory of a listed user" shm
done
