#!/usr/bin/env bash
# Two hosts whose network fails: nothing tells either side that the other is gone, and no call has a deadline. Keepalive
# ends the calls at both ends. Needs root.
#
# usage: keepalive_test.sh CONFORMANCE_PEER TRANSPORT ADDRESS
set -euo pipefail

peer=$1
transport=$2
listen=$3
scratch=$(mktemp -d)
# shellcheck source=tests/fault/two_hosts.sh
. "$(dirname "$0")/two_hosts.sh"
pids=()
clean_up() {
  local pid
  for pid in "${pids[@]}"; do
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  delete_two_hosts
  rm -rf "$scratch"
}
trap clean_up EXIT

fail() {
  echo "FAILED: $*" >&2
  tail -n 20 "$scratch"/*.out "$scratch"/*.err >&2 || true
  exit 1
}
skip() {
  echo "skipped: $*"
  exit 77
}

# wait_for FILE PATTERN COUNT: until so many lines of the file match.
wait_for() {
  local try
  for ((try = 0; try < 600; ++try)); do
    if (($(grep -c "$2" "$1" || true) >= $3)); then return; fi
    sleep 0.1
  done
  fail "no $3 lines \"$2\" in $1"
}

make_two_hosts

# Each peer ends when its standard input does: these descriptors keep it open.
export SHMRPC_PEER_KEEPALIVE=1s
calls=5
mkfifo "$scratch/server.in" "$scratch/client.in"
exec 8<>"$scratch/server.in" 9<>"$scratch/client.in"
ip netns exec "$server_namespace" "$peer" server "$transport" "$listen" \
  <"$scratch/server.in" >"$scratch/server.out" 2>"$scratch/server.err" 8>&- 9>&- &
pids+=($!)
wait_for "$scratch/server.out" '^listening on ' 1
port=$(sed -n 's/^listening on .*://p' "$scratch/server.out")
ip netns exec "$client_namespace" "$peer" client "$transport" "${listen%0.0.0.0:0}192.0.2.1:$port" $calls \
  <"$scratch/client.in" >"$scratch/client.out" 2>"$scratch/client.err" 8>&- 9>&- &
pids+=($!)
wait_for "$scratch/client.out" '^ready$' 1

ip -n "$client_namespace" link set eth0 down
wait_for "$scratch/client.out" '^UNAVAILABLE: nothing was heard of the server for 1s' $calls
# With this the server ends as soon as it has given up its held calls, and tells how many they were.
exec 8>&- 9>&-
wait_for "$scratch/server.out" '^cancelled: ' 1
grep -q "^cancelled: $calls$" "$scratch/server.out" || fail "not all calls were cancelled at the server"
for pid in "${pids[@]}"; do
  wait "$pid" || fail "a peer ended with $?"
done
pids=()
