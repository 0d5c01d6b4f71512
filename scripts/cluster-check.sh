#!/usr/bin/env bash
# Proves the chart on a cluster: installs it by the lines of its README, runs `helm test`, looks what the network policy
# closes, replaces the nodes under load, lets a migration fail under --atomic, kills a node, takes the values of
# values-ha.yaml, takes Redis and PostgreSQL away and back, drains a machine, and uninstalls. Fails if anything acked is
# lost, doubled or out of order, a pod restarts, or something is left. Ends with a summary, and removes what it made,
# also after a failure.
#
#   KUBECONFIG=… scripts/cluster-check.sh --image switchboard:0.1.0 [--namespace NAME] [--values FILE]…
#                                         [--users N] [--away SECONDS] [--keep]
#
# --image      (or IMAGE) the image, which the machines of the cluster have or can pull
# --namespace  (or NAMESPACE) a namespace that does not exist yet; switchboard-check by default
# --values     more values for the chart, such as imagePullSecrets; as often as you like
# --users      users who send a message a second each and listen; 30 by default
# --away       seconds for which Redis and then PostgreSQL are away; 30 by default
# --keep       leave the namespace for a look at it
#
# REDIS_IMAGE, POSTGRES_IMAGE and PYTHON_IMAGE name other images than the official ones, STORAGE_CLASS another class
# than the default one for PostgreSQL's data. With REDIS_URL or DATABASE_URL, the check uses your server and does not
# take it away. The machine that is drained loses only the nodes of this check, and takes pods again afterwards.
# shellcheck disable=SC2329 # steps and conditions are called by their names
set -euo pipefail

usage() { sed -n '/^#   KUBECONFIG/,/^# shellcheck/p' "$0" | sed '$d' | cut -c3- >&2; exit 64; }
fail() { echo "cluster-check: $*" >&2; exit 1; }

image=${IMAGE:-} namespace=${NAMESPACE:-switchboard-check} users=30 away=30 keep='' values=()
while [ $# -gt 0 ]; do
    case $1 in
        --image) image=${2:?} ;;
        --namespace) namespace=${2:?} ;;
        --values) values+=(--values "$(realpath -e -- "${2:?}")") ;;
        --users) users=${2:?} ;;
        --away) away=${2:?} ;;
        --keep) keep=1; shift; continue ;;
        *) usage ;;
    esac
    shift 2
