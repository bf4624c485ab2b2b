#!/bin/sh
# Makes the data directory once, and role, password and database at every start: a new password takes effect by a restart.
# The server that runs here listens on no network address, so that no client sees it half prepared.
set -eu
umask 077
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA.new"
  initdb --pgdata="$PGDATA.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
    --auth-local=peer --auth-host=scram-sha-256 --data-checksums
  mv "$PGDATA.new" "$PGDATA"
fi
rm -f "$PGDATA/postmaster.pid"
pg_ctl --pgdata="$PGDATA" --wait --timeout=3600 \
  --options="-c listen_addresses='' -c unix_socket_directories=$PGHOST -c hba_file=$SCRIPTS/pg_hba.conf" start
trap 'pg_ctl --pgdata="$PGDATA" --wait --mode=fast stop' EXIT
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=user="$METADATA_USER" --set=database="$METADATA_DATABASE" \
  --username=postgres --dbname=postgres --file="$SCRIPTS/roles.sql"
