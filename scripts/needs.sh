# shellcheck shell=bash
# Programs that the tests need, their Debian packages, and the installation of these.
# Sourced by setup.sh, tools.sh and test.sh.

# Needs, each with the packages that provide it.
# shellcheck disable=SC2034 # the scripts that source this use it
declare -rA PACKAGES=(
    [cc]="gcc libc6-dev"
    [make]=make
    [certificates]=ca-certificates
    [openssl]=openssl
    [curl]=curl
    [kill]=procps
    [ip]=iproute2
    [unshare]=util-linux
    [redis-server]=redis-server
    [initdb]=postgresql
    [pgbouncer]=pgbouncer
    [nginx]=nginx-light
    [prometheus]=prometheus
    [python3]=python3
    [venv]=python3-venv
    [node]=nodejs
    [npm]=npm
    [chromium]=chromium
    [buildah]=buildah
    [podman]=podman
    [runc]=runc
    [debootstrap]=debootstrap
)

# True if a need is met. `type -P` finds only programs, not bash's built-in commands such as kill.
has() {
    case $1 in
        # A C compiler with the headers of the C library, for SQLite and the cryptography.
        cc) type -P cc >/dev/null && echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1 ;;
        certificates) [ -s /etc/ssl/certs/ca-certificates.crt ] || ! type -P apt-get >/dev/null ;;
        # Debian installs PostgreSQL's programs outside PATH.
        initdb) type -P initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
        # A system may have python3 without venv, and venv without pip.
        venv) python3 -c 'import venv, ensurepip' 2>/dev/null ;;
        clients) [ -e "$CLIENTS_DONE" ] ;;
        *) PATH=$PATH:/usr/sbin:/sbin type -P "$1" >/dev/null ;;
    esac
}

# This file exists once setup.sh has fetched the test clients. Change its name whenever the set of clients changes.
# shellcheck disable=SC2034 # setup.sh uses it
readonly CLIENTS_DONE=target/clients/done-5

# Prints the line that installs packages as root. setup.sh runs it, or shows it to be pasted.
# The tests start their own servers, so Debian must not start its servers: a policy-rc.d that returns 101 forbids that.
install_line() { # <package>...
    local policy=/usr/sbin/policy-rc.d
    printf '( [ -e %s ] || { trap "rm -f %s" EXIT; trap "exit 1" HUP INT TERM; ' "$policy" "$policy"
    printf "printf '#!/bin/sh\\\\nexit 101\\\\n' >%s; chmod +x %s; }; " "$policy" "$policy"
    printf 'apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends %s >/dev/null )\n' "$*"
}

# Runs that line as root or with sudo. Fails if neither is possible, if apt is missing or if apt fails.
install_packages() { # <package>...
    local root=()
    type -P apt-get >/dev/null || return 1
    if [ "$(id -u)" != 0 ]; then
        type -P sudo >/dev/null && sudo -n true 2>/dev/null || return 1
        root=(sudo -n)
    fi
    echo "installing with apt-get: $*"
    "${root[@]}" sh -c "$(install_line "$@")"
}
