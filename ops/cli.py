"""`superset-async`: the command line of the project."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from client.output import Format
from local.progress import Steps, console
from ops import audit, checklist, cost, doctor, explain, first_stack, live, query, size, slow, status
from ops.options import RowFormat
from topology.checkout import require_checkout
from topology.problems import MendableError

app = typer.Typer(
    help="Run Apache Superset's asynchronous queries: on this machine, or as manifests for a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
query.app.command(name="list")(live.list_queries)
app.add_typer(query.app, name="query")
app.command(name="queue")(live.queue)
app.add_typer(live.worker, name="worker")
app.command(name="doctor")(doctor.doctor)
app.command(name="audit")(audit.audit)
app.command(name="cost", rich_help_panel=None)(cost.cost)
app.command(name="checklist")(checklist.checklist)
app.command(name="status")(status.status)
app.command(name="slow")(slow.slow)
app.command(name="size")(size.size)
app.command(name="init")(first_stack.init)
app.command(name="explain")(explain.explain)
out = console()
err = console(stderr=True)

Stack = Annotated[
    str, typer.Option(help="stack file to read: stacks/Pulumi.STACK.yaml, of the checkout or else of the working directory")
]

# Each command imports what it needs: a query should not wait for the libraries of the broker, nor `--help` for any.


@app.command()
def up(
    stack: Stack = "local",
    observe: Annotated[bool, typer.Option("--observe", help="with Prometheus and Alertmanager beside it")] = False,
) -> None:
    """Start the platform of a stack file on this machine, and answer one query and one chart with it.

    Waits until each part does its work. What runs already stays; what an earlier run left half dead is cleared first.
    """
    require_checkout("up")
    from local import first_queries, platform

    steps = Steps(out)
    running = platform.up(stack, steps, observe=observe)
    known = platform.status(stack)
    first_queries.show(known, out)
    out.print(f"\nSuperset: [bold]{known['url']}[/]  user [bold]{known['username']}[/]", highlight=False)
    if observe:
        watch = running.topology.monitoring
        out.print(
            f"Prometheus: http://127.0.0.1:{watch.prometheus_port}  Alertmanager: http://127.0.0.1:{watch.alertmanager_port}"
        )
    # Logs of CI are read by many, and kept.
    if running.password_is_new and out.is_terminal:
        out.print(f"password [bold]{running.secrets['ADMIN_PASSWORD']}[/] (shown this once)", highlight=False)
    out.print(f"password file: {known['password_file']}\nstop it: make down{_of(stack)}", highlight=False)


@app.command()
def down(
    stack: Stack = "local",
    now: Annotated[bool, typer.Option("--now", help="do not wait for running queries; they run again or fail")] = False,
) -> None:
    """Stop the platform; data, passwords and queued queries stay. Running queries may finish first."""
    require_checkout("down")
    from local import platform

    platform.down(stack, Steps(out), now=now)


@app.command()
def clean(stack: Stack = "local", yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Stop the platform and delete its data, passwords included. Asks first."""
    require_checkout("clean")
    from local import platform
    from local.state import StateFolder

    folder = StateFolder.of(stack).root
    if not yes and not typer.confirm(f"Delete {folder} with all data of stack {stack}?"):
        raise typer.Exit(1)
    platform.clean(stack, Steps(out))