done
[ -n "${KUBECONFIG:-}" ] || fail "KUBECONFIG is not set: name the cluster to check, which this script disturbs"
[ -n "$image" ] || fail "no image: give --image, such as switchboard:0.1.0"
[[ $namespace =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] || fail "$namespace is no name of a namespace"
[[ $users =~ ^[0-9]+$ && $users -ge 6 ]] || fail "--users must be a number from 6 on"
[[ $away =~ ^[0-9]+$ ]] || fail "--away must be a number of seconds"
for program in kubectl helm openssl; do
    type -P "$program" >/dev/null || fail "$program is missing"
done
from=$PWD
cd "$(dirname "$0")/.."

readonly SELECTOR="cluster-check=$namespace" CHART_README=helm/switchboard/README.md DEPLOY=docs/operations/deploy.md
readonly NODES="$SELECTOR,app.kubernetes.io/component=node"
summary=() failed=0 stopped='' watcher=''
work=$(mktemp -d) logs=$(mktemp -d "${TMPDIR:-/tmp}/cluster-check.XXXXXX")

# ── Tools of the steps ──

# Waits for a condition, which may say in $work/why what it still lacks.
eventually() { # <seconds> <what> <command>...
    local seconds=$1 end=$((SECONDS + $1)) what=$2
    shift 2
    rm -f "$work/why"
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || fail "$what not within $seconds s$(cat "$work/why" 2>/dev/null)"
        sleep 1
    done
}

# Joins lines by commas.
listed() { paste -sd, | sed 's/,/, /g'; }

# Prints the one command of a document that begins with some words, its continued lines joined.
line() { # <document> <how it begins>
    local found
    found=$(sed -e ':more' -e '/\\$/{N;s/\\\n *//;b more' -e '}' "$1" | awk -v words="$2" 'index($0, words) == 1')
    [ -n "$found" ] && [ "$(wc -l <<<"$found")" = 1 ] || fail "$1 has not one command that begins with: $2"
    printf '%s\n' "$found"
}

# Replaces a part of a command that must be in it.
put() { # <command> <part> <replacement>
    [[ $1 == *"$2"* ]] || fail "the command lacks $2: $1"
    printf '%s\n' "${1/"$2"/"$3"}"
}

# Runs a command of a document, with more arguments.
as_pasted() { # <command> <argument>...
    local command=$1
    shift
    [ $# -eq 0 ] || command+=$(printf ' %q' "$@")
    echo "\$ $command"
    bash -euo pipefail -c "$command"
}

render() { # <file>
    sed -e "s|@REDIS_IMAGE@|${REDIS_IMAGE:-redis:7}|" -e "s|@POSTGRES_IMAGE@|${POSTGRES_IMAGE:-postgres:16}|" \
        -e "s|@PYTHON_IMAGE@|${PYTHON_IMAGE:-python:3.12-slim}|" -e "s|@STORAGE_CLASS@|$class|" \
        -e "s|@USERS@|$users|" "scripts/cluster-check/$1"
}

storage_class() {
    local marked='@.metadata.annotations.storageclass\.kubernetes\.io/is-default-class=="true"'
    if [ -n "${STORAGE_CLASS:-}" ]; then
        echo "$STORAGE_CLASS"
    else
        kubectl get storageclass -o jsonpath="{.items[?($marked)].metadata.name}" | cut -d' ' -f1
    fi
}

# Machines that take pods.
machines() {
    local row='{range .items[*]}{.metadata.name}|{.spec.unschedulable}|{.spec.taints[*].effect}{"\n"}{end}'
    kubectl get nodes -o jsonpath="$row" | awk -F'|' '$2 != "true" && $3 !~ /NoSchedule|NoExecute/ { print $1 }'
}

gone() { local found; found=$(kubectl get pods -l "$1" -o name) && [ -z "$found" ]; }
# Prints a field of each node.
nodes() { kubectl get pods -l "$NODES" -o jsonpath="{range .items[*]}{$1}{\"\\n\"}{end}"; }

# Pods of the release with their phases and restarts.
pods() {
    local row='{range .items[*]}{.metadata.name} {.status.phase} {.status.containerStatuses[*].restartCount}{"\n"}{end}'
    kubectl get pods -l "$SELECTOR" -o jsonpath="$row"
}

# The number of acks that the user with the fewest has got.
least() { kubectl logs load --tail=1 | sed -nE 's/^progress .*least=([0-9]+) .*/\1/p'; }
has_least() { local now; now=$(least) && [ -n "$now" ] && [ "$now" -ge "$1" ]; }

# Waits until every user got two more acks: the second one belongs to a message that was sent after this call.
progress() { # <after what>
    local now
    now=$(least)
    [ -n "$now" ] || fail "the load has ended: $(kubectl logs load --tail=1)"
    eventually 180 "acks for every user $1" has_least $((now + 2))
}

# ── Steps ──

prepare() {
    kubectl create namespace "$namespace"
    touch "$work/made"
    kubectl config set-context --current --namespace "$namespace" >/dev/null
    if [ -z "${REDIS_URL:-}" ]; then
        render redis.yaml | kubectl apply -f -
        kubectl rollout status deployment/redis --timeout=5m
    fi
    if [ -z "${DATABASE_URL:-}" ]; then
        render postgres.yaml | kubectl apply -f -
        kubectl rollout status statefulset/postgres --timeout=5m
    fi
}

install() {
    local secret command name=${image##*/} given
    secret=$(line "$CHART_README" 'kubectl create secret generic switchboard ')
    [ -z "${REDIS_URL:-}" ] || secret=$(put "$secret" redis://redis:6379 "$(printf %q "$REDIS_URL")")
    [ -z "${DATABASE_URL:-}" ] ||
        secret=$(put "$secret" postgres://switchboard:change-me@postgres/switchboard "$(printf %q "$DATABASE_URL")")
    # The line is not printed: it may have passwords of yours.
    bash -euo pipefail -c "$secret"
    # One label on everything of the release finds it, whatever else is called chat.
    given=(--set replicaCount=3 --set config.MESSAGE_RATE_LIMIT=0 --set-string "commonLabels.cluster-check=$namespace")
    case $name in
        *@*) given+=(--set-string "image.digest=${image##*@}") ;;
        *:*) given+=(--set-string "image.tag=${name##*:}") ;;
    esac
    [[ $name != *[@:]* ]] || name=${name%%[@:]*}
    [[ $image != */* ]] || name=${image%/*}/$name
    command=$(put "$(line "$CHART_README" 'helm install chat ')" images.example.com/switchboard "$(printf %q "$name")")
    as_pasted "$command" --timeout 10m "${given[@]}" "${values[@]}"
}

helm_test() { as_pasted "$(line "$CHART_README" 'helm test chat ')"; }

reaches() { # <pod> <host> <port>
    kubectl exec "$1" -- python3 -c "import socket; socket.create_connection(('$2', $3), 5)" 2>/dev/null
}
closed_to() { ! reaches "$1" kubernetes.default.svc 443; }

# A pod with the labels of the release reaches Redis, and not the API server; without the labels it reaches that, too.
policies() {
    render probe.yaml | kubectl apply -f -
    kubectl wait --for=condition=Ready pod/outsider --timeout=5m
    kubectl wait --for=condition=Ready pod/insider --timeout=5m
    reaches outsider kubernetes.default.svc 443 || fail "a pod that no policy of the chart selects can't reach the API server"
    [ -n "${REDIS_URL:-}" ] || reaches insider redis 6379 || fail "the network policy keeps the release's pods from Redis"
    if ! (eventually 30 "the policy's effect" closed_to insider) 2>/dev/null; then
        # A policy for a pod of this check tells whether the cluster heeds any.
        kubectl label pod outsider cluster-check-closed=yes
        if (eventually 30 "the policy's effect" closed_to outsider) 2>/dev/null; then
            fail "the network policy lets the release's pods reach kubernetes.default.svc:443"
        fi
        echo "the network plugin enforces no policies" >"$work/skipped"
    fi
    render probe.yaml | kubectl delete --wait -f -
}

load() {
    kubectl create configmap load --from-file=scripts/cluster-check/{load,judge,ws}.py
    render load.yaml | kubectl apply -f -
    kubectl wait --for=condition=Ready pod/load --timeout=5m
    touch "$work/loaded"
    eventually 120 "the first acks" has_least 2
}

roll() {
    local before command
    before=$(nodes .metadata.name | sort)
    command=$(line "$DEPLOY" 'helm upgrade chat helm/switchboard -n chat --reset-then-reuse-values ')
    as_pasted "$(put "$command" '-n chat' "-n $namespace")" --wait --timeout 15m
    kubectl rollout status deployment/chat-switchboard --timeout=15m
    eventually 180 "the end of the old nodes" none_of "$before"
    progress "after the nodes were replaced"
}

# An upgrade whose migration fails is taken back, and changes no node. The database of the URL does not exist.
failing_job() {
    local before command status=0
    before=$(nodes .metadata.name | sort)
    kubectl create secret generic chat-nowhere \
        "--from-literal=DATABASE_URL=postgres://switchboard:change-me@postgres/nowhere"
    command=$(put "$(line "$DEPLOY" 'helm upgrade chat helm/switchboard -n chat --reset-then-reuse-values ')" '-n chat' "-n $namespace")
    (as_pasted "$command" --atomic --timeout 5m --set migration.mode=job,migration.backoffLimit=0 \
        --set migration.existingSecret=chat-nowhere) || status=$?
    kubectl delete secret chat-nowhere
    [ "$status" != 0 ] || fail "an upgrade succeeded although its migration can't"
    [ "$(nodes .metadata.name | sort)" = "$before" ] || fail "an upgrade whose migration failed replaced nodes"
    progress "after an upgrade that was taken back"
}

# What a machine that dies does to a node.
kill_node() {
    local victim
    victim=$(nodes .metadata.name | head -1)
    kubectl delete pod "$victim" --grace-period=0 --force
    kubectl rollout status deployment/chat-switchboard --timeout=10m
    progress "after $victim was killed"
}

# The placement of values-ha.yaml, without what needs an operator: each node is alone on its machine.
highly_available() {
    local count command crowded
    count=$(machines | wc -l)
    [ "$count" -le 3 ] || count=3
    command=$(put "$(line "$DEPLOY" 'helm upgrade chat helm/switchboard -n chat --reset-then-reuse-values ')" '-n chat' "-n $namespace")
    as_pasted "$command" --atomic --timeout 15m --values helm/switchboard/values-ha.yaml \
        --set "replicaCount=$count,autoscaling.enabled=false,serviceMonitor.enabled=false,prometheusRule.enabled=false" \
        --set resources.requests.cpu=100m
    eventually 180 "the end of the old nodes" has_nodes "$count"
    crowded=$(nodes .spec.nodeName | sort | uniq -d | listed)
    [ -z "$crowded" ] || fail "several nodes are on $crowded"
    progress "with values-ha.yaml"
}

has_nodes() { # <number>
    local now
    now=$(nodes .metadata.name) && [ "$(grep -c . <<<"$now")" = "$1" ]
}

none_of() { # <names>
    local now
    now=$(nodes .metadata.name) && [ -z "$(sort <<<"$now" | comm -12 - <(printf '%s\n' "$1"))" ]
}

take_away() { # <kind> <name>
    kubectl scale "$1/$2" --replicas=0
    eventually 120 "the end of $2" gone "app=$2"
}

give_back() { # <kind> <name>
    kubectl scale "$1/$2" --replicas=1
    kubectl rollout status "$1/$2" --timeout=5m
    progress "after $2 came back"
}

redis_away() {
    take_away deployment redis
    progress "while redis is away"
    sleep "$away"
    give_back deployment redis
}

postgres_away() {
    take_away statefulset postgres
    sleep "$away"
    give_back statefulset postgres
}

# The machine with most nodes, beside the one with the load and the stores.
drain() {
    local fixed machine
    fixed=$(kubectl get pod load -o 'jsonpath={.spec.nodeName}')
    # A pod that waits for a machine has none.
    machine=$(nodes .spec.nodeName | awk -v fixed="$fixed" '$1 != "" && $1 != fixed' | sort | uniq -c | sort -rn |
        awk 'NR == 1 { print $2 }')
    [ -n "$machine" ] || fail "all nodes are on $fixed, beside the load and the stores: there is no machine to drain"
    echo "$machine" >"$work/cordoned"
    kubectl drain "$machine" --pod-selector="$NODES" --ignore-daemonsets --delete-emptydir-data --timeout=10m
    kubectl rollout status deployment/chat-switchboard --timeout=10m
    progress "after $machine was drained"
    uncordon
}

uncordon() {
    [ ! -e "$work/cordoned" ] || kubectl uncordon "$(cat "$work/cordoned")" && rm -f "$work/cordoned"
}

load_ended() { [[ $(kubectl get pod load -o 'jsonpath={.status.phase}') =~ ^(Succeeded|Failed)$ ]]; }

verdict() {
    load_ended || kubectl exec load -- touch /tmp/stop
    eventually 420 "the verdict of the load" load_ended
    kubectl logs load --tail=1 | tee "$logs/verdict.json"
    if ! grep -q '"verdict": "ok"' "$logs/verdict.json"; then
        local counts first
        counts=$(sed -nE 's/.*"counts": \{([^}]*)\}.*/\1/p' "$logs/verdict.json")
        first=$(sed -nE 's/.*"violations": \[\{([^}]*)\}.*/\1/p' "$logs/verdict.json")
        fail "not everything acked is there once and in order: $counts; the first: $first"
    fi
}

restarts() {
    pods >>"$work/pods"
    local found
    # The columns: name, phase, restarts of each container.
    found=$(awk '
        $2 == "Failed" { print $1 " failed" }
        { for (i = 3; i <= NF; i++) if ($i > 0) print $1 " restarted" }' "$work/pods" | sort -u | listed)
    [ -z "$found" ] || fail "$found"
}

uninstall() {
    local command
    for words in 'helm uninstall chat ' 'kubectl -n chat delete '; do
        command=$(line "$DEPLOY" "$words")
        as_pasted "$(put "$command" '-n chat' "-n $namespace")"
    done
    eventually 180 "everything was removed" nothing_left
}

# The kinds that can be listed. Events and figures of pods go by themselves.
kinds() { # true or false: in namespaces
    kubectl api-resources --verbs=list --namespaced="$1" -o name | grep -vE '^events|\.metrics\.k8s\.io$' | paste -sd,
}

nothing_left() {
    local inside outside all left
    inside=$(kinds true) outside=$(kinds false)
    # Kinds that may not be listed are passed over; a list without the Secret of the README is no list.
    all=$(kubectl get "$inside" -o name 2>/dev/null || true)
    left=$(
        kubectl get "$inside" -l "$SELECTOR" -o name 2>/dev/null || true
        kubectl get "$outside" -l "$SELECTOR" -o name 2>/dev/null || true
        grep -E '/(chat-switchboard|sh\.helm\.release\.)' <<<"$all" || true
    )
    left=$(sed '/^$/d' <<<"$left" | sort -u | listed)
    echo ": ${left:-kubectl does not list what is in the namespace}" >"$work/why"
    [ -z "$left" ] && grep -q '^secret/switchboard$' <<<"$all"
}

# ── The run ──

note() { summary+=("$(printf '  %-52s %-8s %5ss  %s' "$1" "$2" "$3" "${4:-}")"); }

# Runs a step in a shell of its own, so that its first error ends it and only it.
step() { # <function> <title>
    local begin=$SECONDS status log=$logs/$1.log why
    if [ -n "$stopped" ]; then
        note "$2" "not run" 0
        return
    fi
    printf '\n── %s ──\n' "$2"
    set +e
    (set -e; "$1") 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    set -e
    if [ "$status" = 0 ] && [ -e "$work/skipped" ]; then
        note "$2" skipped $((SECONDS - begin)) "$(cat "$work/skipped")"
        rm "$work/skipped"
        return
    elif [ "$status" = 0 ]; then
        note "$2" passed $((SECONDS - begin))
        return
    fi
    why=$(grep '^cluster-check: ' "$log" | tail -1 | cut -d' ' -f2-) || why=$(tail -1 "$log")
    failed=1
    note "$2" failed $((SECONDS - begin)) "$why"
    look "$1"
    return 0
}

# A step without which the others say nothing.
must() { local before=$failed; step "$@"; [ "$failed" = "$before" ] || stopped=1; }

step_unless() { # <reason to skip it> <function> <title>
    if [ -n "$1" ]; then note "$3" skipped 0 "$1"; else step "$2" "$3"; fi
}

# Keeps what explains a failure, before it is removed.
look() { # <step>
    {
        kubectl get pods -o wide
        kubectl get events --sort-by=.lastTimestamp
        kubectl logs load --tail=20
        kubectl logs -l "$SELECTOR" --tail=200 --prefix
    } >"$logs/$1.state" 2>&1 || true
}

# shellcheck disable=SC2317 # the trap calls it
finish() {
    local status=$? begin=$SECONDS
    trap - EXIT
    trap '' INT TERM HUP
    set +e
    [ -z "$watcher" ] || { kill "$watcher"; wait "$watcher"; } 2>/dev/null
    uncordon || failed=1
    if [ -e "$work/made" ] && [ -n "$keep" ]; then
        echo "cluster-check: the namespace $namespace stays; remove it with: kubectl delete namespace $namespace"
    elif [ -e "$work/made" ]; then
        if kubectl delete namespace "$namespace" --wait --timeout=5m; then
            note "clean up" passed $((SECONDS - begin))
        else
            failed=1
            note "clean up" failed $((SECONDS - begin)) "the namespace $namespace is still there"
        fi
    fi
    [ "$status" = 0 ] || failed=1
    if [ ${#summary[@]} -gt 0 ]; then
        printf '\nSummary:\n'
        printf '%s\n' "${summary[@]}"
    fi
    if [ "$failed" = 0 ]; then
        rm -rf "$logs"
        printf '\nThe check passed in %s s.\n' "$SECONDS"
    elif [ ${#summary[@]} -gt 0 ]; then
        printf '\nThe check failed. Logs, the state at each failure and the verdict: %s\n' "$logs"
    else
        rm -rf "$logs"
    fi
    rm -rf "$work"
    [ "$status" = 0 ] && exit "$failed"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT; trap 'exit 143' TERM HUP

# A copy of the configuration with the namespace in it: the README's lines run as they stand, and yours is not changed.
(cd "$from" && kubectl config view --raw --flatten --minify) >"$work/kubeconfig" || fail "kubectl can't read $KUBECONFIG"
export KUBECONFIG=$work/kubeconfig
exists=$(kubectl get namespace "$namespace" --ignore-not-found -o name) || fail "the cluster can't be reached"
[ -z "$exists" ] || fail "the namespace $namespace exists: the check needs one of its own, which it removes"
[ "$(machines | wc -l)" -ge 2 ] || fail "the cluster has fewer than two machines that take pods: nothing can be drained"
class=$(storage_class)
[ -n "${DATABASE_URL:-}$class" ] || fail "the cluster has no default storage class: name one in STORAGE_CLASS"

must prepare "make the namespace, Redis and PostgreSQL"
must install "install by the README's lines"
if [ -z "$stopped" ]; then
    # Pods that are replaced take their number of restarts with them.
    while sleep 3 && kill -0 $$; do pods >>"$work/pods" || true; done >/dev/null 2>&1 &
    watcher=$!
fi
step helm_test "helm test"
step policies "the network policy closes what it should"
must load "$users users chat"
step roll "replace the nodes"
step_unless "${DATABASE_URL:+DATABASE_URL is yours}" failing_job "a migration that fails is taken back"
step kill_node "kill a node"
step highly_available "the placement of values-ha.yaml"
step_unless "${REDIS_URL:+REDIS_URL is yours}" redis_away "Redis goes and comes back"
step_unless "${DATABASE_URL:+DATABASE_URL is yours}" postgres_away "PostgreSQL goes and comes back"
step drain "drain a machine"
step verdict "nothing acked is lost, doubled or out of order"
step restarts "no pod has restarted"
step uninstall "uninstall, and nothing is left"
exit "$failed"
