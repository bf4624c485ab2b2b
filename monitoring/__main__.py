"""`python -m monitoring STACK`: write a stack's rules, routes and dashboard to build/STACK-monitoring."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from monitoring import files
from topology import stack_file
from topology.plan import plan
from topology.problems import MendableError


def main() -> int:
    """Write the files and name them; 1, with what to mend, for a stack that has mistakes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stack")
    parser.add_argument("--output", type=Path, help="folder; default: build/STACK-monitoring")
    parser.add_argument("--watchdog-url", help="what raises an alarm when it does not hear the watchdog")
    arguments = parser.parse_args()
    try:
        topology = plan(arguments.stack, stack_file.read(arguments.stack))
    except MendableError as error:
        print(error, file=sys.stderr)
        return 1
    folder = arguments.output or Path("build") / f"{arguments.stack}-monitoring"
    for path in files.write(topology, folder, arguments.watchdog_url):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
