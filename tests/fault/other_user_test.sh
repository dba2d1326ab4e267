#!/usr/bin/env bash
# Shared memory is for processes of one user, and root: another user's client goes over TCP and is told why. Needs root,
# to become another user.
# shellcheck source=tests/fault/hello.sh
. "$(dirname "$0")/hello.sh"

((EUID == 0)) || skip "needs root, to become another user"
command -v setpriv >/dev/null || skip "needs the command setpriv (Debian: util-linux)"
as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
"${as_nobody[@]}" test -x "$greeter_client" || skip "the user 65534 cannot execute $greeter_client"

start_server --listen=127.0.0.1:0

output=$("${as_nobody[@]}" "$greeter_client" --target="$server_address" --timeout=30s) || fail "the call failed: $output"
[[ $output == *"Hello, world!"* ]] || fail "no greeting in: $output"
[[ $(transport_of "$output") == tcp:*user* ]] || fail "expected tcp because of the user, got: $output"

if error=$(SHMRPC_TRANSPORT=shm "${as_nobody[@]}" "$greeter_client" --target="$server_address" 2>&1); then
  fail "shared memory for another user: $error"
fi
[[ $error == *user* ]] || fail "the error does not name the user: $error"
