#!/usr/bin/env bash
# How long the library takes to build from nothing on two CPUs, generator and gRPC transport included, tests and examples
# not. Prints one line of JSON, as `shmrpc_bench --targets` does for the other targets. Takes no options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

limit=60
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
export CCACHE_DISABLE=1

# The first two CPUs that this process may use.
cpus=$(taskset -cp $$ | sed 's/.*: //' | tr , '\n' |
  awk -F- '{ for (cpu = $1; cpu <= (NF > 1 ? $2 : $1); ++cpu) print cpu }' | head -n 2 | paste -sd,)

begin=$(date +%s.%N)
{
  taskset -c "$cpus" cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER_LAUNCHER= \
    -DSHMRPC_BUILD_TESTS=OFF -DSHMRPC_BUILD_EXAMPLES=OFF
  taskset -c "$cpus" cmake --build "$build" --parallel 2
} >"$build/log" 2>&1 || {
  cat "$build/log" >&2
  exit 1
}
end=$(date +%s.%N)

awk -v begin="$begin" -v end="$end" -v limit="$limit" 'BEGIN {
  seconds = end - begin
  printf "{\"target\":\"library built from nothing, 2 CPUs\",\"figure\":\"seconds\",\"limit\":\"<= %d\",", limit
  printf "\"measured\":%.1f,\"reached\":%s,", seconds, seconds <= limit ? "true" : "false"
  printf "\"command\":\"tests/bench/build_time.sh\"}\n"
}'
