#!/usr/bin/env bash
# `bench/commands.sh`: wall and processor seconds of rendering and of checking each stack, the second run of each (files compiled).
set -euo pipefail
cd "$(dirname "$0")/.."
for stack in minimal enterprise high-throughput multi-tenant; do
  for command in render policy; do
    .venv/bin/superset-async "$command" --stack "$stack" >/dev/null
    TIMEFORMAT="$stack $command: %R s wall, %U s processor"
    time .venv/bin/superset-async "$command" --stack "$stack" >/dev/null
  done
done
