#!/bin/sh
# Before a primary stops, a replica takes over: clients notice nothing but a reconnect. Always ends with 0: the pod stops anyway.
is_primary() {
  # shellcheck disable=SC2086 # options of redis-cli, several words
  redis-cli ${CLI_TLS-} --user operator -p "$PORT" info replication | grep -q '^role:master'
}
tries=0
answer=
while is_primary && [ "$tries" -lt 60 ]; do
  # Refused while an earlier failover is still ending, or while no replica is fit: asked again.
  if [ "$answer" != OK ]; then
    # shellcheck disable=SC2086 # options of redis-cli, several words
    answer=$(redis-cli ${CLI_TLS-} --user operator -h "$NAME-sentinel" -p "$SENTINEL_PORT" sentinel failover "$NAME")
  fi
  tries=$((tries + 1))
  sleep 1
done
exit 0
