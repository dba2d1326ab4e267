#!/usr/bin/env bash
# What docs/from-grpc.sed cannot move does not compile afterwards, line by line.
#   unmoved_test.sh SCRIPT SOURCE COMPILER [OPTION...]
set -euo pipefail
script=$1 source=$2
shift 2
moved=$(mktemp --suffix=.cc)
errors=$(mktemp)
trap 'rm -f "$moved" "$errors"' EXIT
sed -E -z -f "$script" "$source" >"$moved"

if LC_ALL=C "$@" -fsyntax-only "$moved" 2>"$errors"; then
  echo "unmoved_test: it compiles" >&2
  exit 1
fi
failed=0
while IFS=: read -r line text; do
  if ! grep -q "^$moved:$line:[0-9]*: error:" "$errors"; then
    echo "unmoved_test: no error for: $text" >&2
    failed=1
  fi
done < <(grep -n '// stays' "$moved")
(($(grep -c '// stays' "$moved") == $(grep -c '^  .*// stays' "$source"))) || { echo "unmoved_test: a line has gone" >&2; failed=1; }
((failed == 0)) || { cat "$errors" >&2; exit 1; }
