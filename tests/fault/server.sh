# shellcheck shell=bash
# What the scripts of this folder share: a server process and what goes with it. Everything it starts and makes is gone
# when the script ends.

set -euo pipefail

scratch=$(mktemp -d)
chmod 755 "$scratch" # other users have sockets there
mkfifo "$scratch/input"
server_pid=
unset SHMRPC_TRANSPORT

stop_server() {
  if [[ -n $server_pid ]]; then
    kill -KILL "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
  server_pid=
}
clean_up() {
  stop_server
  rm -rf "$scratch"
}
trap clean_up EXIT

fail() {
  echo "FAILED: $*" >&2
  [[ ! -s $scratch/server.err ]] || tail -n 20 "$scratch/server.err" >&2
  exit 1
}

skip() {
  echo "skipped: $*"
  exit 77
}

# start_server_process COMMAND...: behind the command in the array `server_prefix` if there is one. Waits until it says
# where it listens. Sets server_pid, and server_address to where.
server_prefix=()
start_server_process() {
  local try
  : >"$scratch/server.out" # the server's shell may not have come to it when we look
  # Its input never ends.
  "${server_prefix[@]}" "$@" <>"$scratch/input" >"$scratch/server.out" 2>"$scratch/server.err" &
  server_pid=$!
  for ((try = 0; try < 600; ++try)); do
    server_address=$(sed -n 's/^listening on //p' "$scratch/server.out")
    [[ -z $server_address ]] || return 0
    kill -0 "$server_pid" 2>/dev/null || fail "the server did not start: $(cat "$scratch/server.err")"
    sleep 0.1
  done
  fail "the server did not say where it listens"
}
