"""The rules over a stack file without the engine: what `make policy` runs."""

from __future__ import annotations

import hashlib
import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from infra import program, recording
from policies.evaluation import Config, Exemption, PolicyConfigError, Report, evaluate, exemptions_of, read_config
from policies.graph import Graph, from_recording
from policies.rules import ALL
from topology import settings, stack_file
from topology.problems import StackError

#: Columns off a terminal.
WIDE = 2000


def check(stack: str, *, config_file: Path | None = None, today: date | None = None) -> Report:
    """What the rules find in the resources of `stack`. StackError or PolicyConfigError for what a person can mend."""
    found = stack_file.read(stack)
    graph = graph_of(stack, found)
    config = Config() if config_file is None else _config(config_file)
    return evaluate(graph, exemptions=exemptions(found), config=config, today=today)


def graph_of(stack: str, config: Mapping[str, Any]) -> Graph:
    """The graph that `stack` registers with the keys of its file; StackError where they have mistakes.

    Secrets that the engine generates or decrypts are stood in for by texts of their length.
    """
    readable = dict(config)
    for key in program.SECRET_KEYS:
        if key in readable:
            readable[key] = _stand_in(key, readable[key])
    hidden = frozenset(key for key in program.SECRET_KEYS if key in readable)
    program.read(stack, recording.as_engine_config(readable), lambda key: key.partition(":")[2] in hidden)
    return from_recording(recording.record(stack, readable, secret_keys=hidden, generate=generate))


def generate(name: str, length: int) -> str:
    """A text that stands for a generated secret: of its length, another one for each name."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return (digest * (length // len(digest) + 1))[:length]


def _stand_in(key: str, value: Any) -> Any:
    if isinstance(value, dict) and "secure" not in value:
        return {name: _stand_in(name, inner) for name, inner in cast("dict[str, Any]", value).items()}
    return f"postgresql://reader:{generate(key, 32)}@database/{key.replace('_', '-')}"


def exemptions(config: Mapping[str, Any]) -> tuple[Exemption, ...]:
    """The exceptions in a stack file."""
    return exemptions_of(each.model_dump() for each in settings.read(config).settings.policy_exceptions)


def _config(path: Path) -> Config:
    try:
        return read_config(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        if isinstance(error, PolicyConfigError):
            raise
        raise PolicyConfigError(f"{path} cannot be read as JSON: {error}") from error


def run(stack: str, config_file: Path | None = None) -> int:
    """Check `stack` and print what was found; the exit code, 1 where it must not be deployed."""
    try:
        report = check(stack, config_file=config_file)
    except (StackError, PolicyConfigError) as error:
        Console(stderr=True).print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    out = Console()
    # Off a terminal a line is as long as what it says.
    show(stack, report, out if out.is_terminal else Console(width=WIDE))
    return 1 if report.mandatory else 0


def show(stack: str, report: Report, out: Console) -> None:
    """Print what was found: a table of rule, resource, problem and fix, and a summary."""
    table = Table("", box=None, pad_edge=False)
    for column in ("rule", "resource", "problem", "fix"):
        table.add_column(column, overflow="fold")
    for each in (*report.mandatory, *report.advisory):
        mark = "[red]stop[/]" if each.severity == "mandatory" else "[yellow]advice[/]"
        table.add_row(mark, each.rule, each.resource, each.problem, f"{each.fix} ({each.runbook})")
    for each in report.excused:
        if each.exemption:
            until = f"excepted until {each.exemption.expires} by {each.exemption.owner}: {each.exemption.reason}"
            table.add_row("excepted", each.rule, each.resource, each.problem, until)
    if table.row_count:
        out.print(table, highlight=False)
    counts = f"{len(report.mandatory)} stop, {len(report.advisory)} advise, {len(report.excused)} are excepted"
    out.print(f"stack {stack}: {len(ALL)} rules, {counts if report.findings else 'none is broken'}", highlight=False)


if __name__ == "__main__":
    # Without the command line's other imports it takes two thirds of the time.
    arguments = ArgumentParser(prog="policies.check", description="Check the resources of a stack against the policy pack.")
    arguments.add_argument("stack")
    arguments.add_argument("--config", type=Path, help="JSON as for pulumi's --policy-pack-config")
    given = arguments.parse_args()
    sys.exit(run(given.stack, given.config))
