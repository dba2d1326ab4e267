# shellcheck shell=bash
# Two hosts on this machine: network namespaces of the script's own, joined by a veth pair, 192.0.2.1 (the server's) and
# 192.0.2.2. To be sourced by a script that has `scratch` and `skip`; its cleaning up calls delete_two_hosts.

server_namespace=shmrpc-server-$$
client_namespace=shmrpc-client-$$

make_two_hosts() {
  ((EUID == 0)) || skip "needs root, to make network namespaces"
  command -v ip >/dev/null || skip "needs the command ip (Debian: iproute2)"
  ip netns add "$server_namespace" 2>"$scratch/ip.err" || skip "cannot make network namespaces: $(cat "$scratch/ip.err")"
  ip netns add "$client_namespace"
  # Both ends are made where they belong: the host's own namespace is not touched.
  ip -n "$server_namespace" link add eth0 type veth peer name eth0 netns "$client_namespace" 2>"$scratch/ip.err" ||
    skip "cannot make a veth pair: $(cat "$scratch/ip.err")"
  ip -n "$server_namespace" address add 192.0.2.1/24 dev eth0
  ip -n "$client_namespace" address add 192.0.2.2/24 dev eth0
  local namespace
  for namespace in "$server_namespace" "$client_namespace"; do
    ip -n "$namespace" link set lo up
    ip -n "$namespace" link set eth0 up
  done
}

delete_two_hosts() {
  ip netns delete "$server_namespace" 2>/dev/null || true
  ip netns delete "$client_namespace" 2>/dev/null || true
}
