#!/bin/sh
# Makes the secrets of compose.yaml in a folder, unless they exist: one for tokens, one for each server, and the files
# in which servers and nodes read them. Only those services see the folder.
set -eu
# Of compose/cluster.yaml: servers, which are not root, write their files there.
[ -d /cluster ] && chmod 1777 /cluster
cd "$1"
[ -e "done" ] && exit 0
umask 022

random() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

redis=$(random) postgres=$(random) cluster=$(random)
random >jwt-secret
printf %s "$postgres" >postgres-password
printf %s "postgres://switchboard:$postgres@postgres/switchboard" >database-url
printf %s "redis://switchboard:$redis@redis/" >redis-url
# Rights of a node, as docs/operations/redis.md lists them. The default user exists for the health check.
cat >redis.acl <<ACL
user default on nopass resetkeys resetchannels -@all +ping
user switchboard on >$redis resetkeys ~ws:* ~rate_limit:* ~room_messages:* resetchannels &{s* -@all +hello +auth +select +ping +evalsha +script|load +time +exists +expire +pexpire +del +get +set +hget +hset +hdel +hexists +hkeys +hgetall +lindex +lpush +lrange +ltrim +sadd +srem +scard +scan +sscan +srandmember +zadd +zrem +zscore +zrange +zrangebyscore +publish +subscribe +unsubscribe +client|tracking +info +pubsub|channels
ACL
# The same for compose/cluster.yaml: all servers have these users, and one more for each other.
printf %s "redis+cluster://switchboard:$redis@redis?addr=redis-2:6379&addr=redis-3:6379" >redis-cluster-url
printf %s "$cluster" >redis-cluster-password
printf 'masteruser cluster\nmasterauth %s\n' "$cluster" >redis-cluster.conf
cat >redis-cluster.acl <<ACL
user default on nopass resetkeys resetchannels -@all +ping
user cluster on >$cluster resetkeys resetchannels -@all +ping +info +cluster +psync +replconf
user switchboard on >$redis resetkeys ~ws:* ~rate_limit:* ~room_messages:* resetchannels &{s* -@all +hello +auth +ping +evalsha +script|load +time +exists +expire +pexpire +del +get +set +hget +hset +hdel +hexists +hkeys +hgetall +lindex +lpush +lrange +ltrim +sadd +srem +scard +scan +sscan +srandmember +zadd +zrem +zscore +zrange +zrangebyscore +asking +cluster|slots +cluster|info +spublish +ssubscribe +sunsubscribe +client|tracking +info +pubsub|shardchannels
ACL
touch "done"
echo "secrets: made"
