"""The local platform: a topology as supervised processes on this machine, up and down again without losing anything."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from local import binaries, drivers, health, observing, own_superset, postgres, preflight
from local.processes import (
    Process,
    database_uris,
    processes,
    redis_acl,
    redis_acl_file,
    redis_config,
    redis_config_file,
    superset_environment,
    supervisor_config,
)
from local.progress import Steps
from local.state import PROJECT, StateFolder, ensure_secrets, program_digest, web_url, write_private
from local.supervision import ProcessState, Supervisor, end_leftovers, leftovers, wait_until
from runtime.environment import audit_records
from topology import own_module, stack_file
from topology.model import Topology
from topology.own_module import OwnModule
from topology.plan import plan
from topology.problems import MendableError, Problem, StackError

#: The most seconds that one part may take until it does its work. A cold Superset needs about 30 on two busy cores.
PATIENCE_SECONDS = 180
#: As often a part is started while `make up` waits for it; the supervisor goes on for days.
_STARTS = 10
_LOG_LINES = 15
#: Lines of the bootstrap that begin so are for who started the platform.
WARNING = "warning: "


class PlatformError(MendableError):
    """A part that did not come up or go down; says which, its last log lines, and what to do."""


@dataclass(frozen=True)
class Platform:
    """One stack on this machine: its topology, its folder and its secrets."""

    topology: Topology
    folder: StateFolder
    secrets: Mapping[str, str]
    password_is_new: bool
    #: Whether Prometheus and Alertmanager run beside it.
    observed: bool = False
    #: The team's own module, as the processes have it.
    own_module: OwnModule | None = None

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor of this stack's processes."""
        return Supervisor(self.folder)

    @property
    def processes(self) -> tuple[Process, ...]:
        """Every process of this stack, data stores first."""
        beside = observing.processes(self.topology, self.folder) if self.observed else ()
        return (*processes(self.topology, self.folder, self.secrets, self.own_module), *beside)

    @property
    def ports(self) -> dict[str, tuple[str, int]]:
        """Each listening port by process: the key of the stack file that sets it, and its number."""
        return preflight.ports(self.topology) | (observing.ports(self.topology) if self.observed else {})


def planned(stack: str) -> Topology:
    """The topology of a stack file for this machine; StackError with every problem, or where it is for another platform."""
    topology = plan(stack, stack_file.read(stack))
    if topology.platform != "local":
        fix = "Use STACK=local, or a stack file with superset-async:platform: local"
        raise StackError(stack, [Problem("platform", topology.platform, "does not run on this machine", fix)])
    if problems := own_module.read(topology)[1]:
        raise StackError(stack, problems)
    return topology


def up(stack: str, steps: Steps, *, observe: bool = False) -> Platform:
    """Start everything that the stack file says, with `observe` Prometheus and Alertmanager beside it, and wait until each part
    does its work.

    What runs already stays when nothing changed; a changed stack is stopped and started anew. Raises StackError,
    PreflightError, MissingProgramError or PlatformError.
    """
    topology = planned(stack)
    folder = StateFolder.of(stack)
    binaries.superset_python()
    with preflight.only_one(folder):
        password_is_new = not folder.bootstrapped.exists()
        module, _ = own_module.read(topology)
        platform = Platform(topology, folder, ensure_secrets(folder, topology), password_is_new, observe, module)
        own_superset.check(topology)
        drivers.check(topology, database_uris(topology, platform.secrets))
        config = supervisor_config(folder, platform.processes)
        _clear_the_way(platform, config, steps)
        if not platform.supervisor.alive():
            preflight.check(platform.ports, folder)
            with steps.step("Files and supervisor"):
                _write_files(platform, config)
                platform.supervisor.start()
        _start(platform, steps)
    return platform


def down(stack: str, steps: Steps, *, now: bool = False) -> None:
    """Stop everything and wait for it: queries that run may finish (at most the pool's grace period), unless `now`."""
    folder = StateFolder.of(stack)
    if not folder.root.exists():
        steps.note(f"stack {stack} was never started here; {_elsewhere(stack)}")
        return
    with preflight.only_one(folder):
        _stop(folder, steps, now=now)


