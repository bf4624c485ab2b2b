#!/bin/sh
# Decides, when a pod starts, whether its server is the primary or which server's replica it is, and writes node.conf. Sentinel
# changes that file when it changes the roles, so that a container which only restarts keeps its role.
set -eu
me=$POD_NAME.$NAME-nodes.$NAMESPACE.svc
config=$DATA/node.conf
# shellcheck source=components/scripts/find-primary.sh
. "$CONFIG/find-primary.sh"
first=$NAME-0.$NAME-nodes.$NAMESPACE.svc
primary=
if [ "$SENTINELS" -gt 0 ]; then
  tries=0
  while :; do
    primary=$(primary_by_sentinels)
    [ -n "$primary" ] || primary=$(primary_by_servers)
    # Without data this server must not come back as the primary, or the others would copy its emptiness: another one
    # takes over in a moment.
    if [ "$primary" = "$me" ] && [ ! -s "$config" ] && [ "$tries" -lt 120 ]; then
      tries=$((tries + 1))
      sleep 1
    else
      break
    fi
  done
  if [ -z "$primary" ] && [ -s "$config" ]; then
    primary=$(sed -n 's/^replicaof \([^ ]*\) .*/\1/p' "$config" | tail -n 1)
    [ -n "$primary" ] || primary=$me
  fi
fi
[ -n "$primary" ] || primary=$first
# What a killed server left half written goes: on a full volume there is else no room for the file.
rm -f "$DATA"/temp-*.rdb "$DATA"/temp-*.aof
umask 077
{
  echo "include $CONFIG/redis.conf"
  echo "masteruser operator"
  echo "masterauth $REDISCLI_AUTH"
  echo "replica-announce-ip $me"
  echo "replica-announce-port $PORT"
  [ "$primary" = "$me" ] || echo "replicaof $primary $PORT"
} >"$config.new"
mv "$config.new" "$config"
echo "$me: the primary is $primary"
