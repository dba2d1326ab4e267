#!/usr/bin/env bash
# A server without descriptors left (RLIMIT_NOFILE): it does not spin, says so in its log, and goes on when there are
# some again. By default it never gets there, because it refuses connections before.
# shellcheck source=tests/fault/limits.sh
. "$(dirname "$0")/limits.sh"

# CPU time of the server in clock ticks, of which there are 100 in a second.
cpu_ticks() {
  local stat
  stat=$(</proc/"$server_pid"/stat)
  # shellcheck disable=SC2086  # words
  set -- ${stat##*) }
  echo $((${12} + ${13}))
}

open_descriptors() {
  local descriptors=(/proc/"$server_pid"/fd/*)
  echo ${#descriptors[@]}
}

# open_strangers COUNT: connections that say nothing.
strangers=()
open_strangers() {
  local i stranger
  for ((i = 0; i < $1; ++i)); do
    exec {stranger}<>"/dev/tcp/127.0.0.1/${server_address##*:}" || fail "stranger $i cannot connect"
    strangers+=("$stranger")
  done
}
close_strangers() {
  local stranger
  for stranger in "${strangers[@]}"; do exec {stranger}>&-; done
  strangers=()
}

limited_server() {  # LIMIT ARGUMENT...
  server_prefix=(bash -c 'ulimit -n "$0" && exec "$@"' "$1")
  start_server "${@:2}"
}

# ---- In accept.

limited_server 60 127.0.0.1:0 connections=1000 handshake=600s
before=$(open_descriptors)
open_strangers 80
for ((try = 0; try < 200; ++try)); do
  (($(open_descriptors) < 60)) || break
  sleep 0.05
done
(($(open_descriptors) >= 60)) || fail "the server has only $(open_descriptors) descriptors, and may have 60"
expect_log "no descriptors" "cannot accept connections on .*EMFILE.*ulimit -n"
ticks=$(cpu_ticks)
sleep 2
ticks=$(($(cpu_ticks) - ticks))
((ticks < 40)) || fail "the server used $ticks ticks of CPU time in 2 s without descriptors"
echo "without descriptors the server used $ticks ticks in 2 s, and wrote $(grep -c EMFILE "$scratch/server.err") lines"

# The client must not keep the strangers' connections open.
(
  close_strangers
  exec "$peer" client "$server_address" wait=60s
) >"$scratch/client.out" &
client=$!
sleep 0.2
close_strangers
wait "$client" || fail "the client that waited failed"
grep -q "^status: OK" "$scratch/client.out" || fail "the client that waited: $(cat "$scratch/client.out")"
call "$server_address"
expect_way "with descriptors again" shm
for ((try = 0; try < 200; ++try)); do
  (($(open_descriptors) > before)) || break
  sleep 0.05
done
(($(open_descriptors) <= before)) || fail "the server had $before descriptors, and now has $(open_descriptors)"

# ---- By default three quarters of the descriptors are for connections, two for each, and half of these for one address.

limited_server 60 127.0.0.1:0 handshake=600s
open_strangers 10
call "$server_address" transport=tcp
expect_refused "more than half of the places for one address" \
  "*10 connections from this host, as many as the option max_connections_per_address (10)*connection_limits*"
expect_log "too many from one address" "refused a connection from ipv4:127.0.0.1:.*max_connections_per_address (10)"
close_strangers
call "$server_address" wait=60s
expect_way "after that" shm

stop_server

# ---- In recvmsg, memfd_create, and whatever else takes descriptors on the way: a server with fewer and fewer left.

shm=0
socket=0
failed=0
started=0
for address in 127.0.0.1:0 "unix:$scratch/socket"; do
  for ((limit = 24; limit >= 8; --limit)); do
    rm -f "$scratch/socket"
    : >"$scratch/server.out"
    bash -c 'ulimit -n "$0" && exec "$@"' "$limit" "$peer" server "$address" connections=1000 <>"$scratch/input" \
      >"$scratch/server.out" 2>"$scratch/server.err" &
    server_pid=$!
    server_address=
    for ((try = 0; try < 600; ++try)); do
      server_address=$(sed -n 's/^listening on //p' "$scratch/server.out")
      [[ -z $server_address ]] && kill -0 "$server_pid" 2>/dev/null || break
      sleep 0.02
    done
    if [[ -z $server_address ]]; then
      [[ -s $scratch/server.err ]] || fail "with $limit descriptors the server ended without a word"
      break  # and so with fewer
    fi
    started=$((started + 1))
    call "$server_address" timeout=1s
    case $status/$transport in
      OK/shm) shm=$((shm + 1)) ;;
      OK/*EMFILE* | OK/*"no descriptor left"*) socket=$((socket + 1)) ;;
      OK/*"did not answer the hello in time"*) socket=$((socket + 1)) ;;  # it could not accept the second connection
      DEADLINE_EXCEEDED:* | UNAVAILABLE:*) failed=$((failed + 1)) ;;
      *) fail "$address with $limit descriptors: $status, $transport" ;;
    esac
    kill -0 "$server_pid" 2>/dev/null || fail "with $limit descriptors the server ended: $(cat "$scratch/server.err")"
    echo "$address, $limit descriptors: ${status:0:200}, ${transport:0:160}"
    stop_server
  done
done
echo "$started servers: shared memory $shm times, the socket $socket times, no call $failed times"
((shm > 0)) || fail "never over shared memory"
((socket + failed > 0)) || fail "there were always descriptors enough"