def _elsewhere(stack: str) -> str:
    """Which stacks run here, where `stack` has no state; StackError where there is no such stack at all."""
    stack_file.read(stack)
    running = [folder.root.name for folder in StateFolder.all() if Supervisor(folder).alive()]
    return f"running: {', '.join(running)}" if running else "nothing runs"


def clean(stack: str, steps: Steps) -> None:
    """Stop everything and delete the state folder with its data and passwords."""
    folder = StateFolder.of(stack)
    if not folder.root.exists():
        steps.note(f"stack {stack} has no data here; {_elsewhere(stack)}")
        return
    with preflight.only_one(folder):
        _stop(folder, steps, now=True)
    with steps.step(f"Delete {folder.root}"):
        shutil.rmtree(folder.root)


def status(stack: str) -> dict[str, Any]:
    """What runs and how to reach it: url, username, password_file, database_id, dataset_id, processes, ports, state, problems,
    warnings.

    `state` is stopped, running, or degraded: some process is not up or does not answer, the disk is full, the program or the
    stack file has changed since, or an earlier run left processes without a supervisor. `problems` says which, in words.
    `warnings` is what the init job has told: nothing of it keeps the platform from running.
    """
    folder = StateFolder.of(stack)
    known: dict[str, Any] = {"stack": stack, "state": "stopped", "processes": {}, "ports": {}, "problems": []}
    supervisor = Supervisor(folder)
    states = supervisor.states() if supervisor.alive() else []
    if states:
        known["state"] = "running" if all(process.running for process in states) else "degraded"
        known["processes"] = {
            process.name: {"state": process.state, "pid": process.pid, "description": process.description}
            for process in states
        }
    elif left := leftovers(folder):
        known["state"] = "degraded"
        known["problems"] = [f"{len(left)} processes have lost their supervisor: `make up` or `make down` ends them"]
    topology = folder.read_topology()
    if topology is None:
        if states:
            known |= {"state": "degraded", "problems": ["it was started by another version of this project: `make up`"]}
        return known
    if states:
        known["problems"] = [
            *(
                f"{process.name} is {process.state.lower()}: {process.description}"
                for process in states
                if not process.running
            ),
            *health.problems(topology, ensure_secrets(folder, topology), folder),
            *out_of_date(stack, folder),
        ]
        if known["problems"]:
            known["state"] = "degraded"
    listening = preflight.ports(topology)
    if observing.NAMES[0] in known["processes"]:
        listening |= observing.ports(topology)
    bootstrapped: dict[str, Any] = json.loads(folder.bootstrapped.read_text()) if folder.bootstrapped.exists() else {}
    return known | {
        "url": web_url(topology),
        "username": topology.admin_username,
        "password_file": str(folder.password_file),
        "database_id": bootstrapped.get("database_id"),
        "dataset_id": bootstrapped.get("dataset_id"),
        "dashboard": bootstrapped.get("dashboard"),
        "state_folder": str(folder.root),
        "ports": {name: port for name, (_, port) in listening.items()},
        "warnings": warnings(folder),
    }


def out_of_date(stack: str, folder: StateFolder) -> list[str]:
    """What has changed since the platform was started, each in a sentence."""
    try:
        changed = _changed(folder, planned(stack))
    except StackError:
        return [f"the stack file cannot be used as it is now: `make up STACK={stack}` says why"]
    return [f"{what} has changed since it was started: `make up STACK={stack}` starts it anew" for what in changed]


def _changed(folder: StateFolder, topology: Topology) -> list[str]:
    """Which of the two that a person writes is another one than was started."""
    now = {
        "the stack file": (folder.topology, topology.model_dump_json(indent=1)),
        "the program": (folder.program, program_digest()),
    }
    return [what for what, (path, text) in now.items() if not path.exists() or path.read_text() != text]


