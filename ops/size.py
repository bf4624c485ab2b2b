"""`superset-async size`: what a load needs, as a table, as JSON, and as a stack file."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
import yaml
from rich.console import Console
from rich.table import Table

from local import postgres
from local.state import StateFolder, ensure_secrets
from runtime.queries.executions import TABLE
from sizing import growth
from sizing.load import Executed, Load, LoadError, observed, read
from sizing.recommendation import Recommendation, recommend
from topology import stack_file
from topology.model import TopologyName
from topology.plan import plan
from topology.problems import MendableError
from topology.quantities import format_memory

#: What `--from` reads: a header, and a row for each execution. `psql --csv` prints it on any platform.
COLUMNS = ("kind", "tenant", "username", "submitted", "started", "ended")
SQL = (
    "SELECT kind, tenant, username, extract(epoch FROM coalesce(submitted_at, started_at)) AS submitted, "
    f"extract(epoch FROM started_at) AS started, extract(epoch FROM ended_at) AS ended FROM {TABLE} "
    "WHERE ended_at IS NOT NULL AND outcome IN ('success', 'failed', 'stopped', 'timed_out') "
    "AND started_at > now() - interval '{days} days'"
)
EXAMPLE = """\
users: 200
wait_p95: 2            # seconds that 95 of 100 queries may wait in the busiest hour
busy_hours: 8          # a day; the other hours are taken as a tenth
classes:
- {name: sql, per_hour: 4000, seconds: 1.5, variation: 2}
- {name: charts, kind: chart, per_hour: 12000, seconds: 0.4, variation: 1}
- {name: exports, per_hour: 60, seconds: 45, tenant: finance}
tenants:
  finance: {roles: [Finance]}
