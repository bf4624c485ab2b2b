#!/bin/sh
# redis.sh DATA CONFIG SERVER FILE: starts a Redis or Valkey server with the configuration FILE, once the files in DATA are of the
# kind that CONFIG (FILE itself, or what it includes) asks for.
#
# A server reads the one kind that it is configured for, and nothing tells it that the other is newer. With `appendonly yes` and
# a dump it starts empty, and its next snapshot overwrites the dump; with `appendonly no` it reads a dump that may be older than
# the append-only file, and a later `appendonly yes` reads that old file again. So a change of `persistence` converts, here and
# not before: only the configuration that the server is about to read says which kind it needs. A conversion that is cut short
# begins again at the next start. Without persistence what an earlier setting left goes, or it would come back at each start.
set -eu
data=$1 config=$2 server=$3 file=$4
cd "$data"
umask 077

append_only_file() {
  [ -s appendonlydir/appendonly.aof.manifest ] || [ -s appendonly.aof ]
}

# What a killed server left half written: nobody reads it, and on a full volume it is the room that is missing.
rm -f temp-*.rdb temp-rewriteaof-*.aof temp-appendonly.aof* appendonlydir/temp-*

# A dump is an append-only file's base as it is: under the name of a file of one part, the server takes it for its base.
to_append_only_file() {
  echo "redis.sh: makes an append-only file of the dump"
  ln dump.rdb appendonly.aof || { cp dump.rdb appendonly.aof.new && mv appendonly.aof.new appendonly.aof; }
}

# A server that no network reaches reads the append-only file, and takes a snapshot one second later, without a change. On a full
# volume it tries again every five seconds.
to_dump() {
  echo "redis.sh: makes a dump of the append-only file"
  rm -f converted.rdb
  # Else the server refuses the option.
  no_tls=$(grep -q '^tls-port ' "$config" && echo "--tls-port 0" || true)
  # shellcheck disable=SC2086 # an option and its value, or nothing
  "$server" "$config" --port 0 $no_tls --unixsocket converting.sock --appendonly yes --auto-aof-rewrite-percentage 0 \
    --dbfilename converted.rdb --save "1 0" &
  converting=$!
  trap 'kill -9 "$converting" 2>/dev/null; exit 143' TERM INT
  while [ ! -s converted.rdb ]; do
    kill -0 "$converting" 2>/dev/null || { echo "redis.sh: the append-only file could not be read, and stays as it is" >&2; exit 1; }
    sleep 1
  done
  # It has nothing to keep: nobody could write to it.
  kill -9 "$converting"
  wait "$converting" || true
  trap - TERM INT
  rm -f converting.sock temp-*.rdb
  mv converted.rdb dump.rdb
  drop_append_only_file
}

# By one step each, so that no half of it is ever taken for all of it.
drop_append_only_file() {
  rm -rf appendonlydir.old
  if [ -e appendonlydir ]; then mv appendonlydir appendonlydir.old; fi
  rm -rf appendonlydir.old appendonly.aof
}

if grep -q '^appendonly yes' "$config"; then
  if [ -s dump.rdb ] && ! append_only_file; then to_append_only_file; fi
elif grep -q '^save ""' "$config"; then
  rm -f dump.rdb
  drop_append_only_file
elif append_only_file; then
  to_dump
fi
exec "$server" "$file"
