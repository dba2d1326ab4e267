#!/usr/bin/env bash
# Client and server on one host in two network namespaces: shared memory cannot be arranged, so the same call goes over
# TCP, and the channel says that the network namespace is why. Needs root.
# shellcheck source=tests/fault/hello.sh
. "$(dirname "$0")/hello.sh"

# shellcheck source=tests/fault/two_hosts.sh
. "$(dirname "$0")/two_hosts.sh"
clean_up_namespaces() {
  clean_up
  delete_two_hosts
}
trap clean_up_namespaces EXIT

make_two_hosts

server_prefix=(ip netns exec "$server_namespace")
start_server --listen=0.0.0.0:0
port=${server_address##*:}

output=$(ip netns exec "$client_namespace" "$greeter_client" --target="192.0.2.1:$port" --timeout=30s) ||
  fail "the call from the other namespace failed: $output"
[[ $output == *"Hello, world!"* ]] || fail "no greeting in: $output"
transport=$(transport_of "$output")
[[ $transport == tcp:*"network namespace"* ]] || fail "expected tcp because of the network namespace, got: $transport"

# In the server's own namespace the same server is reached over shared memory.
output=$(ip netns exec "$server_namespace" "$greeter_client" --target="192.0.2.1:$port" --timeout=30s) ||
  fail "the call from the same namespace failed"
[[ $(transport_of "$output") == shm ]] || fail "expected shm inside the namespace, got: $output"

# Insisting on shared memory from outside fails, and says why.
if error=$(SHMRPC_TRANSPORT=shm ip netns exec "$client_namespace" "$greeter_client" --target="192.0.2.1:$port" 2>&1); then
  fail "shared memory across network namespaces: $error"
fi
[[ $error == *"network namespace"* ]] || fail "the error does not name the network namespace: $error"
