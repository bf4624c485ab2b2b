"""`python -m runtime.start.ready`: wait until the init job has prepared the metadata database for this image.

Web, workers and beat run it before they start, so that their order holds whoever applies them. It starts no Superset, and
looks once a second: half a second and 40 MB where everything is ready already.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib import metadata as packages
from pathlib import Path
from types import FrameType

from tenacity import RetryError, Retrying, retry_if_not_result, stop_after_delay, wait_fixed

from runtime.environment import metadata_database
from runtime.environment.metadata_password import PasswordUnreadable
from runtime.environment.process_topology import load_topology
from runtime.environment.secrets import ConfigurationError
from runtime.environment.steps import STEPS_TABLE
from runtime.queries import migrations
from topology.model import Topology

#: Seconds to wait: a first init takes one or two minutes, a large migration longer. The pod then tries again.
WAIT_SECONDS = 900

#: The modules that prepare it.
PREPARING = ("start/init.py", "superset/preparation.py")

Report = Callable[[str], None]


class NotReady(RuntimeError):
    """What is not ready, and who has to make it so."""


def prepared_step() -> str:
    """The step that init writes down last: another one for every Superset and for every version of init itself.

    Those of earlier images stay, so that their pods still start while a new image rolls out.
    """
    parts = [packages.version(name) for name in ("apache-superset", "flask-appbuilder")]
    parts.append(migrations.HEAD)
    parts.extend((Path(__file__).parents[1] / name).read_text(encoding="utf-8") for name in PREPARING)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"prepared {digest[:32]}"


def missing(topology: Topology, env: Mapping[str, str]) -> str | None:
    """What the metadata database lacks, or why it cannot be asked; None where it is ready. ConfigurationError for no password."""
    import psycopg2

    try:
        with closing(metadata_database.connect(topology, env, "superset-ready", connect_timeout=3)) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT to_regclass(%s)", (STEPS_TABLE,))
            if cursor.fetchone() == (None,):
                return "nothing is prepared in it"
            cursor.execute(f"SELECT true FROM {STEPS_TABLE} WHERE name = %s", (prepared_step(),))
            return None if cursor.fetchone() else "it is not prepared for this image"
    except (psycopg2.Error, PasswordUnreadable) as error:
        return str(error).strip().partition("\n")[0].rstrip(".")


def wait(look: Callable[[], str | None], seconds: float, report: Report) -> None:
    """Return as soon as `look` misses nothing; each new reason is reported, and NotReady raised with the last one."""
    told: str | None = None

    def ready() -> bool:
        nonlocal told
        reason = look()
        if reason and reason != told:
            report(f"waits for the metadata database: {reason}")
        told = reason
        return not reason

    waiting = Retrying(retry=retry_if_not_result(bool), stop=stop_after_delay(seconds), wait=wait_fixed(1))
    try:
        waiting(ready)
    except RetryError:
        raise NotReady(
            f"the metadata database was not ready within {seconds:.0f} s: {told}. The init job of this image prepares "
            "it (python -m runtime.start.init): its log says what keeps it"
        ) from None


def main(env: Mapping[str, str], seconds: float, report: Report) -> None:
    """Wait at most `seconds`; ConfigurationError or NotReady where web, workers and beat must not start."""
    topology = load_topology(env)
    wait(lambda: missing(topology, env), seconds, report)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(f"ended by signal {number}")


def _say(line: str) -> None:
    print(f"ready: {line}", flush=True)


if __name__ == "__main__":
    # The first process of a container gets only the signals that it handles: a pod that goes would wait its grace period.
    signal.signal(signal.SIGTERM, _stop)
    parser = argparse.ArgumentParser(prog="python -m runtime.start.ready", description=main.__doc__)
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, help="seconds to wait at most")
    try:
        main(os.environ, parser.parse_args().wait, _say)
    except (ConfigurationError, NotReady) as problem:
        sys.exit(f"superset-async ready: {problem}")
