# shellcheck shell=bash
# What the tests of this folder that run the hello example share. Source it with the paths of greeter_server and
# greeter_client as arguments. Everything it starts and makes is gone when the script ends.

set -euo pipefail

greeter_server=$1
# shellcheck disable=SC2034  # for the script that sources this
greeter_client=$2
scratch=$(mktemp -d)
server_pid=
unset SHMRPC_TRANSPORT

clean_up() {
  if [[ -n $server_pid ]]; then
    kill -KILL "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
  rm -rf "$scratch"
}
trap clean_up EXIT

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

skip() {
  echo "skipped: $*"
  exit 77
}

# start_server [FLAG...]: starts the server, behind the command in the array `server_prefix` if there is one, and waits
# until it listens. Sets server_pid, and server_address to where.
server_prefix=()
start_server() {
  local try
  : >"$scratch/server.out"  # the server's shell may not have come to it when we look
  "${server_prefix[@]}" "$greeter_server" "$@" >"$scratch/server.out" 2>"$scratch/server.err" &
  server_pid=$!
  for ((try = 0; try < 600; ++try)); do
    server_address=$(sed -n 's/^listening on //p' "$scratch/server.out")
    [[ -z $server_address ]] || return 0
    kill -0 "$server_pid" 2>/dev/null || fail "the server did not start: $(cat "$scratch/server.err")"
    sleep 0.1
  done
  fail "the server did not say where it listens"
}

# The transport, and why, that a client's output tells.
transport_of() {
  sed -n 's/^transport: //p' <<<"$1"
}
