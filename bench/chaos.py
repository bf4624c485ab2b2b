"""`make chaos`: cause the faults that docs/faults.md names it for, on real services under load, and show what held.

Each scenario starts a platform of its own (bench/world.py), so they need nothing but `make install`ed environments, and can be
run alone: `python -m bench.scenarios.<name>`. Ends with 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import time
import traceback
from importlib import import_module
from pathlib import Path

from rich.console import Console

from bench.report import Check, as_markdown, show

SCENARIOS = ("stampede", "killed_worker", "broker", "postgres", "leaking", "scale_in", "removed_tenant", "poison", "told")


def run(names: list[str], console: Console) -> list[Check]:
    """Every check of the scenarios `names`, one after the other; one that breaks is a check that did not hold."""
    checks: list[Check] = []
    for name in names:
        console.rule(name)
        began = time.monotonic()
        try:
            found: list[Check] = import_module(f"bench.scenarios.{name}").run(console.print)
        except Exception as error:
            traceback.print_exc()
            found = [Check(name, "the scenario runs", f"{type(error).__name__}: {error}", held=False)]
        show(found, console)
        console.print(f"{name}: {time.monotonic() - began:.0f} s")
        checks += found
    return checks


def main() -> int:
    """Run the scenarios, print the report, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", help="which; default: all")
    parser.add_argument("--markdown", type=Path, help="file to write the report to")
    arguments = parser.parse_args()
    console = Console(width=160)
    checks = run(arguments.scenario or list(SCENARIOS), console)
    console.rule("all")
    show(checks, console)
    if arguments.markdown:
        arguments.markdown.write_text(as_markdown(checks), encoding="utf-8")
    broken = [check for check in checks if check.held is False]
    console.print(f"{len(checks) - len(broken)} of {len(checks)} held")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
