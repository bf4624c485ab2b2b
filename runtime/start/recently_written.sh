#!/bin/sh
# recently_written.sh SECONDS PREFIX: succeeds where a file whose path begins with PREFIX was written in the last SECONDS.
# The probe of processes that write a file while they work: it costs no start of Python.
set -eu
now=$(date +%s)
for file in "$2"*; do
  if [ -e "$file" ] && [ $((now - $(stat -c %Y "$file"))) -lt "$1" ]; then
    exit 0
  fi
done
exit 1
