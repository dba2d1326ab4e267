#!/usr/bin/env bash
# What became of the gRPC program says the same as the program itself.
#
# usage: migration_test.sh GRPC_SERVER GRPC_CLIENT MOVED_SERVER MOVED_CLIENT
set -euo pipefail

scratch=$(mktemp -d)
server_pid=
clean_up() {
  [[ -z $server_pid ]] || kill -KILL "$server_pid" 2>/dev/null || true
  rm -rf "$scratch"
}
trap clean_up EXIT
unset SHMRPC_TRANSPORT

# run NAME SERVER CLIENT: leaves what the client prints in NAME.out.
run() {
  mkfifo "$scratch/$1.in"
  "$2" "unix:$scratch/$1.sock" <"$scratch/$1.in" &
  server_pid=$!
  exec 9>"$scratch/$1.in"  # the server ends when this is closed
  timeout 100 "$3" "unix:$scratch/$1.sock" >"$scratch/$1.out"
  exec 9>&-
  wait "$server_pid"
  server_pid=
}
run grpc "$1" "$2"
run shmrpc "$3" "$4"
cat "$scratch/grpc.out"
[[ $(wc -l <"$scratch/grpc.out") == 15 ]]
diff "$scratch/grpc.out" "$scratch/shmrpc.out"
