"""`superset-async checklist`: the list before production, each line from dated evidence of the running system."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Annotated, Any

import httpx
import typer

from client.errors import UsageError
from monitoring import alerts
from ops.kubectl import listed
from ops.options import Connect, connected, reported
from topology.model import Topology

#: Begins the name of each of this project's alerts.
OURS = "Async"
#: Seconds that a Prometheus may take for one answer.
SECONDS = 10
MONITORING = "monitoring watches it, and its alerts are loaded and go somewhere"
BACKUPS = "the metadata database is dumped, and a dump was put back"
PEOPLE = "whoever is on call has done the drill"


class Checked(IntEnum):
    """How `checklist` ends, beside the exit codes of `query`."""

    ALL_MET = 0
    MISSING = 13


@connected
def checklist(
    *,
    users: Annotated[int, typer.Option("--users", min=1, help="users to be expected at once")],
    prometheus: Annotated[str | None, typer.Option(help="address of the Prometheus that watches it", metavar="URL")] = None,
    namespace: Annotated[
        str | None, typer.Option(help="the namespace, for dumps: asked by kubectl and its kubeconfig", metavar="NS")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    connect: Connect,
) -> None:
    """Check each line of the list before production by what the running system shows; nothing is restarted or changed.

    Exit code 13: something is missing, and the list says how to get it. The user must be allowed to read Superset's action log.
    """
    with reported():
        to = connect()
        home = to.home.topology if to.home else None
        with to.client() as client:
            lines = client.operations.checklist(users)
        lines += [
            monitored(*_prometheus(prometheus or _beside(home)), home),
            dumped(listed(namespace, "cronjobs,jobs") if namespace else None),
            _line(
                "drill",
                PEOPLE,
                "missing",
                "no system knows",
                "docs/operating.md has the drill; write its date down with yours",
            ),
        ]
    if as_json:
        sys.stdout.write(json.dumps({"lines": lines}, indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("".join(f"{each}\n" for each in shown(lines)))
    raise typer.Exit(Checked.ALL_MET if all(line["state"] == "met" for line in lines) else Checked.MISSING)


def shown(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines as people read them."""
    for line in lines:
        yield f"{'[x]' if line['state'] == 'met' else '[ ]'} {line['line']}  [{line['id']}]"
        yield f"      seen: {line['evidence']}"
        if line["state"] != "met":
            yield f"      get it: {line['get']}"


def _beside(home: Topology | None) -> str | None:
    """The Prometheus that this machine may run beside its platform."""
    return f"http://127.0.0.1:{home.monitoring.prometheus_port}" if home else None


def _prometheus(url: str | None) -> tuple[str, dict[str, Any] | None, dict[str, Any] | None]:
    """Its address, rules and Alertmanagers as its API has them; None where it does not answer."""
    if url is None:
        return "", None, None
    try:
        rules, managers = (
            httpx.get(f"{url.rstrip('/')}/api/v1/{what}", timeout=SECONDS).raise_for_status().json()["data"]
            for what in ("rules", "alertmanagers")
        )
    except httpx.InvalidURL as error:
        raise UsageError(f"--prometheus {url}: {error}") from None
    except (httpx.HTTPError, ValueError, LookupError):
        return url, None, None
    return url, rules, managers


def monitored(
    url: str, rules: Mapping[str, Any] | None, managers: Mapping[str, Any] | None, topology: Topology | None
) -> dict[str, Any]:
    """The line of monitoring: the stack's alerts are loaded (any of this project's, where the stack is not known)."""
    if rules is None or managers is None:
        said = f"{url} does not answer" if url else "no Prometheus was named"
        get = "--prometheus URL; on this machine: superset-async up --observe; on a cluster superset-async:metrics: {rules: true}"
        return _line("monitoring", MONITORING, "missing", said, get)
    loaded = {rule["name"]: rule for group in rules["groups"] for rule in group["rules"] if rule["type"] == "alerting"}
    wanted = set(alerts.texts(topology)) if topology else set[str]()
    ours = {name: rule for name, rule in loaded.items() if name in wanted or (not wanted and name.startswith(OURS))}
    unknown = sorted(wanted - set(loaded))
    failing = sorted(name for name, rule in ours.items() if rule.get("health") not in (None, "ok", "unknown"))
    active = [each["url"] for each in managers["activeAlertmanagers"]]
    last = max((rule.get("lastEvaluation", "") for rule in ours.values()), default="")
    evidence = (
        f"{len(ours)} alerts loaded at {url}, last evaluated {last or 'never'}; Alertmanagers: {', '.join(active) or 'none'}"
    )
    problems = [
        *([f"not loaded: {', '.join(unknown)}"] if unknown or not ours else []),
        *([f"rules fail: {', '.join(failing)}"] if failing else []),
        *([] if active else ["no Alertmanager is told"]),
    ]
    get = f"{'; '.join(problems)}: docs/metrics.md says how they are loaded" if problems else ""
    return _line("monitoring", MONITORING, "missing" if problems else "met", evidence, get)


def dumped(objects: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """The line of backups, from the namespace's CronJobs and Jobs; None: it was not asked."""
    if objects is None:
        get = "--namespace NS asks the cluster; this machine's platform has no dumps"
        return _line("backups", BACKUPS, "missing", "no cluster was asked", get)
    dumps = [
        str(each["status"]["lastSuccessfulTime"])
        for each in objects
        if _dumps(each) and each.get("status", {}).get("lastSuccessfulTime")
    ]
    puts = [
        str(each["status"]["completionTime"])
        for each in objects
        if each["kind"] == "Job" and "restore" in each["metadata"]["name"] and each.get("status", {}).get("succeeded")
    ]
    last, put = max(dumps, default=None), max(puts, default=None)
    evidence = f"last dump {last or 'never'}, last put back {put or 'never'}"
    get = (
        "superset-async:postgres: {backup: …}"
        if not last
        else "kubectl create job --from=cronjob/… of the suspended CronJob that restores, in a namespace of its own"
    )
    return _line("backups", BACKUPS, "met" if last and put else "missing", evidence, "" if last and put else get)


def _dumps(each: Mapping[str, Any]) -> bool:
    return each["kind"] == "CronJob" and "backup" in each["metadata"]["name"] and not each["spec"].get("suspend")


def _line(id: str, line: str, state: str, evidence: str, get: str) -> dict[str, Any]:
    return {"id": id, "line": line, "state": state, "evidence": evidence, "get": get}
