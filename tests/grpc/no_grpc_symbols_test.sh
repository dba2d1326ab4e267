#!/usr/bin/env bash
# usage: no_grpc_symbols_test.sh MAIN_LIBRARY PROGRAM_WITHOUT_GRPC PROGRAM_WITH_GRPC
# The main library needs nothing of the gRPC library, and a program that does not ask for it does not load it.
set -euo pipefail

symbols=$(nm --undefined-only "$1" | grep -E ' U (_ZN[VKO]*(St)?4grpc|grpc_|gpr_)' || true)
if [[ -n $symbols ]]; then
  echo "$1 needs the gRPC library:" >&2
  echo "$symbols" | head >&2
  exit 1
fi
loads_grpc() {
  local libraries
  libraries=$(ldd "$1")  # not into a grep -q, which may end first: ldd would fail then
  [[ $libraries == *libgrpc* || $libraries == *libgpr* ]]
}
if loads_grpc "$2"; then
  echo "$2 loads the gRPC library" >&2
  exit 1
fi
# That the search finds something where there is something:
if ! loads_grpc "$3"; then
  echo "$3 does not load the gRPC library" >&2
  exit 1
fi
