#!/bin/sh
# Puts back the newest dump of PGDATABASE in the folder DUMPS (or the one that DUMP names) as a whole or not at all.
set -eu
if [ -n "${DUMP:-}" ]; then
  file=$DUMPS/$DUMP
else
  file=$(find "$DUMPS" -maxdepth 1 -type f -name "$PGDATABASE-*.dump" | sort -r | head -n 1)
fi
[ -f "$file" ] || { echo "no dump of $PGDATABASE in $DUMPS" >&2; exit 1; }
pg_restore --clean --if-exists --no-owner --single-transaction --exit-on-error --no-password --dbname="$PGDATABASE" "$file"
echo "$file: restored"