@app.command()
def logs(
    stack: Stack = "local",
    process: Annotated[str | None, typer.Argument(help="one process, such as web; default: all")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until Ctrl-C")] = False,
) -> None:
    """Show the last lines of the logs."""
    require_checkout("logs")
    from local.state import StateFolder

    folder = StateFolder.of(stack).logs
    files = [path for path in sorted(folder.glob("*.log")) if process in (None, path.stem)]
    if not files:
        known = ", ".join(sorted(path.stem for path in folder.glob("*.log"))) or "none yet: run `make up`"
        err.print(f"no log of {process or 'any process'} in {folder}; there are: {known}")
        raise typer.Exit(2)
    names = [str(path) for path in files]
    os.execvp("tail", ["tail", "-n", "20", *(["-F"] if follow else []), *names])  # noqa: S606


@app.command()
def preflight(stack: Stack = "minimal") -> None:
    """Say what keeps a stack from coming up on its cluster, with the command that mends each; code 1 where something does."""
    from ops.preflight import preflight as ask

    raise typer.Exit(0 if ask(stack, out) else 1)


@app.command()
def destroy(
    stack: Stack = "minimal",
    with_data: Annotated[bool, typer.Option("--with-data", help="delete the data too")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Delete what `pulumi up` made of a stack. Its data stays, and the next `up` finds it, unless --with-data. Asks first."""
    from ops import destroy as steps
    from ops import engine
    from ops.stack_cluster import cluster_of

    resources = engine.resources(stack)
    out.print(f"{'deleted too' if with_data else 'kept'}, with every volume in namespace {steps.namespace_of(resources)}:")
    for line in steps.kept(resources):
        out.print(f"  {line}", highlight=False, markup=False)
    if not yes and not typer.confirm(f"Destroy stack {stack}{' with all its data' if with_data else ''}?"):
        raise typer.Exit(1)
    with cluster_of(stack) as cluster:
        for command in steps.commands(stack, resources, cluster, with_data=with_data):
            engine.run(command)


@app.command()
def recover(stack: Stack = "minimal", yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Put in order what a `pulumi up` that was killed left behind: its lock, and what it had begun. Asks first."""
    from ops import engine
    from ops import recover as steps
    from ops.stack_cluster import cluster_of

    if not yes and not typer.confirm(f"Is no `pulumi` at work on stack {stack} any more, on any machine?"):
        raise typer.Exit(1)
    engine.run(steps.unlocked(stack))
    try:
        state = engine.exported(stack)
    except engine.StepError as error:
        raise steps.way_out(error, stack) from None
    deployment = engine.deployment(state)
    creations = list(steps.begun(deployment))
    with cluster_of(stack) as cluster:
        found = steps.on_cluster(cluster, stack, creations)
    for each in creations:
        out.print(f"{each}: {'is there' if each in found else 'was not made'}", highlight=False, markup=False)
    engine.replace(stack, {**state, "deployment": steps.settled(deployment, found)})
    engine.run(steps.refreshed(stack))
    out.print(f"the state is the cluster's again: pulumi up --stack {stack}", highlight=False)


@app.command()
def render(
    stack: Stack = "minimal",
    output: Annotated[Path | None, typer.Option(help="folder to write; default: build/STACK")] = None,
    secrets_file: Annotated[
        Path | None, typer.Option(help="also write the generated secrets, as manifests, to this file (mode 0600)")
    ] = None,
) -> None:
    """Write a stack's Kubernetes manifests, one file a kind, in the order for `kubectl apply --server-side -f`.

    Secret values are placeholders, which nothing accepts as a password; with --secrets-file the Secrets go there instead.
    """
    from infra.render import render as write_manifests

    folder = output or Path("build") / stack
    with Steps(out).step(f"Render {stack} to {folder}"):
        written = write_manifests(stack, folder, secrets_file=secrets_file)
    objects = sum(path.read_text().count("\nkind: ") for path in written)
    out.print(f"{objects} objects in {len(written)} files", highlight=False)
    if secrets_file is None:
        out.print("their Secrets hold placeholders: pass --secrets-file FILE for generated values", highlight=False)
    else:
        command = f"kubectl apply --server-side -f {folder}/00-namespace.yaml -f {secrets_file} -f {folder}"
        out.print(command, highlight=False, soft_wrap=True)


@app.command()
def estimate(
    stack: Annotated[str, typer.Option(help="stack file to read: stacks/Pulumi.STACK.yaml")] = "aws-enterprise",
    format: RowFormat = Format.TABLE,
) -> None:
    """Show what a stack on AWS would cost in a month, at rest and with every pool at its most workers.

    The prices are AWS's list prices of a day, on demand and in us-east-1, from a table by hand: an estimate, no bill.
    """
    from ops.estimate import show

    show(stack, format)


@app.command()
def policy(
    stack: Stack = "minimal",
    config: Annotated[Path | None, typer.Option(help="JSON as for pulumi's --policy-pack-config")] = None,
) -> None:
    """Check the resources of a stack against the policy pack, without the engine. Exit code 1: it must not be deployed."""
    from policies.check import run as check

    raise typer.Exit(check(stack, config))


def _of(stack: str) -> str:
    """What a make target needs to know of a stack that is not its default."""
    return "" if stack == "local" else f" STACK={stack}"


def main() -> None:
    """Run the command; what a person can mend is printed without a traceback, exit code 1."""
    run(app)


def run(command: Callable[[], object]) -> None:
    """Call `command`; see `main`."""
    for name in ("stdout", "stderr"):
        # Closed by who called (`>&-`): Python then has no stream at all.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - until the process ends
    try:
        command()
    except MendableError as error:
        err.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
