#!/usr/bin/env bash
# SIGTERM while a handler will not be done for an hour: the server ends when its drain has lasted as long as it may, and
# the client is told.
# shellcheck source=tests/fault/hello.sh
. "$(dirname "$0")/hello.sh"

# One server, and a client whose call the signal finds running, if it comes `$1` seconds after the client was started.
# False when the call had not begun: then there was nothing to drain.
drain() {
  local wait_seconds=$1 transport=$2 client begin code=0
  start_server --listen=127.0.0.1:0 --delay=1h --drain=500ms
  SHMRPC_TRANSPORT=$transport "$greeter_client" --target="$server_address" --timeout=1h >"$scratch/client" 2>&1 &
  client=$!
  sleep "$wait_seconds"
  begin=$(date +%s%N)
  kill -TERM "$server_pid"
  wait "$server_pid" || code=$?
  server_pid=
  ((code == 0)) || fail "the server ended with $code: $(cat "$scratch/server.err")"
  if wait "$client"; then fail "a call that takes an hour succeeded: $(cat "$scratch/client")"; fi
  grep -qE "UNAVAILABLE|CANCELLED" "$scratch/client" || fail "the client was not told: $(cat "$scratch/client")"
  (($(date +%s%N) - begin >= 500000000))
}

for transport in auto tcp; do
  drained=false
  for wait_seconds in 0.2 1 5 20; do
    if drain "$wait_seconds" "$transport"; then
      drained=true
      break
    fi
  done
  $drained || fail "over $transport no drain lasted 500 ms: either no call had begun, or it was not waited for"
  echo "$transport: $(cat "$scratch/client")"
done
