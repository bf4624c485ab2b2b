#!/bin/sh
# alive.sh PORT [TLS STATE]: the liveness probe of a PostgreSQL server. Any answer is a sign of life: a server that refuses
# connections while it recovers (1) would only begin its recovery again. With TLS, the folder of its certificate, the server reads
# that again when it was renewed: new connections get the new one, and those that there are go on. One that it cannot use is
# logged, and the former one stays. STATE is the file with the checksum of the certificate that it was told of.
set -eu
pg_isready --host=localhost --port="$1" --timeout=3 || [ $? -eq 1 ]
[ $# -gt 1 ] || exit 0
# Taken before the server is told: what changes while it reads is another sum at the next probe.
now=$(cat "$2/tls.crt" "$2/tls.key" | cksum)
[ "$now" = "$(cat "$3" 2>/dev/null)" ] && exit 0
# A server that cannot be told yet lives all the same: it is told at the next probe.
if pg_ctl --pgdata="$PGDATA" reload >/dev/null; then
  echo "$now" >"$3"
fi
