#!/usr/bin/env bash
# Proves that a bare Debian 12 is enough. Makes one in a folder (debootstrap: minbase, a C compiler, make, git), mounts
# this machine's Rust into it, clones the last commit, and runs the commands of a newcomer there.
#
#   scripts/fresh.sh [root|user|sudo|both] [run|test|both|<make target>...]
#
# root    as root
# user    as a user without sudo: setup must fail, and root runs the line that it prints
# sudo    as a user with passwordless sudo
# both    root, then user, each on a new Debian (the default)
#
# FRESH_MIRROR is the Debian mirror; TMPDIR is where the folder is made (several GB for a whole test).
# The mounts are in a mount namespace of the script's own, and what runs is in a PID namespace: both end with the script,
# even when it is killed.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DEBIAN=bookworm RUST=/opt/rust

usage() { sed -n '5,10p' "$0" | cut -c3- >&2; exit 64; }
case ${1:-both} in root | user | sudo) whom=("$1") ;; both) whom=(root user) ;; *) usage ;; esac
case ${2:-both} in both) what=(run test) ;; -*) usage ;; *) what=("${@:2}") ;; esac

fail() { echo "fresh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "debootstrap needs root: run this script with sudo"
for program in debootstrap unshare setpriv pivot_root git rustc; do
    PATH=$PATH:/usr/sbin:/sbin type -P "$program" >/dev/null || fail "$program is missing (apt-get install debootstrap util-linux git)"
done
toolchain=$(rustc --print sysroot)
if [ ! -x "$toolchain/bin/cargo" ] || [ "$toolchain" = /usr ]; then fail "$toolchain is not a rustup toolchain, which this script needs to mount it: see https://rustup.rs"; fi
[ -z "$(git status --porcelain)" ] || echo "fresh: uncommitted changes are not tested" >&2

work=$(mktemp -d "${TMPDIR:-/var/tmp}/switchboard-fresh.XXXXXX")
running=
# shellcheck disable=SC2317 # the trap calls it
finish() {
    # Ends the PID namespace, and with it the mounts.
    [ -z "$running" ] || { kill -KILL "$running"; wait "$running"; } 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Copies this machine's access to package registries: configuration files, certificates, and variables.
carry() { # <root of the tree>
    local tree=$1 file home
    for file in /etc/pip.conf /etc/npmrc /etc/apt/apt.conf /etc/hosts /etc/resolv.conf; do
        [ ! -e "$file" ] || cp -L "$file" "$tree$file"
    done
    for file in /etc/apt/auth.conf.d/* /usr/local/share/ca-certificates/*.crt $(grep -lsE '^ *Acquire' /etc/apt/apt.conf.d/*); do
        [ ! -f "$file" ] || { mkdir -p "$tree${file%/*}" && cp "$file" "$tree$file"; }
    done
    chroot "$tree" update-ca-certificates >/dev/null 2>&1 || fail "update-ca-certificates failed"
    for home in root home/newcomer; do
        for file in .npmrc .pip/pip.conf .config/pip/pip.conf .cargo/config.toml; do
            [ ! -f "$HOME/$file" ] || install -D -m 600 "$HOME/$file" "$tree/$home/$file"
        done
    done
    chroot "$tree" chown -R newcomer: /home/newcomer
    local names='([a-z]+_proxy|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|CERT|PROXY|DEFAULT_TIMEOUT)'
    names+='|NPM_CONFIG_(REGISTRY|CAFILE)|CARGO_(HTTP|NET|REGISTRIES|SOURCE)_[A-Z_]+|SSL_CERT_(FILE|DIR)|NODE_EXTRA_CA_CERTS)'
    env | grep -iE "^$names=" >"$work/environment" || true
}

echo "fresh: making a Debian ($DEBIAN)"
debootstrap --variant=minbase --include=gcc,make,git,ca-certificates,libc6-dev "$DEBIAN" "$work/base" \
    ${FRESH_MIRROR:+"$FRESH_MIRROR"} >"$work/debootstrap.log" 2>&1 || { tail -5 "$work/debootstrap.log" >&2; fail "debootstrap failed"; }
# debootstrap leaves these files; a new machine has neither package files nor package lists.
rm -rf "$work/base/var/cache/apt/archives/"*.deb "$work/base/var/lib/apt/lists/"*
chroot "$work/base" useradd --create-home --shell /bin/bash newcomer
carry "$work/base"
# Without this option, installing takes minutes on a busy disk. Durability doesn't matter here, as the folder is removed.
echo force-unsafe-io >"$work/base/etc/dpkg/dpkg.cfg.d/unsafe-io"
git bundle create -q "$work/base/opt/switchboard.bundle" HEAD
mkdir -p "$work/base$RUST" "$work/base/.host"
cp scripts/fresh-inside.sh "$work/base/opt/inside.sh"

failed=0
for who in "${whom[@]}"; do
    echo "fresh: as $who: ${what[*]}"
    cp -a --reflink=auto "$work/base" "$work/tree"
    [ "$who" != sudo ] || touch "$work/tree/opt/with-sudo"
    # When this script dies, unshare dies, and with it all processes in the namespace.
    # shellcheck disable=SC2016 # the inner shell expands it
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private -- \
        bash -c '
            set -eu
            tree=$1 toolchain=$2 rust=$3 who=$4; shift 4
            # The limit of a new machine, independent of this machine.
            ulimit -Sn 1024
            mount --bind "$tree" "$tree"
            mount -t proc proc "$tree/proc"
            mount --rbind /dev "$tree/dev"
            mount --rbind /sys "$tree/sys"
            mount --bind "$toolchain" "$tree$rust"
            mount -o remount,bind,ro "$tree$rust"
            cd "$tree"
            pivot_root . .host
            exec chroot . /bin/bash -c "umount -l /.host && exec /bin/bash /opt/inside.sh \"\$@\"" inside "$who" "$@"
        ' mounts "$work/tree" "$toolchain" "$RUST" "$who" "${what[@]}" <"$work/environment" &
    running=$!
    wait "$running" || failed=1
    running=
    cat "$work/tree/opt/measured" >>"$work/measured" 2>/dev/null || echo "$who: ended before the first measurement" >>"$work/measured"
    rm -rf --one-file-system "$work/tree"
done

printf '\nfresh: measured on Debian %s, %s cores\n' "$DEBIAN" "$(nproc)"
cat "$work/measured"
exit "$failed"
