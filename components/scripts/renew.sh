#!/bin/sh
# renew.sh PORT STATE KIND: the liveness probe of a server or Sentinel with TLS. After a renewal a server takes its new
# certificate, which it reads only when it is told to. A Sentinel cannot be told: it stops, and starts anew with what it knows.
# STATE is the file that holds the checksum of the certificate in use; KIND is `server` or `sentinel`.
set -eu
# shellcheck disable=SC2086 # options of redis-cli, several words
cli() { redis-cli $CLI_TLS --user operator "$@"; }
# Any reply is a sign of life: MISCONF, LOADING and NOAUTH too.
cli -p "$1" ping >/dev/null
now=$(cat "$TLS/tls.crt" "$TLS/tls.key" "$TLS/ca.crt" | cksum)
[ -e "$2" ] || echo "$now" >"$2"
[ "$now" = "$(cat "$2")" ] && exit 0
if [ "$3" = sentinel ]; then
  echo "$now" >"$2"
  cli -p "$1" shutdown || true
else
  # One that refuses, such as for its password, lives all the same: it is told again at the next probe.
  if cli -e -p "$1" config set \
    tls-cert-file "$TLS/tls.crt" tls-key-file "$TLS/tls.key" tls-ca-cert-file "$TLS/ca.crt" >/dev/null; then
    echo "$now" >"$2"
  fi
fi
