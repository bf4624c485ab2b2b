#!/bin/sh
# A server is ready when it answers from all of its data: it has loaded them, it knows our password, and, as a replica, it has
# what the primary has; only then may the next pod be replaced or drained. One that cannot save (MISCONF) refuses writes and says
# why: it stays ready, since there is no other to ask, and clients would get neither their results nor the reason.
set -eu
# shellcheck disable=SC2086 # options of redis-cli, several words
cli() { redis-cli ${CLI_TLS-} --user operator "$@"; }
reply=$(cli -p "$PORT" ping) || true
case $reply in
  PONG | MISCONF*) ;;
  *)
    echo "$reply"
    exit 1
    ;;
esac
if cli -p "$PORT" info replication | grep -q master_link_status:down; then
  exit 1
fi
