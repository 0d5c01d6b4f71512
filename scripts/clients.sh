#!/usr/bin/env bash
# Runs the tests of the client SDKs in clients/ against target/debug/switchboard, which it builds. As root on Debian, it installs
# Chromium; without it, the tests in a browser are skipped, and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/needs.sh
. scripts/needs.sh

if [ "$(id -u)" = 0 ] && ! has chromium && ! install_packages "${PACKAGES[chromium]}"; then
    echo "clients: could not install ${PACKAGES[chromium]}; the tests in a browser will be skipped" >&2
fi
[ -n "${SWITCHBOARD:-}" ] || cargo build --locked
status=0
clients/js/test.sh || status=1
clients/python/test.sh || status=1
exit $status
