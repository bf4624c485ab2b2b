#!/bin/sh
# A replica is ready when it has the primary's data: only then may the next pod be replaced or drained.
set -eu
# shellcheck disable=SC2086 # options of redis-cli, several words
cli() { redis-cli ${CLI_TLS-} --user operator "$@"; }
# `-e` makes an error reply (still loading, wrong password) a failure.
cli -e -p "$PORT" ping >/dev/null
if cli -p "$PORT" info replication | grep -q master_link_status:down; then
  exit 1
fi
