# shellcheck shell=bash
# What the scripts with limits_peer share. Source it with the path of limits_peer as argument. Everything it starts and
# makes is gone when the script ends.

set -euo pipefail

peer=$1
scratch=$(mktemp -d)
chmod 755 "$scratch"  # other users have sockets there
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

# start_server ADDRESS [OPTION...]: in place of the one there may be, behind the command in the array `server_prefix`.
# Waits until it listens. Sets server_address.
server_prefix=()
start_server() {
  local try
  stop_server
  : >"$scratch/server.out"
  # Its input never ends; it is killed.
  "${server_prefix[@]}" "$peer" server "$@" <>"$scratch/input" >"$scratch/server.out" 2>"$scratch/server.err" &
  server_pid=$!
  for ((try = 0; try < 600; ++try)); do
    server_address=$(sed -n 's/^listening on //p' "$scratch/server.out")
    [[ -z $server_address ]] || return 0
    kill -0 "$server_pid" 2>/dev/null || fail "the server did not start: $(cat "$scratch/server.err")"
    sleep 0.1
  done
  fail "the server did not say where it listens"
}
mkfifo "$scratch/input"

# call [ARGUMENT OF A CLIENT...], behind the command in the array `client_prefix`. Sets status, transport, seen and
# server: what the client printed.
client_prefix=()
call() {
  local output
  output=$(timeout -s KILL 100 "${client_prefix[@]}" "$peer" client "$@" 2>"$scratch/client.err") ||
    fail "the client ended with $?: $output $(cat "$scratch/client.err")"
  status=$(sed -n 's/^status: //p' <<<"$output")
  transport=$(sed -n 's/^transport: //p' <<<"$output")
  seen=$(sed -n 's/^seen: //p' <<<"$output")
  # shellcheck disable=SC2034  # for the script that sources this
  server=$(sed -n 's/^server: //p' <<<"$output")
}

# expect WHAT ACTUAL PATTERN
expect() {
  # shellcheck disable=SC2053  # the pattern is one
  [[ $2 == $3 ]] || fail "$1: expected $3, got: $2 (status $status, transport $transport, seen $seen)"
}

# expect_way WHAT PATTERN: the last call succeeded, and went that way.
expect_way() {
  expect "$1" "$status" OK
  expect "$1" "$transport" "$2"
  echo "$1: $transport"
}

# expect_refused WHAT PATTERN: the last call could not be made, for that reason.
expect_refused() {
  expect "$1" "$status" "UNAVAILABLE: $2"
  echo "$1: $status"
}

# expect_log WHAT PATTERN: the server's log has such a line.
expect_log() {
  local try
  for ((try = 0; try < 100; ++try)); do
    if grep -q "$2" "$scratch/server.err"; then return; fi
    sleep 0.1
  done
  fail "$1: the server's log has no line \"$2\""
}

# Skips the test where it cannot become other users, or these cannot execute the program.
needs_other_users() {
  ((EUID == 0)) || skip "needs root, to become another user"
  command -v setpriv >/dev/null || skip "needs the command setpriv (Debian: util-linux)"
  setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$peer" || skip "the user 65534 cannot execute $peer"
}
