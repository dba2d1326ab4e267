#!/usr/bin/env bash
# Client and server on one host in two network namespaces: shared memory cannot be arranged, so the same call goes over
# TCP, and the channel says that the network namespace is why. Needs root.
# shellcheck source=tests/fault/hello.sh
. "$(dirname "$0")/hello.sh"

((EUID == 0)) || skip "needs root, to make network namespaces"
command -v ip >/dev/null || skip "needs the command ip (Debian: iproute2)"

server_namespace=shmrpc-server-$$
client_namespace=shmrpc-client-$$
clean_up_namespaces() {
  clean_up
  ip netns delete "$server_namespace" 2>/dev/null || true
  ip netns delete "$client_namespace" 2>/dev/null || true
}
trap clean_up_namespaces EXIT

ip netns add "$server_namespace" 2>"$scratch/ip.err" || skip "cannot make network namespaces: $(cat "$scratch/ip.err")"
ip netns add "$client_namespace"
# Both ends are made where they belong: the host's own namespace is not touched.
ip -n "$server_namespace" link add eth0 type veth peer name eth0 netns "$client_namespace" 2>"$scratch/ip.err" ||
  skip "cannot make a veth pair: $(cat "$scratch/ip.err")"
ip -n "$server_namespace" address add 192.0.2.1/24 dev eth0
ip -n "$client_namespace" address add 192.0.2.2/24 dev eth0
for namespace in "$server_namespace" "$client_namespace"; do
  ip -n "$namespace" link set lo up
  ip -n "$namespace" link set eth0 up
done

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
