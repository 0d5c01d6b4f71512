#!/usr/bin/env bash
# Part of fresh.sh that runs inside the new Debian, as its process 1: inside.sh <root|user|sudo> <run|make target>...
# Reads the environment variables for reaching package registries from standard input, as lines NAME=value.
# shellcheck disable=SC2317 # step calls the functions by name
set -uo pipefail

who=$1
shift
mapfile -t environment
failed=0
user=newcomer home=/home/newcomer path=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin
[ "$who" != root ] || { user=root home=/root path=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; }

# Runs a shell command in the clone as this user, with only the environment of a login.
as() { # <user> <command>
    setpriv --reuid "$1" --regid "$1" --init-groups env -i "${environment[@]}" HOME="$home" USER="$1" LOGNAME="$1" \
        PATH="$path" LANG=C.UTF-8 CARGO_TERM_COLOR=never bash -c "cd ~ && { ! [ -d switchboard ] || cd switchboard; } && $2" </dev/null
}

megabytes() { du -smx --exclude=/opt/rust --exclude=/.host / 2>/dev/null | cut -f1; }

# Runs one step and records its outcome, its duration and the growth of the disk.
step() { # <name> <command>...
    local name=$1 before start=$SECONDS outcome=ok
    shift
    before=$(megabytes)
    printf '\n══ %s: %s ══\n' "$who" "$name"
    "$@" || { outcome=FAILED; failed=1; }
    printf '%-5s %-28s %-7s %5d s %6d MB more\n' "$who" "$name" "$outcome" $((SECONDS - start)) $(($(megabytes) - before)) |
        tee -a /opt/measured
}

# Without sudo, setup must fail and print a line that root can paste unchanged.
paste_line() {
    local said line
    said=$(as "$user" "make setup" 2>&1) && { echo "setup succeeded without root: $said"; return 1; }
    line=$(grep -E '^\( .* \)$' <<<"$said") || { echo "setup printed no line to paste: $said"; return 1; }
    printf '%s\n\n# %s\n' "$said" "$line"
    env -i "${environment[@]}" HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -c "$line"
}

# No service of a package may run, and policy-rc.d must be removed again.
nothing_started() {
    ! [ -e /usr/sbin/policy-rc.d ] || { echo "policy-rc.d was left behind"; return 1; }
    local running
    running=$(cat /proc/[0-9]*/comm | grep -E '^(redis|postgres|nginx|prometheus)') || return 0
    echo "services were started: $running"
    return 1
}

port() { # Prints a free port, using only tools of a bare Debian.
    local port
    while port=$((20000 + RANDOM % 10000)); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break; done
    echo "$port"
}

# Sends an HTTP request with the shell alone.
http() { # <port> <method> <path> <token> <body>
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf '%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer %s\r\n' "$2" "$3" "$4" >&3
    printf 'Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' "${#5}" "$5" >&3
    timeout 20 cat <&3
    exec 3>&-
}

# Runs `make run` until it listens; then checks its health and its page, sends a message and reads it back over REST, and ends it.
try_it() {
    local clients admin token health page sent read_back pid deadline=$((SECONDS + 3600))
    clients=$(port) admin=$(port)
    as "$user" "LISTEN=127.0.0.1:$clients ADMIN_LISTEN=127.0.0.1:$admin exec make run" >/tmp/run.log 2>&1 &
    pid=$!
    until (exec 3<>"/dev/tcp/127.0.0.1/$clients") 2>/dev/null; do
        if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; then tail -30 /tmp/run.log; return 1; fi
        sleep 0.5
    done
    health=$(http "$clients" GET /api/health "" "")
    page=$(http "$clients" GET / "" "")
    # The lines of the README: a chat without a terminal sends its input and ends once it is stored.
    token=$(as "$user" "target/quick/switchboard token --dev --user alice")
    sent=$(as "$user" "echo hello | target/quick/switchboard chat --user alice --room lobby") || return 1
    read_back=$(http "$clients" GET /api/chat/conversations/lobby/messages "$token" "")
    printf '%s\n\n%s\n\n%s\n' "$health" "$sent" "$read_back"
    terminate switchboard
    wait "$pid" || { echo "make run exited with $?"; return 1; }
    grep -q '^HTTP/1.1 200' <<<"$page" && grep -q '<!doctype html>' <<<"$page" || { echo "the page of dev: $page"; return 1; }
    grep -q '^HTTP/1.1 200' <<<"$health" && grep -q '^HTTP/1.1 200' <<<"$read_back" && grep -q hello <<<"$read_back"
}

# Ends processes by name, because a bare Debian has no pkill. It sees only processes of this PID namespace.
terminate() {
    local folder
    for folder in /proc/[0-9]*; do
        [ "$(cat "$folder/comm" 2>/dev/null)" != "$1" ] || kill -TERM "${folder#/proc/}"
    done
}

step "clone" as "$user" "git -c advice.detachedHead=false clone -q /opt/switchboard.bundle switchboard"
if [ -e /opt/with-sudo ]; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends sudo >/dev/null
    echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/newcomer
fi
set_up=
for what in "$@"; do
    if [ "$what" = run ]; then
        step "make run" try_it
        continue
    fi
    # Only once, because the packages stay installed.
    if [ "$who" = user ] && [ -z "$set_up" ]; then step "setup's line, pasted by root" paste_line; fi
    set_up=yes
    step "make $what" as "$user" "make $what"
    step "nothing is left running" nothing_started
done
exit "$failed"
