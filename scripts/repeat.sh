#!/usr/bin/env bash
# Runs every test binary many times on a loaded machine, to find tests that fail sometimes.
#
#   scripts/repeat.sh [-n TIMES] [-j SIDE_BY_SIDE] [-b BURNERS] [-t SECONDS] [-f FILTER] [lib] [bins] [test...]
#
# -n  runs of each binary (20)                      -b  processes that only burn CPU (one per core)
# -j  binaries that run side by side (2 per core)   -t  seconds after which a run counts as hung (1200)
# -f  run only the tests whose name contains this text
#
# `lib` and `bins` are the unit tests, the others are named as in tests/; without names, all of them run. Ignored tests
# don't run. The log of each failure stays in target/repeat, and the end lists them. Fails if any run failed.
set -euo pipefail
cd "$(dirname "$0")/.."

export seconds=1200 filter="" logs=$PWD/target/repeat
times=20 jobs=$((2 * $(nproc))) burners=$(nproc)
usage() { sed -n '4,8p' "$0" | cut -c3- >&2; exit 64; }
number() { [[ $OPTARG =~ ^[0-9]+$ ]] || usage; }
while getopts n:j:b:t:f: option; do
    case $option in
        n) number; times=$OPTARG ;;
        j) number; jobs=$OPTARG ;;
        b) number; burners=$OPTARG ;;
        t) number; seconds=$OPTARG ;;
        f) filter=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))

rm -rf "$logs" && mkdir -p "$logs"
# The tests open many sockets; the usual soft limit of 1,024 open files is too low.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

targets=()
for name in "$@"; do
    case $name in lib | bins) targets+=("--$name") ;; *) targets+=(--test "$name") ;; esac
done

# Lists each binary as "<name> <path>".
cargo test --locked --no-run --message-format=json-render-diagnostics "${targets[@]}" | python3 -c '
import json, sys

for line in sys.stdin:
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
        print(message["target"]["name"], message["executable"])
' >"$logs/binaries"

# Runs one binary once; keeps its log if it fails.
# shellcheck disable=SC2317 # xargs calls it
one() { # <round> <name> <path>
    local log=$logs/$2-${3##*-}.$1.log status=0
    # In the foreground, so that ^C reaches it.
    timeout --foreground --kill-after 30 "$seconds" "$3" ${filter:+"$filter"} >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" = 0 ]; then
        rm "$log"
        echo "$2" >>"$logs/passed"
        return
    fi
    case $status in 124 | 137) echo "test (hung: ended after $seconds s) ... FAILED" >>"$log" ;; esac
    grep -q '^test .* \.\.\. FAILED$' "$log" || echo "test (ended with $status) ... FAILED" >>"$log"
    sed -nE "s|^test (.*) \.\.\. FAILED$|$2: \1\t$log|p" "$log" >>"$logs/failed"
    echo "repeat: $2 failed in run $1: $log"
}
export -f one

pids=()
# shellcheck disable=SC2317 # the trap calls it
finish() { [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true; }
trap finish EXIT
trap 'exit 130' INT TERM HUP
for ((i = 0; i < burners; i++)); do
    while :; do :; done &
    pids+=($!)
done

touch "$logs/passed" "$logs/failed"
SECONDS=0
# The rounds are the outer loop, so that different binaries run side by side.
for ((round = 1; round <= times; round++)); do
    sed "s/^/$round /" "$logs/binaries"
done | tr ' \n' '\0\0' | xargs -0 -n 3 -P "$jobs" bash -c 'one "$@"' one

echo "repeat: $(wc -l <"$logs/passed") of $((times * $(wc -l <"$logs/binaries"))) runs passed" \
    "($jobs side by side, $burners burners, $SECONDS s)"
[ -s "$logs/failed" ] || exit 0
cut -f1 "$logs/failed" | sort | uniq -c | sort -rn | while read -r count name; do
    echo "$count × $name"
    grep -F "$name"$'\t' "$logs/failed" | cut -f2 | sort -u | sed 's/^/    /'
done
exit 1
