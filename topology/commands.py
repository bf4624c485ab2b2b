"""The command line of each process, as a pure function of the topology: pods and local processes run the same ones."""

from __future__ import annotations

from topology.model import Pool, Topology

CELERY_APP = "superset.tasks.celery_app:app"
BEAT_APP = "runtime.start.beat:app"
#: Which tier a process is, for what differs between them (the size of the metadata connection pool).
ROLE_ENV = "SUPERSET_ASYNC_ROLE"
#: Path of the topology's JSON.
TOPOLOGY_ENV = "SUPERSET_ASYNC_TOPOLOGY"
#: Path of the team's own module, where the platform carries it.
OWN_MODULE_ENV = "SUPERSET_ASYNC_CONFIG_MODULE"
#: Secret of the client at the identity provider, or password of the account that looks users up in the directory.
SIGN_ON_SECRET_ENV = "SIGN_ON_SECRET"  # noqa: S105 a variable's name

#: Where a pod has the authority of the directory's certificate.
LDAP_CA_FILE = "/etc/superset-async-sign-on/ca.crt"


def web(topology: Topology) -> list[str]:
    """gunicorn with threads, on the web tier's port; the application is loaded and warmed once, before it forks.

    `--keep-alive` is above the 60 s that load balancers keep an idle connection: gunicorn's own 2 s reset clients that
    reused one (measured). A stopping process has as long for the requests that it holds as a request may take; the
    default is 30 s.
    """
    tier = topology.web
    return [
        "gunicorn",
        # Where it listens, at every address of both families as far as the kernel has them; and its class of worker.
        "--config=python:runtime.start.gunicorn_config",
        f"--workers={tier.processes}",
        f"--threads={tier.threads}",
        f"--timeout={tier.request_timeout_seconds}",
        f"--graceful-timeout={tier.request_timeout_seconds}",
        "--keep-alive=75",
        "--worker-tmp-dir=/dev/shm",
        "--preload",
        "runtime.start.wsgi:application_factory()",
    ]


def worker(pool: Pool) -> list[str]:
    """A Celery worker of `pool`."""
    size = (
        f"--autoscale={pool.max_workers * pool.concurrency},{pool.min_workers * pool.concurrency}"
        if pool.elastic
        else f"--concurrency={pool.concurrency}"
    )
    command = [
        "celery",
        "--quiet",
        f"--app={CELERY_APP}",
        "worker",
        "--pool=prefork",
        size,
        f"--queues={','.join(pool.queues)}",
        f"--hostname={pool.name}@%h",
        f"--prefetch-multiplier={pool.prefetch_multiplier}",
        f"--max-tasks-per-child={pool.max_tasks_per_child}",
        "--without-gossip",
        "--without-mingle",
        "--loglevel=INFO",
    ]
    if pool.max_memory_per_child_bytes is not None:
        command.insert(-3, f"--max-memory-per-child={pool.max_memory_per_child_bytes // 1024}")
    return command


def beat(schedule_file: str) -> list[str]:
    """Celery beat, which keeps when each job last ran in `schedule_file`; it needs no Superset."""
    return [
        "celery",
        "--quiet",
        f"--app={BEAT_APP}",
        "beat",
        f"--schedule={schedule_file}",
        "--pidfile=",
        "--loglevel=INFO",
    ]


def exporter() -> list[str]:
    """The exporter of queue metrics; it needs no Superset."""
    return ["python", "-m", "runtime.observability.exporter"]


def ready() -> list[str]:
    """Wait until the metadata database is prepared; it needs no Superset."""
    return ["python", "-m", "runtime.start.ready"]


def canceller() -> list[str]:
    """What beat starts when it has statements to cancel."""
    return ["python", "-m", "runtime.start.canceller"]


def migrate() -> list[str]:
    """Metadata migrations, roles, the administrator and the declared databases; safe to run again."""
    return ["python", "-m", "runtime.start.init"]
