#!/usr/bin/env bash
# Checks a model in all its states with spin.
#
#   check_model.sh MODEL.pml holds|fails [-DNAME...]
#
# "holds": there is no error in any state. "fails": there is one; so a model that is wrong on purpose (-DMUTANT_...) shows
# that the check would notice. Exit code 77: there is no spin here.
set -euo pipefail

model=$(realpath "$1")
expected=$2
shift 2

if ! command -v spin >/dev/null || ! command -v cc >/dev/null; then
  echo "check_model: spin or a C compiler is missing: install the packages of .ci/packages" >&2
  exit 77
fi

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"

if ! spin -a "$@" "$model" >spin.log 2>&1; then
  cat spin.log >&2
  exit 1
fi
optimise=-O2
if [[ $expected == fails ]]; then optimise=-O0; fi # most of them fail before the compiler would be done
cc $optimise -w -DSAFETY -DNOCLAIM -DCOLLAPSE -DNOFAIR -o pan pan.c

# -E: that a process cannot go on is no error in itself; the models say what is.
./pan -E -m2000000 >pan.log 2>&1 || true
grep -E '^(State-vector|pan:)|states, stored' pan.log || true

if grep -qE 'max search depth too small|Search not completed|out of memory|pan: .*rror' pan.log &&
  ! grep -q 'assertion violated' pan.log; then
  cat pan.log >&2
  exit 1
fi
case $expected in
  holds) grep -q 'errors: 0$' pan.log || ! echo "check_model: FAILED: $model $*" >&2 ;;
  fails) grep -q 'assertion violated' pan.log || ! echo "check_model: no error was found in $model $*" >&2 ;;
  *) ! echo "check_model: neither \"holds\" nor \"fails\": $expected" >&2 ;;
esac
