#!/usr/bin/env bash
# Runs every test of the JavaScript client: frames against asyncapi.yaml, types, sizes, vectors, the property test, and the tests
# in Chromium over two nodes. Fetches npm packages if they are missing, and Node.js if it is too old (scripts/node.sh). SWITCHBOARD
# names the program of the server, by default target/debug/switchboard; CHROMIUM a browser. Tests that lack the server, Redis,
# PostgreSQL or Chromium are skipped, and say so.
set -euo pipefail
cd "$(dirname "$0")"
SWITCHBOARD=$(realpath -m "${SWITCHBOARD:-../../target/debug/switchboard}")
export SWITCHBOARD

# Debian 12 has Node.js 18, which lacks what the tests need.
if ! newer=$(../../scripts/node.sh); then
    echo "SKIPPED [1] clients/js: Node.js 20 or later is needed and could not be fetched"
    echo "0 passed, 0 failed, 1 skipped in 0.0s"
    exit 0
fi
PATH=${newer:+$newer:}$PATH

# npm writes this file at the end of an installation.
if [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --ignore-scripts --no-audit --no-fund --silent
    touch node_modules/.package-lock.json
fi

node scripts/build.mjs
node scripts/frames.mjs --check
node_modules/.bin/tsc -p tests
node_modules/.bin/tsc -p demo
node scripts/demo.mjs --check
node scripts/sizes.mjs
exec node --test --test-concurrency=2 --test-reporter=./scripts/reporter.mjs tests/*.test.mjs tests/e2e/*.test.mjs