"""


class SizeError(MendableError):
    """A source of a load, or a stack file, that cannot be used; says which and why."""


def size(
    *,
    load: Annotated[Path | None, typer.Option("--load", help="YAML file of a load; --example prints one")] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="stack of a platform on this machine, or a CSV file of executions (--sql prints its query)"
        ),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="of how many days until now, with --from")] = 14,
    wait_p95: Annotated[
        float, typer.Option("--wait-p95", min=0.01, help="with --from: seconds that 95 of 100 may wait")
    ] = 2.0,
    topology: Annotated[str | None, typer.Option("--topology", help="default: what the load and its tenants need")] = None,
    base: Annotated[str | None, typer.Option("--base", help="stack of which all but the sizes is kept")] = None,
    write: Annotated[
        str | None, typer.Option("--write", help="write stacks/Pulumi.WRITE.yaml, which must not exist")
    ] = None,
    grow: Annotated[str, typer.Option("--grow", help="also what as many times the load needs")] = "10",
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    example: Annotated[bool, typer.Option("--example", help="print a load file, and nothing else")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="print the query whose CSV --from reads, and nothing else")] = False,
) -> None:
    """Say what a load needs: pools, scaling, Redis, PostgreSQL, web, cost, and what gives way first when it grows.

    From a load file, or from what a platform has executed. The stack that is written passes every rule of the plan.
    """
    if example or sql:
        sys.stdout.write(EXAMPLE if example else f"{SQL.format(days=days)}\n")
        return
    asked = _load(load, from_, days, wait_p95)
    chosen = _topology(topology)
    kept = stack_file.read(base) if base else None
    found = recommend(asked, chosen, kept)
    steps = growth.steps(asked, _factors(grow), chosen, kept)
    if write:
        _write(write, found)
    if as_json:
        sys.stdout.write(json.dumps({**_plain(found), "growth": [asdict(step) for step in steps]}, indent=1) + "\n")
        return
    out = Console()
    _show(found, out)
    _show_growth(steps, out)
    if write:
        out.print(f"written: {stack_file.folder() / f'Pulumi.{write}.yaml'}", highlight=False)
    else:
        out.print("\nstack file (--write NAME writes it):", highlight=False)
        out.print(_stack_text(found), highlight=False, markup=False)


def _load(file: Path | None, source: str | None, days: int, wait_p95: float) -> Load:
    if (file is None) == (source is None):
        raise SizeError("give a load: either --load FILE (--example prints one), or --from STACK or CSV file")
    if file is not None:
        try:
            content: object = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise LoadError(f"{file}: cannot be read: {error}") from None
        return read(content, str(file))
    name = str(source)
    tenants: dict[str, dict[str, Any]] = {}
    if Path(name).suffix == ".csv":
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LoadError(f"{name}: cannot be read: {error}") from None
        return observed(executions(text, name), wait_p95, tenants)
    if name in stack_file.names():
        tenants = dict(stack_file.read(name).get("tenants") or {})
    return observed(executions(_of_local(name, days), name), wait_p95, tenants)


def executions(text: str, where: str) -> Iterator[Executed]:
    """The executions in CSV with a header; LoadError for other columns or a row that has no times."""
    rows = csv.DictReader(text.splitlines())
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise LoadError(
            f"{where}: columns = {rows.fieldnames}: must be {', '.join(COLUMNS)}. Export it with the query of --sql"
        )
    for number, row in enumerate(rows, 2):
        try:
            times = [float(row[name]) for name in COLUMNS[3:]]
        except (TypeError, ValueError):
            raise LoadError(f"{where}, line {number}: times must be seconds since the epoch, not {row}") from None
        yield Executed("chart" if row["kind"] == "chart" else "sql", row["tenant"], row["username"], *times)


def _of_local(stack: str, days: int) -> str:
    """The executions of the platform of `stack` on this machine, as CSV."""
    folder = StateFolder.of(stack)
    topology = folder.read_topology()
    if topology is None:
        raise SizeError(
            f"--from {stack}: there is no platform of that stack on this machine, and no file of that name that ends in .csv. "
            "For a cluster: run the query of --sql with psql --csv against its metadata database, and give the file"
        )
    secrets = ensure_secrets(folder, topology)
    server = topology.postgres
    script = f"COPY ({SQL.format(days=days)}) TO STDOUT WITH (FORMAT csv, HEADER)"
    return postgres.run_sql(topology, server.user, secrets[server.password_env], server.database, script)


def _topology(name: str | None) -> TopologyName | None:
    if name is None:
        return None
    known = get_args(TopologyName)
    if name not in known:
        raise SizeError(f"--topology {name}: must be one of {', '.join(known)}")
    return cast(TopologyName, name)


def _factors(text: str) -> list[float]:
    try:
        factors = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        factors = [-1.0]
    if any(not 0 < factor <= 10_000 for factor in factors):
        raise SizeError(f"--grow {text}: must be numbers above 0 and at most 10000, such as 10 or 2,10,100")
    return factors


def _stack_text(found: Recommendation) -> str:
    config = {f"{stack_file.PROJECT_NAME}:{key}": value for key, value in found.config.items()}
    return yaml.safe_dump({"config": config}, sort_keys=False)


def _write(stack: str, found: Recommendation) -> None:
    path = stack_file.folder() / f"Pulumi.{stack}.yaml"
    plan(stack, found.config)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_stack_text(found))
    except FileExistsError:
        raise SizeError(f"--write {stack}: {path} exists. Choose another name, or move it away") from None
    except OSError as error:
        raise SizeError(f"--write {stack}: {path}: {error.strerror}") from None


def _plain(found: Recommendation) -> dict[str, Any]:
    content = asdict(found)
    content["load"] = found.load.model_dump()
    return content


def _show(found: Recommendation, out: Console) -> None:
    whole = sum(pool.rate for pool in found.pools)
    out.print(
        f"{found.load.users} users, {whole * 3600:.0f} queries in the busiest hour ({whole:.1f} a second): "
        f"[bold]{found.topology}[/]",
        highlight=False,
    )
    table = Table("pool", "a second", "s each", "slots", "workers", "children", "scale at", "P95 wait s", box=None)
    for pool in found.pools:
        table.add_row(
            pool.name,
            f"{pool.rate:.2f}",
            f"{pool.service.mean:.2f}",
            str(pool.slots),
            f"{pool.min_workers} to {pool.max_workers}",
            str(pool.concurrency),
            f"{pool.queued_per_worker} a worker" if pool.max_workers > pool.min_workers else "no scaler",
            f"{pool.wait:.2f}",
        )
    out.print(table)
    for name, value in (
        ("web", f"up to {found.web_replicas} pods"),
        ("broker", f"{format_memory(found.broker_bytes)} of messages at most"),
        ("cache", f"{found.cache_bytes / 2**20:.0f} MiB of results"),
        (
            "PostgreSQL",
            f"{found.postgres_cores:.2f} cores, {found.connections} connections, {format_memory(found.postgres_volume)}",
        ),
        ("cost", f"{found.monthly_cost:,.0f} {found.currency} a month at the stack's rates"),
    ):
        out.print(f"{name}: {value}", highlight=False)
    out.print("\nwhat gives way first, in times of this load:", highlight=False)
    for limit in found.limits:
        out.print(f"  {limit.times:6.1f} ×  {limit.part}: {limit.then}", highlight=False, soft_wrap=True)


def _show_growth(steps: list[growth.Step], out: Console) -> None:
    if not steps:
        return
    table = Table("load", "users", "workers", "web", "PostgreSQL", "broker", "a month", box=None)
    for step in steps:
        table.add_row(
            f"× {step.factor:g}",
            str(step.users),
            str(step.workers),
            str(step.web_replicas),
            f"{step.postgres_cores:.1f} cores, {step.connections} connections",
            f"{step.broker_share:.0%} of a core",
            f"{step.monthly_cost:,.0f} {step.currency}",
        )
    out.print("\nwhen it grows:", highlight=False)
    out.print(table)
    for step in steps:
        for change in (*step.changes, f"the first to give way is {step.first}"):
            out.print(f"  × {step.factor:g}: {change}", highlight=False, soft_wrap=True)
