# shellcheck shell=bash
# What the tests of this folder that run the hello example share. Source it with the paths of greeter_server and
# greeter_client as arguments.
# shellcheck source=tests/fault/server.sh
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

greeter_server=$1
# shellcheck disable=SC2034  # for the script that sources this
greeter_client=$2

# start_server [FLAG...]: see start_server_process.
start_server() { start_server_process "$greeter_server" "$@"; }

# The transport, and why, that a client's output tells.
transport_of() {
  sed -n 's/^transport: //p' <<<"$1"
}
