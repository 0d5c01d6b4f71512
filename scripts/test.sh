#!/usr/bin/env bash
# Runs every part of the tests through its make target, continues after a failure, and ends with one summary.
# `scripts/test.sh fmt lint` runs only these parts. Logs are in target/test-logs. Fails if any part failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=scripts/needs.sh
. scripts/needs.sh

parts=("$@")
[ $# -gt 0 ] || parts=(setup fmt lint doc tests clients conformance torture deploy)

# What a part can't do without. Tests of the deployment skip themselves where a program is missing, and say so.
servers="cc openssl curl kill redis-server initdb nginx prometheus python3 node clients"
declare -A needs=(
    [fmt]="cargo-fmt"
    [lint]="cargo-clippy cc"
    [doc]="cargo cc"
    [unit]="cargo cc"
    [tests]="cargo $servers"
    [clients]="cargo cc redis-server initdb node npm venv"
    [conformance]="cargo cc python3 clients"
    [torture]="cargo $servers"
    [deploy]="venv npm"
)

logs=target/test-logs
rm -rf "$logs" && mkdir -p "$logs" || exit 1
summary=() messages=()
passed=0 failed=0 skipped=0
trap 'exit 130' INT
# The tests open many sockets; the usual soft limit of 1,024 open files is too low.
ulimit -n "$(ulimit -Hn)" 2>/dev/null

lacking() { # <part>
    local need found=()
    for need in ${needs[$1]:-}; do
        has "$need" && continue
        [ "$need" = clients ] && need="the test clients"
        [ "$need" = venv ] && need="Python's venv"
        found+=("$need")
    done
    local IFS=,
    echo "${found[*]//,/, }"
}

# Adds up "<number> <word>" over the closing lines of cargo test ("test result: …") and pytest ("… in 1.2s").
count() { # <log> <word>...
    local log=$1 IFS='|'
    shift
    grep -E '^test result: |^=* ?[0-9]+ (passed|failed|skipped|error|warning).* in [0-9.]+s' "$log" |
        grep -oE "[0-9]+ ($*)\b" | awk '{ sum += $1 } END { print sum + 0 }'
}

# Lists each reason for a skip with its count: cargo's `test x ... ignored, reason`, pytest's `SKIPPED [2] x: reason`.
reasons() { # <log>
    sed -nE -e 's/^test .* \.\.\. ignored, (.*)/1 \1/p' -e 's/^test .* \.\.\. ignored$/1 no reason given/p' \
        -e 's/^SKIPPED \[([0-9]+)\] [^ ]+: (.*)/\1 \2/p' "$1" |
        awk '{ times = $1; sub(/^[0-9]+ /, ""); sum[$0] += times } END { for (why in sum) print "skipped " sum[why] ": " why }'
}

# Lists the names of failed tests, as cargo and pytest print them.
failures() { # <log>
    sed -nE -e 's/^test (.*) \.\.\. FAILED$/failed: \1/p' -e 's/^(FAILED|ERROR) ([^ ]+).*/failed: \2/p' "$1" | sort -u
}

# Prints the first lines of what each failed test of a log said: cargo's "---- name stdout ----", pytest's lines with E,
# and, of tests whose output is not captured, each panic.
told() { # <log>
    awk '
        /^---- .* stdout ----$/ { left = 9 }
        /^failures:$/ || /^test result: / { left = 0 }
        /^thread .* panicked at / && left == 0 { left = 8 }
        /^E  / && left == 0 { if (said++ < 8) print; next }
        /^_+ .* _+$/ { said = 0; print; next }
        left > 0 { left--; print }
    ' "$1" | cut -c1-600 | head -60
}

note() { # <part> <outcome> <seconds> <what more>
    summary+=("$(printf '  %-12s %-8s %5ss  %s' "$1" "$2" "$3" "$4")")
}

run() { # <part>
    local part=$1 log=$logs/$1.log start=$SECONDS lacks status outcome=passed ran_passed ran_failed ran_skipped
    lacks=$(lacking "$part")
    if [ -n "$lacks" ]; then
        skipped=$((skipped + 1))
        note "$part" skipped 0 "missing: $lacks"
        return
    fi
    printf '\n── make %s ──\n' "$part"
    # Torture runs are short here, and on every engine; `make torture` has longer ones.
    ENGINE=all TORTURE_SECONDS=${TORTURE_SECONDS:-20} make --no-print-directory "$part" 2>&1 | tee "$log.raw"
    status=${PIPESTATUS[0]}
    # Remove colours, so that the functions above can parse the log.
    sed 's/\x1b\[[0-9;]*m//g' "$log.raw" >"$log" && rm "$log.raw"
    ran_passed=$(count "$log" passed) ran_failed=$(count "$log" failed error errors)
    ran_skipped=$(count "$log" ignored skipped)
    # A part without tests counts as one test, and so does a failure outside any test.
    if [ "$status" != 0 ]; then
        outcome=failed
        [ "$ran_failed" -gt 0 ] || ran_failed=1
    elif [ $((ran_passed + ran_failed + ran_skipped)) = 0 ]; then
        ran_passed=1
    fi
    passed=$((passed + ran_passed)) failed=$((failed + ran_failed)) skipped=$((skipped + ran_skipped))
    [ "$outcome" = passed ] || messages+=("── $part ──" "$(told "$log")")
    note "$part" "$outcome" $((SECONDS - start)) "$ran_passed passed, $ran_failed failed, $ran_skipped skipped"
    while read -r line; do summary+=("                 $line"); done < <(failures "$log"; reasons "$log")
}

for part in "${parts[@]}"; do
    run "$part"
    # Without servers, at least the unit tests run.
    if [ "$part" = tests ] && [ -n "$(lacking tests)" ]; then run unit; fi
done

if [ ${#messages[@]} -gt 0 ]; then
    printf '\nWhat failed tests said:\n'
    printf '%s\n' "${messages[@]}"
fi
printf '\nSummary (logs: %s):\n' "$logs"
printf '%s\n' "${summary[@]}"
printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
