#!/bin/sh
# Writes a Sentinel's first configuration. Sentinels keep nothing that they cannot find again: which server is the primary they
# learn from each other, or else from the servers, so that they need no volume.
#
# A Sentinel hears of replicas from the primary when it starts, and then every ten seconds. One that attaches in between would
# be left out of a failover in that time: it would go on waiting for the old primary, and the new one, without a replica, take
# no writes (measured). So the first question has to find them all, unless one stays away.
set -eu
me=$POD_NAME.$NAME-sentinel-nodes.$NAMESPACE.svc
config=$DATA/sentinel.conf
# Tries, a second or more each, to see every replica at the primary.
attach_tries=30
# shellcheck source=components/scripts/find-primary.sh
. "$CONFIG/find-primary.sh"
tries=0
while :; do
  primary=$(primary_by_sentinels)
  [ -n "$primary" ] || primary=$(primary_by_servers)
  if [ -n "$primary" ]; then
    attached=$(ask "$primary" "$PORT" info replication | grep -c state=online || true)
    if [ "$attached" -ge $((SERVERS - 1)) ] || [ "$tries" -ge "$attach_tries" ]; then
      break
    fi
    tries=$((tries + 1))
  fi
  sleep 1
done
umask 077
{
  cat "$CONFIG/sentinel.conf"
  echo "sentinel sentinel-pass $REDISCLI_AUTH"
  echo "sentinel announce-ip $me"
  echo "sentinel monitor $NAME $primary $PORT $((SENTINELS / 2 + 1))"
  cat "$CONFIG/monitor.conf"
  echo "sentinel auth-pass $NAME $REDISCLI_AUTH"
} >"$config"
echo "$me: the primary is $primary"
