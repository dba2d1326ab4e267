#!/usr/bin/env bash
# A process that has nearly come to the limit of its memory control group when shared memory is to be agreed on: the
# connection stays with the socket and says why. (The kernel would not refuse the memory, but kill the process that uses
# it.) Needs root, and control groups that can be made.
# shellcheck source=tests/fault/limits.sh
. "$(dirname "$0")/limits.sh"

((EUID == 0)) || skip "needs root, to make a control group"
group=
for parent in /sys/fs/cgroup/memory /sys/fs/cgroup; do
  group=$parent/shmrpc-test-$$
  limit=$group/memory.max
  usage=$group/memory.current
  unlimited=max
  if [[ $parent == */memory ]]; then
    limit=$group/memory.limit_in_bytes
    usage=$group/memory.usage_in_bytes
    unlimited=-1
  fi
  mkdir "$group" 2>/dev/null || continue
  [[ ! -w $limit ]] || break
  rmdir "$group"
done
[[ -w ${limit:-} ]] || skip "no memory control group can be made here"
leave_group() {
  clean_up
  local try
  for ((try = 0; try < 100; ++try)); do
    rmdir "$group" 2>/dev/null && break
    sleep 0.1
  done
}
trap leave_group EXIT
in_group=(bash -c 'echo $$ >"$0"/cgroup.procs && exec "$@"' "$group")

# The kernel charges in lumps: the limit leaves room enough for everything but shared memory.
tighten() { echo $(($(<"$usage") + (2 << 20))) >"$limit"; }

# ---- The server's.

server_prefix=("${in_group[@]}")
for address in 127.0.0.1:0 "unix:$scratch/socket"; do
  start_server "$address"
  call "$server_address"
  expect_way "a server with memory left" shm
  tighten
  call "$server_address"
  expect_way "a server without" "@(tcp|unix): the server's memory cgroup $group has * bytes left*raise its limit"
  call "$server_address" transport=shm
  expect_refused "the same, with a client that insists" "*the server's memory cgroup $group has * bytes left*"
  echo "$unlimited" >"$limit"
  call "$server_address"
  expect_way "a server with memory again" shm
done
server_prefix=()

# ---- The client's.

start_server 127.0.0.1:0
client_prefix=("${in_group[@]}")
echo $((3 << 20)) >"$limit" || skip "the limit of $group cannot be set"
call "$server_address"
expect_way "a client without memory left" "tcp: memory cgroup $group has * bytes left*raise its limit"
echo "$unlimited" >"$limit"
call "$server_address"
expect_way "a client with memory again" shm
