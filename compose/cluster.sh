#!/bin/sh
# The Redis Cluster of compose/cluster.yaml.
#
#     cluster.sh server <name> [<argument>...]   runs a server, which clients reach by this name
#     cluster.sh form <name>...                  makes a cluster of running servers, half of them masters, unless they are one
#
# SECRETS and CLUSTER name the folders if they are others than in the containers.
set -eu
secrets=${SECRETS:-/secrets} folder=${CLUSTER:-/cluster}

server() { # <name> [<argument>...]
    name=$1
    shift
    # When its memory is full, a server refuses writes instead of evicting keys; nodes then work without it.
    exec redis-server "$secrets/redis-cluster.conf" --aclfile "$secrets/redis-cluster.acl" --protected-mode no \
        --cluster-enabled yes --cluster-config-file "$folder/$name.conf" --cluster-node-timeout 5000 \
        --cluster-announce-hostname "$name" --cluster-preferred-endpoint-type hostname \
        --cluster-require-full-coverage no --maxmemory 256mb --maxmemory-policy noeviction --save "" --appendonly no "$@"
}

ask() { # <server> <command>...
    from=$1
    shift
    redis-cli -h "$from" --user cluster "$@"
}

address() { getent hosts "$1" | awk '{ print $1; exit }'; }

# Waits until a command succeeds.
eventually() { # <what> <command>...
    what=$1 left=60
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { echo "cluster: waited in vain for $what" >&2 && exit 1; }
        sleep 1
    done
}

all_are_ok() {
    for one in $servers; do
        ask "$one" cluster info | grep -q '^cluster_state:ok' || return 1
    done
}

form() { # <name>...
    REDISCLI_AUTH=$(cat "$secrets/redis-cluster-password")
    export REDISCLI_AUTH
    servers=$*
    if ask "$1" cluster info | grep -q '^cluster_slots_assigned:0'; then
        addresses=
        for one in $servers; do addresses="$addresses $(address "$one"):6379"; done
        # shellcheck disable=SC2086 # a list
        timeout 120 redis-cli --user cluster --cluster create $addresses --cluster-replicas 1 --cluster-yes
    else
        # The servers have the addresses of their last start in mind.
        for one in $servers; do ask "$1" cluster meet "$(address "$one")" 6379; done
    fi
    eventually "all servers to know a master of every slot" all_are_ok
    echo "cluster: formed"
}

"$@"
