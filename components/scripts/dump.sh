#!/bin/sh
# Dumps PGDATABASE to the folder DUMPS, of which the newest KEEP dumps stay. A dump counts only when it is complete and its table
# of contents can be read; then the oldest ones go. The server and the role come in libpq's own variables (PGHOST …).
set -eu
umask 077
file=$DUMPS/$PGDATABASE-$(date -u +%Y%m%dT%H%M%SZ).dump
trap 'rm -f "$file.partial"' EXIT
pg_dump --format=custom --no-password --file="$file.partial"
pg_restore --list "$file.partial" >/dev/null
mv "$file.partial" "$file"
find "$DUMPS" -maxdepth 1 -type f -name "$PGDATABASE-*.dump" | sort -r | tail -n "+$((KEEP + 1))" | while read -r old; do
  rm -f "$old"
done
echo "$file: $(stat -c %s "$file") bytes"