def _clear_the_way(platform: Platform, config: str, steps: Steps) -> None:
    folder = platform.folder
    if platform.supervisor.alive():
        changed = _changed(folder, platform.topology)
        if not folder.supervisor_config.exists() or folder.supervisor_config.read_text() != config:
            changed.append("a process's command or environment")
        if not changed:
            steps.note("already running; checking that each part does its work")
            return
        steps.note(f"{changed[0]} changed since it was started: starting anew")
        _stop(folder, steps, now=False)
    elif found := leftovers(folder):
        with steps.step(f"End {len(found)} processes that an earlier run left without a supervisor"):
            end_leftovers(folder)


def _write_files(platform: Platform, config: str) -> None:
    folder, topology, secrets = platform.folder, platform.topology, platform.secrets
    write_private(folder.topology, topology.model_dump_json(indent=1))
    write_private(folder.program, program_digest())
    own_superset.write_module(folder, platform.own_module)
    write_private(folder.supervisor_config, config)
    for instance in topology.redis:
        folder.redis(instance.name).mkdir(exist_ok=True, mode=0o700)
        write_private(redis_acl_file(folder, instance), redis_acl(instance, secrets))
        write_private(redis_config_file(folder, instance), redis_config(folder, instance))
    if platform.observed:
        observing.write(topology, folder)
    postgres.ensure_data_directory(folder, secrets)


def _start(platform: Platform, steps: Steps) -> None:
    topology, secrets = platform.topology, platform.secrets
    stores = {instance.name for instance in topology.redis} | {"postgres"}
    for name in stores:
        platform.supervisor.start_process(name)
    with steps.step("PostgreSQL accepts connections"):
        _await(platform, "postgres", lambda: postgres.ready(topology))
        postgres.ensure_databases(topology, secrets)
    with steps.step("Valkey has its data and answers"):
        for instance in topology.redis:
            _await(platform, instance.name, lambda it=instance: health.redis_ready(it, secrets))
    _bootstrap(platform, steps)
    workers = [f"worker-{pool.name}" for pool in topology.pools]
    for name in ("web", *workers):
        platform.supervisor.start_process(name)
    with steps.step("Web tier is warm and answers"):
        _await(platform, "web", lambda: health.web_ready(topology))
    for pool in topology.pools:
        with steps.step(f"Worker pool {pool.name} takes messages from {', '.join(pool.queues)}"):
            _await(platform, f"worker-{pool.name}", lambda it=pool: health.worker_ready(topology, it, secrets))
    with steps.step("Exporter serves the queues' metrics"):
        platform.supervisor.start_process("exporter")
        _await(platform, "exporter", lambda: health.exporter_ready(topology))
    if platform.observed:
        with steps.step("Prometheus and Alertmanager are ready"):
            for name in observing.NAMES:
                platform.supervisor.start_process(name)
                _await(platform, name, lambda it=name: observing.ready(topology, it))
    # Last: it is not needed for an answer, and loading Superset once more would slow the others down.
    with steps.step("Beat is started"):
        platform.supervisor.start_process("beat")
        _await(platform, "beat", lambda: _state(platform, "beat").running)


