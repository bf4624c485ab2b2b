"""`superset-async doctor`: what is wrong with a platform, with evidence and what mends it. It changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Annotated, Any

import typer

from client.errors import ClientError, UnexpectedAnswerError, UnreachableError
from ops.connection import Connection
from ops.kubectl import listed
from ops.options import Connect, connected, reported

#: Restarts of so many hours are news.
RECENT = timedelta(hours=1)


class Worst(IntEnum):
    """How `doctor` ends, beside the exit codes of `query`: by the worst that it found."""

    HEALTHY = 0
    WARNING = 13
    CRITICAL = 14


@connected
def doctor(
    *,
    namespace: Annotated[
        str | None, typer.Option(help="also look at the pods of this namespace, by kubectl and its kubeconfig", metavar="NS")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    connect: Connect,
) -> None:
    """Say what is wrong: queries that stay pending, full stores, crashing workers, stampedes; with evidence and what mends it.

    Exit code 0: nothing; 13: warnings; 14: something critical. The user must be allowed to read Superset's action log.
    """
    with reported():
        findings = [*_asked(connect()), *(of_pods(listed(namespace, "pods"), datetime.now(UTC)) if namespace else ())]
    if as_json:
        sys.stdout.write(json.dumps({"findings": findings}, indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("".join(line + "\n" for line in lines(findings)))
    raise typer.Exit(worst(findings))


def worst(findings: Sequence[Mapping[str, Any]]) -> Worst:
    """The exit code for these findings."""
    severities = {finding["severity"] for finding in findings}
    return Worst.CRITICAL if "critical" in severities else Worst.WARNING if severities else Worst.HEALTHY


def lines(findings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Findings as people read them."""
    if not findings:
        yield "nothing is wrong"
    for finding in findings:
        yield f"{finding['severity'].upper()}  {finding['what']}  [{finding['id']}]"
        yield from (f"  seen: {each}" for each in finding["evidence"])
        yield f"  mend: {finding['fix']}"


def _asked(connection: Connection) -> list[dict[str, Any]]:
    """What the web tier finds; where it does not answer, that is what is wrong."""
    try:
        with connection.client() as client:
            return client.operations.doctor()["findings"]
    except (UnreachableError, UnexpectedAnswerError) as error:
        return [no_answer(connection, error)]


def no_answer(connection: Connection, error: ClientError) -> dict[str, Any]:
    """The finding for a web tier that does not answer, or answers with an error."""
    home = connection.home
    looks = (
        f"superset-async status --stack {home.stack}; superset-async logs web --stack {home.stack}; make up STACK={home.stack}"
        if home
        else "kubectl -n NAMESPACE get pods; kubectl -n NAMESPACE logs deployment/web"
    )
    return {
        "id": "web-unreachable",
        "mode": "pending",
        "severity": "critical",
        "what": f"the web tier at {connection.url} cannot answer: no query can be sent, and nothing else can be asked",
        "evidence": [str(error)],
        "fix": looks,
    }


def of_pods(pods: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[dict[str, Any]]:
    """What the pods of a namespace (as Kubernetes has them) say: restarts, killed for memory, not started."""
    for pod in pods:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        for container in pod.get("status", {}).get("containerStatuses", ()):
            look = f"kubectl -n {namespace} logs {name} -c {container['name']}"
            last = container.get("lastState", {}).get("terminated")
            waiting = container.get("state", {}).get("waiting")
            if last and now - datetime.fromisoformat(last["finishedAt"]) <= RECENT:
                killed = last.get("reason") == "OOMKilled"
                yield _of_pod(
                    "pod-oom" if killed else "pod-restarted",
                    "critical" if killed else "warning",
                    f"pod {name} was {'killed for want of memory' if killed else 'restarted'} in the last hour",
                    [
                        f"container {container['name']}: {last.get('reason', 'ended')}, exit code {last['exitCode']}, "
                        f"at {last['finishedAt']}; {container['restartCount']} restarts in all"
                    ],
                    "resources: {memory_limit: …} higher in the stack file, then pulumi up"
                    if killed
                    else f"{look} --previous",
                )
            if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
                yield _of_pod(
                    "pod-waits",
                    "critical",
                    f"pod {name} does not run",
                    [f"container {container['name']}: {waiting.get('reason')}: {waiting.get('message', '')}"],
                    f"kubectl -n {namespace} describe pod {name}; {look} --previous",
                )


def _of_pod(id: str, severity: str, what: str, evidence: list[str], fix: str) -> dict[str, Any]:
    return {"id": id, "mode": "workers", "severity": severity, "what": what, "evidence": evidence, "fix": fix}
