#!/usr/bin/env bash
# SIGTERM while a handler will not be done for an hour: the server ends when its drain has lasted as long as it may, and
# the client is told.
# shellcheck source=tests/fault/hello.sh
. "$(dirname "$0")/hello.sh"

for transport in auto tcp; do
  start_server --listen=127.0.0.1:0 --delay=1h --drain=500ms
  SHMRPC_TRANSPORT=$transport "$greeter_client" --target="$server_address" --timeout=1h >"$scratch/client" 2>&1 &
  client=$!
  # The call is accepted when the client has a connection. Nothing says so from outside: SIGTERM may come too early, and
  # then the call is refused, which takes no drain. So this waits until both are at rest.
  for ((try = 0; try < 600; ++try)); do
    [[ $(ls "/proc/$client/task" | wc -l) -gt 0 ]] || fail "the client ended: $(cat "$scratch/client")"
    sockets=$(find "/proc/$client/fd" -lname 'socket:*' 2>/dev/null | wc -l)
    ((sockets == 0)) || break
    sleep 0.02
  done
  sleep 0.3
  kill -TERM "$server_pid"
  code=0
  wait "$server_pid" || code=$?
  server_pid=
  ((code == 0)) || fail "the server ended with $code: $(cat "$scratch/server.err")"
  if wait "$client"; then fail "a call that takes an hour succeeded: $(cat "$scratch/client")"; fi
  grep -qE "UNAVAILABLE|CANCELLED" "$scratch/client" || fail "the client was not told: $(cat "$scratch/client")"
  echo "$transport: $(cat "$scratch/client")"
done
