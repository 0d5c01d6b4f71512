#!/bin/sh
# Checks and tests the Python client: lint, types, tests against two real nodes, and the packages.
#
#     SWITCHBOARD=target/debug/switchboard clients/python/test.sh [arguments of pytest]
#
# Needs Python 3.11 or newer, redis-server and PostgreSQL. VENV names another folder for the virtual environment.
set -eu
cd "$(dirname "$0")"

SWITCHBOARD=${SWITCHBOARD:-$(cd ../.. && pwd)/target/debug/switchboard}
case $SWITCHBOARD in
    /*) ;;
    *) SWITCHBOARD=${OLDPWD:-$PWD}/$SWITCHBOARD ;;
esac
[ -x "$SWITCHBOARD" ] || { echo "no server at $SWITCHBOARD: build it, or set SWITCHBOARD" >&2; exit 1; }
export SWITCHBOARD

VENV=${VENV:-.venv}
[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
# Installed as users have it, so that a file that is missing in the package is missed by the tests.
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .

"$VENV/bin/ruff" check --no-cache . ../../examples/bot
"$VENV/bin/ruff" format --no-cache --quiet --check . ../../examples/bot
"$VENV/bin/mypy" src tests ../../examples/bot/bot.py
"$VENV/bin/python" -m pytest -q "$@"
rm -rf dist
"$VENV/bin/python" -m build --no-isolation --outdir dist >dist.log 2>&1 || { cat dist.log; rm -f dist.log; exit 1; }
rm -f dist.log
ls dist
