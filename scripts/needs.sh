# shellcheck shell=bash
# What the tests need from the machine, which Debian packages have it, and how these are installed.
# Sourced by setup.sh, tools.sh and test.sh.

# A need, and the packages that meet it.
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
    [nginx]=nginx-light
    [prometheus]=prometheus
    [python3]=python3
    [venv]=python3-venv
    [node]=nodejs
    [npm]=npm
    [buildah]=buildah
    [podman]=podman
    [runc]=runc
    [debootstrap]=debootstrap
)

# Whether a need is met. `type -P` finds programs only, not what bash has built in, such as kill.
has() {
    case $1 in
        # A C compiler, for SQLite and the cryptography, with the headers of the C library.
        cc) type -P cc >/dev/null && echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1 ;;
        certificates) [ -s /etc/ssl/certs/ca-certificates.crt ] || ! type -P apt-get >/dev/null ;;
        # Debian keeps PostgreSQL's programs out of PATH.
        initdb) type -P initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
        # python3 can be there without venv, and venv without pip.
        venv) python3 -c 'import venv, ensurepip' 2>/dev/null ;;
        clients) [ -e "$CLIENTS_DONE" ] ;;
        *) PATH=$PATH:/usr/sbin:/sbin type -P "$1" >/dev/null ;;
    esac
}

# Exists once setup.sh has fetched the test clients. Another set of clients gets another name.
# shellcheck disable=SC2034 # setup.sh uses it
readonly CLIENTS_DONE=target/clients/done-3

# The one line that installs packages as root. setup.sh runs it, or prints it for somebody to paste.
# The tests start servers of their own, so Debian must not start its: a policy-rc.d that answers 101 forbids that.
install_line() { # <package>...
    local policy=/usr/sbin/policy-rc.d
    printf '( [ -e %s ] || { trap "rm -f %s" EXIT; trap "exit 1" HUP INT TERM; ' "$policy" "$policy"
    printf "printf '#!/bin/sh\\\\nexit 101\\\\n' >%s; chmod +x %s; }; " "$policy" "$policy"
    printf 'apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends %s >/dev/null )\n' "$*"
}

# Runs that line as root or with sudo. Fails where neither is possible, where apt is missing and where apt fails.
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
