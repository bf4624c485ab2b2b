"""The state folder of one stack on this machine: where everything lies, and the secrets that were generated once."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from topology.checkout import project_folder
from topology.model import Topology

#: The folder of the packages: the checkout, unless they are installed.
PROJECT = Path(__file__).resolve().parent.parent
#: Overrides the folder that holds the state of every stack.
STATE_ENV = "SUPERSET_ASYNC_STATE"
#: The secret of Redis's `operator`, who may do everything.
REDIS_OPERATOR_PASSWORD = "REDIS_OPERATOR_PASSWORD"  # noqa: S105 a variable's name
#: Longest path of a Unix socket, less the terminating zero.
_SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True)
class StateFolder:
    """The folder of one stack; all paths below it, except a socket whose path would be too long."""

    root: Path

    @classmethod
    def of(cls, stack: str) -> StateFolder:
        """The folder of `stack`: below SUPERSET_ASYNC_STATE, or below `.state` of the checkout or working directory."""
        base = Path(os.environ.get(STATE_ENV) or project_folder() / ".state")
        return cls(base.resolve() / stack)

    @classmethod
    def all(cls) -> list[StateFolder]:
        """Those of every stack that was started here."""
        parent = cls.of("any").root.parent
        return [cls(path) for path in sorted(parent.iterdir()) if path.is_dir()] if parent.is_dir() else []

    @property
    def topology(self) -> Path:
        """The topology's JSON, as every process reads it."""
        return self.root / "topology.json"

    @property
    def secrets(self) -> Path:
        """Generated secrets by the name of their environment variable (JSON, mode 0600)."""
        return self.root / "secrets.json"

    @property
    def password_file(self) -> Path:
        """The administrator's password (mode 0600)."""
        return self.root / "admin-password"

    @property
    def bootstrapped(self) -> Path:
        """What the last bootstrap was made from; it is there only after one that succeeded."""
        return self.root / "bootstrapped.json"

    @property
    def program(self) -> Path:
        """A digest of the program that was started last, as `program_digest` makes it."""
        return self.root / "program.sha256"

    @property
    def supervisor_config(self) -> Path:
        """The supervisor's configuration, with each process's environment (mode 0600)."""
        return self.root / "supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        """The supervisor's control socket."""
        path = self.root / "supervisord.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        return Path(tempfile.gettempdir()) / f"superset-async-{sha256(os.fsencode(path)).hexdigest()[:16]}.sock"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def audit(self) -> Path:
        """The audit trail, one file a process."""
        return self.root / "audit"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data directory."""
        return self.root / "postgres"

    @property
    def home(self) -> Path:
        """HOME of the Superset processes, so that nothing is written to the user's own."""
        return self.root / "home"

    @property
    def own(self) -> Path:
        """The team's own module, one folder a version of it."""
        return self.root / "own"

    def redis(self, instance: str) -> Path:
        """Data directory and configuration of a Redis instance."""
        return self.root / instance

    def read_topology(self) -> Topology | None:
        """The topology that was started last; None where there is none, or one of a version of this project that had others."""
        if not self.topology.exists():
            return None
        try:
            return Topology.model_validate_json(self.topology.read_text())
        except ValidationError:
            return None

    def make(self) -> None:
        """Create the folder, readable by its owner only."""
        for folder in (self.root, self.logs, self.audit, self.home):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def program_digest() -> str:
    """A digest of all code and packages that a process of the platform runs: running processes have what was there before."""
    digest = sha256()
    folders = ("runtime", "topology", "local")
    found = (path for folder in folders for path in (PROJECT / folder).rglob("*"))
    for path in sorted(path for path in found if path.suffix != ".pyc" and path.is_file()):
        digest.update(f"{path.relative_to(PROJECT)}\0".encode() + path.read_bytes())
    for name in ("superset.txt", "local.txt"):
        if (lock := PROJECT / "requirements" / name).exists():
            digest.update(lock.read_bytes())
    return digest.hexdigest()


def web_url(topology: Topology) -> str:
    """Where a browser finds Superset."""
    return f"http://{topology.web.host}:{topology.web.port}"


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, readable by its owner only at every moment."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def ensure_secrets(folder: StateFolder, topology: Topology) -> dict[str, str]:
    """Every secret that the topology's processes need, by environment variable; made on first use, never changed after."""
    kept: dict[str, str] = json.loads(folder.secrets.read_text()) if folder.secrets.exists() else {}
    names = {
        "SUPERSET_SECRET_KEY",
        "ASYNC_QUERIES_JWT_SECRET",
        "ADMIN_PASSWORD",
        "POSTGRES_ADMIN_PASSWORD",
        "SAMPLE_PASSWORD",
        topology.postgres.password_env,
        REDIS_OPERATOR_PASSWORD,
        *(user.password_env for user in topology.redis_users().values()),
        *topology.message_key_envs().values(),
    }
    complete = kept | {name: secrets.token_urlsafe(32) for name in sorted(names - kept.keys())}
    if complete != kept:
        write_private(folder.secrets, json.dumps(complete, indent=1))
    if not folder.password_file.exists():
        write_private(folder.password_file, complete["ADMIN_PASSWORD"] + "\n")
    return complete
