#!/usr/bin/env bash
# Runs the Autobahn cases of PyPI's kosoku against examples/echo.rs, which echoes over the session code.
# Fails unless scripts/conformance.py accepts every case. Its tools and reports are in target/.
set -euo pipefail
cd "$(dirname "$0")/.."

work=${CARGO_TARGET_DIR:-target}/conformance
kosoku=target/clients/python/bin/kosoku
mkdir -p "$work"
[ -x "$kosoku" ] || scripts/setup.sh

cargo build --locked --quiet --example echo
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${CARGO_TARGET_DIR:-target}/debug/examples/echo" "127.0.0.1:$port" &
echo=$!
trap 'kill $echo 2>/dev/null; wait $echo 2>/dev/null || true' EXIT
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 $echo 2>/dev/null || { echo "conformance: the echo server did not start" >&2; exit 1; }
    sleep 0.05
done

# 12 and 13 test compression, which the server doesn't offer. The exit code ignores strictness; the report shows it.
rm -rf "$work/report"
timeout 600 "$kosoku" --exclude '12.*' --exclude '13.*' --outdir "$work/report" "127.0.0.1:$port" || true
python3 scripts/conformance.py "$work/report/index.json"
