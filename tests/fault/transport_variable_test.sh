#!/usr/bin/env bash
# SHMRPC_TRANSPORT chooses for programs that do not choose themselves, and the choice is shown.
# shellcheck source=tests/fault/hello.sh
. "$(dirname "$0")/hello.sh"

start_server --listen=127.0.0.1:0

expect_transport() {  # VALUE PATTERN
  local output
  output=$(SHMRPC_TRANSPORT=$1 "$greeter_client" --target="$server_address" --name=variable) ||
    fail "SHMRPC_TRANSPORT=$1: the call failed"
  [[ $output == *"Hello, variable!"* ]] || fail "SHMRPC_TRANSPORT=$1: no greeting in: $output"
  # shellcheck disable=SC2053  # the pattern is one
  [[ $(transport_of "$output") == $2 ]] || fail "SHMRPC_TRANSPORT=$1: expected $2, got: $output"
}

expect_transport auto "shm"
expect_transport shm "shm"
expect_transport tcp "tcp*"

# A word that is none of these is an error that names it and them, not a silent default.
if error=$(SHMRPC_TRANSPORT=carrier-pigeon "$greeter_client" --target="$server_address" 2>&1); then
  fail "SHMRPC_TRANSPORT=carrier-pigeon was accepted: $error"
fi
for word in carrier-pigeon auto shm tcp unix; do
  [[ $error == *"$word"* ]] || fail "the error does not name $word: $error"
done
