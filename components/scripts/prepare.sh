#!/bin/sh
# Makes the data directory once, and its owner and mode, role, password and database at every start: a new password takes effect
# by a restart. The server that runs here listens on no network address, so that no client sees it half prepared.
set -eu
umask 077

# PostgreSQL starts only in a directory of its own user that nobody else may write. An image with another user changes the
# volume's group (fsGroup), and with it mode and group of all that is in it; the owner stays the former user, whom only a copy
# replaces. The original goes when the copy is complete.
own() {
  if [ "$(stat -c %u "$PGDATA")" != "$(id -u)" ]; then
    needed=$(du -sk "$PGDATA" | cut -f 1) room=$(df -Pk "$(dirname "$PGDATA")" | tail -n 1 | awk '{print $4}')
    echo "prepare.sh: copies $PGDATA ($needed KiB), which is user $(stat -c %u "$PGDATA")'s, for user $(id -u)"
    if [ "$room" -le "$needed" ]; then
      echo "prepare.sh: the volume has $room KiB left. Give it more, or go back to images.postgres_user $(stat -c %u "$PGDATA")" >&2
      exit 1
    fi
    rm -rf "$PGDATA.copy"
    cp -R "$PGDATA" "$PGDATA.copy"
    sync
    # The former one is whole until the copy has its place: what is cut short here begins again.
    mv "$PGDATA" "$PGDATA.former"
    mv "$PGDATA.copy" "$PGDATA"
  fi
  rm -rf "$PGDATA.former"
  chmod u=rwx,go= "$PGDATA"
}

if [ ! -e "$PGDATA" ] && [ -e "$PGDATA.former" ]; then
  mv "$PGDATA.former" "$PGDATA"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA.new"
  initdb --pgdata="$PGDATA.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
    --auth-local=peer --auth-host=scram-sha-256 --data-checksums
  mv "$PGDATA.new" "$PGDATA"
fi
own
rm -f "$PGDATA/postmaster.pid"
pg_ctl --pgdata="$PGDATA" --wait --timeout=3600 \
  --options="-c listen_addresses='' -c unix_socket_directories=$PGHOST -c hba_file=$SCRIPTS/pg_hba.conf" start
trap 'pg_ctl --pgdata="$PGDATA" --wait --mode=fast stop' EXIT
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=user="$METADATA_USER" --set=database="$METADATA_DATABASE" \
  --username=postgres --dbname=postgres --file="$SCRIPTS/roles.sql"
