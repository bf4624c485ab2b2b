#!/bin/sh
# alive.sh PORT: the liveness probe of a PostgreSQL server. Any answer is a sign of life: a server that refuses connections while
# it recovers (1) would only begin its recovery again.
set -eu
pg_isready --host=localhost --port="$1" --timeout=3 || [ $? -eq 1 ]
