# shellcheck shell=bash
# What the scripts with limits_peer share. Source it with the path of limits_peer as argument.
# shellcheck source=tests/fault/server.sh
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

peer=$1

# start_server ADDRESS [OPTION...]: in place of the one there may be; see start_server_process.
start_server() {
  stop_server
  start_server_process "$peer" server "$@"
}

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
