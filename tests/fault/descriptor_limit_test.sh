#!/usr/bin/env bash
# A client that runs out of descriptors on its way to shared memory goes over TCP and says why; with still fewer it
# fails with an error that says so. It never crashes or hangs.
# shellcheck source=tests/fault/hello.sh
. "$(dirname "$0")/hello.sh"

start_server --listen=127.0.0.1:0

shm=0
tcp=0
failed=0
# What whoever started this script has left open would count, and the shell needs one or two to start the client.
for descriptor in /proc/"$$"/fd/*; do
  number=${descriptor##*/}
  if ((number > 2 && number != 255)); then eval "exec $number>&-"; fi
done

for ((limit = 6; limit <= 40; ++limit)); do
  code=0
  output=$(ulimit -n "$limit" && exec timeout -s KILL 60 "$greeter_client" --target="$server_address" 2>&1) || code=$?
  if ((code >= 124)); then
    fail "with $limit descriptors the client crashed or hung (exit code $code): $output"
  elif ((code != 0)); then
    failed=$((failed + 1))
    [[ -n $output ]] || fail "with $limit descriptors the client failed without a word"
    continue
  fi
  [[ $output == *"Hello, world!"* ]] || fail "with $limit descriptors: no greeting in: $output"
  transport=$(transport_of "$output")
  echo "$limit descriptors: $transport"
  case $transport in
    shm) shm=$((shm + 1)) ;;
    tcp:*EMFILE* | tcp:*"Too many open files"* | tcp:*"too many open files"*) tcp=$((tcp + 1)) ;;
    *) fail "with $limit descriptors: the reason does not name the cause: $output" ;;
  esac
done
echo "shm $shm times, tcp $tcp times, failed $failed times"
((shm > 0)) || fail "never over shared memory, not even with 40 descriptors"
((tcp > 0)) || fail "never over TCP: no number of descriptors was enough for TCP and too small for shared memory"
