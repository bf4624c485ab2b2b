#!/bin/sh
# Functions for the scripts of servers and Sentinels: which server is the primary, by its DNS name; nothing where none answers.
# Reads NAME, NAMESPACE, PORT, SERVERS, SENTINELS, SENTINEL_PORT, CLI_TLS, REDISCLI_AUTH; `me`, which the caller sets, is the
# name of the pod itself.

# ask HOST PORT COMMAND...: the reply, or nothing after three seconds.
ask() {
  host=$1 port=$2
  shift 2
  # shellcheck disable=SC2086 # options of redis-cli, several words
  timeout 3 redis-cli ${CLI_TLS-} --user operator --raw -h "$host" -p "$port" "$@" 2>/dev/null || true
}

primary_by_sentinels() {
  i=0
  while [ "$i" -lt "$SENTINELS" ]; do
    sentinel=$NAME-sentinel-$i.$NAME-sentinel-nodes.$NAMESPACE.svc
    found=$(ask "$sentinel" "$SENTINEL_PORT" sentinel get-master-addr-by-name "$NAME" | head -n 1)
    case $found in
      "$NAME"-*."$NAME-nodes.$NAMESPACE.svc") echo "$found"; return ;;
    esac
    i=$((i + 1))
  done
}

primary_by_servers() {
  i=0
  while [ "$i" -lt "$SERVERS" ]; do
    host=$NAME-$i.$NAME-nodes.$NAMESPACE.svc
    # shellcheck disable=SC2154 # `me` is the caller's
    if [ "$host" != "$me" ] && ask "$host" "$PORT" info replication | grep -q '^role:master'; then
      echo "$host"
      return
    fi
    i=$((i + 1))
  done
}
