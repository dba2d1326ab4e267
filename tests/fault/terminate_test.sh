#!/usr/bin/env bash
# SIGTERM under load: the server finishes the calls that it has accepted, then ends with success.
# shellcheck source=tests/fault/hello.sh
. "$(dirname "$0")/hello.sh"

start_server --listen=127.0.0.1:0 --delay=1s

# Each client makes two calls. When all have the first reply, all are connected and in their second call.
clients=()
for i in 1 2 3 4 5 6 7 8; do
  "$greeter_client" --target="$server_address" --name="client $i" --count=2 --timeout=60s >"$scratch/client.$i" 2>&1 &
  clients+=($!)
done
for i in 1 2 3 4 5 6 7 8; do
  for ((try = 0; try < 600; ++try)); do
    ! grep -q "Hello, client $i!" "$scratch/client.$i" || break
    kill -0 "${clients[i - 1]}" 2>/dev/null || fail "client $i: $(cat "$scratch/client.$i")"
    sleep 0.02
  done
done
kill -TERM "$server_pid"

answered=0
for i in 1 2 3 4 5 6 7 8; do
  if wait "${clients[i - 1]}"; then
    (($(grep -c "Hello, client $i!" "$scratch/client.$i") == 2)) || fail "client $i: $(cat "$scratch/client.$i")"
    answered=$((answered + 1))
  else
    # On a loaded machine the second call may come too late to be accepted; then it is told so.
    grep -q "UNAVAILABLE" "$scratch/client.$i" || fail "client $i: $(cat "$scratch/client.$i")"
  fi
done
echo "$answered of 8 calls were accepted before the signal, and answered after it"
((answered > 0)) || fail "no call was answered after the signal"

code=0
wait "$server_pid" || code=$?
server_pid=
((code == 0)) || fail "the server ended with $code: $(cat "$scratch/server.err")"

# Servers take turns at one address while clients go on calling: not one call is lost. Which way they go is theirs to
# choose (shared memory), or TCP.
for transport in auto tcp; do
  start_server --listen=127.0.0.1:0 --delay=1ms
  address=$server_address
  clients=()
  for i in 1 2 3 4; do
    SHMRPC_TRANSPORT=$transport "$greeter_client" --target="$address" --name="client $i" --count=2000 --timeout=60s \
      --wait_for_ready >"$scratch/client.$i" 2>&1 &
    clients+=($!)
  done
  for round in 1 2 3 4 5; do
    for i in 1 2 3 4; do
      # Further than in the round before.
      for ((try = 0; try < 600; ++try)); do
        (($(grep -c "Hello, client $i!" "$scratch/client.$i") < 100 * round)) || break
        kill -0 "${clients[i - 1]}" 2>/dev/null || break
        sleep 0.02
      done
    done
    kill -TERM "$server_pid"
    code=0
    wait "$server_pid" || code=$?
    server_pid=
    ((code == 0)) || fail "the server ended with $code: $(cat "$scratch/server.err")"
    start_server --listen="$address" --delay=1ms
  done
  for i in 1 2 3 4; do
    wait "${clients[i - 1]}" || fail "client $i: $(tail -3 "$scratch/client.$i")"
    (($(grep -c "Hello, client $i!" "$scratch/client.$i") == 2000)) || fail "client $i lost calls"
  done
  echo "$transport: 4 clients made 2000 calls each while 6 servers took turns"
  kill -TERM "$server_pid"
  wait "$server_pid" || fail "the last server: $(cat "$scratch/server.err")"
  server_pid=
done
