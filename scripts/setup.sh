#!/usr/bin/env bash
# Looks for what the build and the tests need, and installs what is lacking with apt, as root or with sudo.
# Where that can't be done, it says what to install and fails. Installs nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
faults=()

lacks() { ! command -v "$1" >/dev/null 2>&1; }

# A C compiler, for SQLite and the cryptography.
if lacks cc || ! echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1; then packages+=(gcc libc6-dev); fi
lacks make && packages+=(make)
lacks openssl && packages+=(openssl)
lacks curl && packages+=(curl ca-certificates)
lacks redis-server && packages+=(redis-server)
# Debian keeps PostgreSQL's programs out of PATH.
if lacks initdb && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then packages+=(postgresql); fi
lacks nginx && ! [ -x /usr/sbin/nginx ] && packages+=(nginx-light)
lacks prometheus && packages+=(prometheus)
# python3 can be there without venv, and venv without pip.
if lacks python3; then
    packages+=(python3 python3-venv)
elif ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    packages+=(python3-venv)
fi

if lacks node || lacks npm; then packages+=(nodejs npm); fi

if lacks cargo; then
    faults+=("Rust: see https://rustup.rs")
else
    for component in fmt:rustfmt clippy:clippy; do
        cargo "${component%:*}" --version >/dev/null 2>&1 && continue
        echo "setup: adding ${component#*:}"
        rustup component add "${component#*:}" || faults+=("${component#*:}: rustup component add ${component#*:}")
    done
fi

install() {
    local root=()
    if [ "$(id -u)" != 0 ]; then
        if lacks sudo || ! sudo -n true 2>/dev/null; then return 1; fi
        root=(sudo -n)
    fi
    lacks apt-get && return 1
    echo "setup: installing ${packages[*]}"
    # The tests start servers of their own, so Debian need not start its.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
        "${root[@]}" chmod +x "$policy"
        # shellcheck disable=SC2064 # now, while the names are known
        trap "${root[*]} rm -f $policy" EXIT
    fi
    "${root[@]}" apt-get update -qq || true
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
}

if [ ${#packages[@]} -gt 0 ] && ! install; then
    faults+=("packages: apt-get install ${packages[*]}   (as root, or their like elsewhere)")
fi

# PostgreSQL refuses to run as root, so as root the tests run it as the user that its package makes.
if [ "$(id -u)" = 0 ] && ! getent passwd postgres >/dev/null; then
    faults+=("a user postgres, since PostgreSQL can't run as root: useradd --system postgres")
fi

# The clients that the tests run, and the conformance cases, each from its own registry.
clients=target/clients
if [ ${#faults[@]} -eq 0 ] && [ ! -e "$clients/done-3" ]; then
    echo "setup: fetching test clients into $clients"
    rm -rf "$clients" && mkdir -p "$clients"
    {
        python3 -m venv "$clients/python" &&
            "$clients/python/bin/pip" install --quiet --disable-pip-version-check \
                kosoku==0.1.0 websockets==15.0.1 pytest==9.2.0 pytest-asyncio==1.5.0 &&
            npm install --silent --no-audit --no-fund --no-save --prefix "$clients" \
                ws@8 react@18 react-test-renderer@18 sucrase@3 jsdom@26 &&
            touch "$clients/done-3"
    } || faults+=("the packages of the test clients, from PyPI and npm: their registries could not be reached")
fi

if [ ${#faults[@]} -gt 0 ]; then
    echo "setup: this is lacking:" >&2
    printf '  %s\n' "${faults[@]}" >&2
    exit 1
fi
echo "setup: all there: $(cargo --version), $(redis-server --version | cut -d' ' -f1-3), $(python3 --version)"