def _bootstrap(platform: Platform, steps: Steps) -> None:
    """Migrations, roles, administrator, databases and sample in one Superset start-up; skipped while nothing of it changed."""
    folder = platform.folder
    fingerprint = _bootstrap_fingerprint(platform.topology, platform.own_module)
    if folder.bootstrapped.exists() and json.loads(folder.bootstrapped.read_text())["fingerprint"] == fingerprint:
        return
    log = folder.logs / "bootstrap.log"
    with steps.step("Metadata, administrator and sample data are in place"):
        with log.open("w") as file:
            process = subprocess.Popen(
                [str(binaries.superset_python()), "-m", "local.bootstrap", str(folder.bootstrapped), fingerprint],
                cwd=PROJECT,
                env=superset_environment(platform.topology, folder, platform.secrets, "init", platform.own_module),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            try:
                code = process.wait(timeout=10 * 60)
            except BaseException:
                process.terminate()
                raise
        # Its own steps are on its stdout too, and its log is of the last run alone.
        with (folder.audit / "bootstrap.jsonl").open("a", encoding="utf-8") as trail:
            trail.writelines(line for line in log.open(encoding="utf-8", errors="replace") if audit_records.is_record(line))
        if code != 0:
            raise PlatformError(f"the bootstrap ended with exit code {code}; its last lines ({log}):\n{_tail(log)}")
    for warning in warnings(folder):
        steps.note(warning)


def warnings(folder: StateFolder) -> list[str]:
    """What the last init job has told the person who starts the stack; nothing where none has run."""
    log = folder.logs / "bootstrap.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]


def _bootstrap_fingerprint(topology: Topology, module: OwnModule | None) -> str:
    """A hash of everything that the bootstrap's result depends on."""
    digest = sha256()
    sources = sorted([*(PROJECT / "runtime").rglob("*.py"), PROJECT / "local/bootstrap.py"])
    for path in (*sources, PROJECT / "requirements/superset.txt"):
        digest.update(path.read_bytes())
    groups = [tenant.groups for tenant in topology.tenants]
    own = (topology.superset, module.digest if module else None, groups)
    made_from = (topology.databases, topology.admin_username, topology.caching, topology.celery.queues, own)
    digest.update(repr(made_from).encode())
    return digest.hexdigest()


def _await(platform: Platform, name: str, condition: Callable[[], bool]) -> None:
    log = platform.folder.logs / f"{name}.log"
    starts: set[int] = set()

    def works() -> bool:
        if condition():
            return True
        starts.add(_state(platform, name).started)
        if len(starts) > _STARTS:
            raise PlatformError(f"{name} does not stay up; its last lines ({log}):\n{_tail(log)}")
        return False

    if not wait_until(works, PATIENCE_SECONDS, pause=0.2):
        raise PlatformError(
            f"{name} is {_state(platform, name).state.lower()} but did not do its work within {PATIENCE_SECONDS} s; "
            f"its last lines ({log}):\n{_tail(log)}"
        )


def _stop(folder: StateFolder, steps: Steps, *, now: bool) -> None:
    supervisor = Supervisor(folder)
    if supervisor.alive():
        order = _stop_order(folder, [process.name for process in supervisor.states()])
        if not now:
            _say_what_is_waited_for(folder, steps)
        for tier in order:
            _stop_tier(folder, supervisor, tier, steps, now=now)
        supervisor.shutdown()
    if left := end_leftovers(folder):
        steps.note(f"ended {left} processes that had lost their supervisor")


def _say_what_is_waited_for(folder: StateFolder, steps: Steps) -> None:
    topology = folder.read_topology()
    if topology is None:
        return
    if count := health.running_tasks(topology, ensure_secrets(folder, topology)):
        longest = max(pool.grace_period_seconds for pool in topology.pools)
        steps.note(
            f"{count} queries still run and may finish, for at most {longest} s; `superset-async down --now` does not wait"
        )


def _stop_order(folder: StateFolder, names: list[str]) -> list[list[str]]:
    """Names by tier: what submits, what executes, what stores."""
    workers = [name for name in names if name.startswith("worker-")]
    front = [name for name in names if name in ("web", "beat", "exporter", *observing.NAMES)]
    return [tier for tier in (front, workers, [name for name in names if name not in front + workers]) if tier]


def _stop_tier(folder: StateFolder, supervisor: Supervisor, names: list[str], steps: Steps, *, now: bool) -> None:
    with steps.step(f"Stop {', '.join(names)}"):
        for name in names:
            supervisor.stop_process(name)
        if now and names[0].startswith("worker-"):
            for name in names:
                supervisor.signal_process(name, "QUIT")
        stopped = wait_until(lambda: _all_stopped(supervisor, names), 15 * 60, pause=0.1)
    if not stopped:
        raise PlatformError(f"{', '.join(names)} did not stop; see {folder.logs}, then try `superset-async down --now`")


def _all_stopped(supervisor: Supervisor, names: list[str]) -> bool:
    return all(process.pid == 0 for process in supervisor.states() if process.name in names)


def _state(platform: Platform, name: str) -> ProcessState:
    return next(process for process in platform.supervisor.states() if process.name == name)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    return "\n".join(f"    {line}" for line in lines) or "    (no output)"
