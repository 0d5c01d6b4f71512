#!/usr/bin/env bash
# Checks for the programs that build and tests need, and installs missing ones with apt, as root or with sudo.
# If it can't install, it prints the line to paste as root, and fails. Installs nothing if nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/needs.sh
. scripts/needs.sh

packages=()
faults=()

needs=(cc make certificates openssl curl kill ip unshare redis-server initdb pgbouncer nginx prometheus python3 venv node npm)
# Elsewhere, the package of this name may not contain the browser; without one, its tests are skipped.
! grep -qs '^ID=debian$' /etc/os-release || needs+=(chromium)
for need in "${needs[@]}"; do
    # shellcheck disable=SC2206 # a need may be met by two packages
    has "$need" || packages+=(${PACKAGES[$need]})
done

if ! has cargo; then
    faults+=("Rust: see https://rustup.rs")
else
    for component in fmt:rustfmt clippy:clippy; do
        cargo "${component%:*}" --version >/dev/null 2>&1 && continue
        echo "setup: adding ${component#*:}"
        rustup component add "${component#*:}" || faults+=("${component#*:}: rustup component add ${component#*:}")
    done
fi

if [ ${#packages[@]} -gt 0 ] && ! install_packages "${packages[@]}"; then
    faults+=("packages: ${packages[*]}. On Debian or Ubuntu, paste this line as root:
$(install_line "${packages[@]}")")
fi

# PostgreSQL refuses to run as root, so root's tests run it as the user that its package creates.
if [ "$(id -u)" = 0 ] && ! getent passwd postgres >/dev/null; then
    faults+=("a user postgres, because PostgreSQL can't run as root: useradd --system postgres")
fi

# The test clients and the conformance cases, each from its own registry.
clients=target/clients
if [ ${#faults[@]} -eq 0 ] && ! has clients; then
    echo "setup: fetching test clients into $clients"
    rm -rf "$clients" && mkdir -p "$clients"
    {
        python3 -m venv "$clients/python" &&
            "$clients/python/bin/pip" install --quiet --disable-pip-version-check \
                kosoku==0.1.0 websockets==15.0.1 pytest==9.2.0 pytest-asyncio==1.5.0 schemathesis==4.32.5 \
                openapi-python-client==0.29.1 &&
            npm install --silent --no-audit --no-fund --no-save --prefix "$clients" \
                ws@8 react@18 react-test-renderer@18 sucrase@3 jsdom@26 &&
            mkdir "$clients/generators" &&
            cp tests/clients/generated/package.json tests/clients/generated/package-lock.json "$clients/generators" &&
            npm ci --silent --no-audit --no-fund --ignore-scripts --prefix "$clients/generators" &&
            touch "$CLIENTS_DONE"
    } || faults+=("the packages of the test clients, from PyPI and npm: their registries could not be reached")
fi

# The JavaScript client's tests need a newer Node.js than Debian 12 has.
if [ ${#faults[@]} -eq 0 ] && ! scripts/node.sh >/dev/null; then
    faults+=("Node.js 20 or later with npm, for the tests of the JavaScript client")
fi

if [ ${#faults[@]} -gt 0 ]; then
    echo "setup: missing:" >&2
    printf '  %s\n' "${faults[@]}" >&2
    exit 1
fi
echo "setup: nothing is missing: $(cargo --version), $(redis-server --version | cut -d' ' -f1-3), $(python3 --version)"
