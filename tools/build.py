"""Build what tests/cluster runs, from Go modules pinned here: `python -m tools.build cluster crds keda adapter`.

Each result is a folder in the user's cache, named by a digest of the sources it was built from: what is there already is
used as it is, and a changed pin builds anew. On two cores with nothing else to do, and nothing in Go's own cache, `cluster`
takes about 8 minutes, `keda` about as long again and `adapter` 3 minutes; `crds` takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
KUBERNETES = "v1.37.2"
#: Names by which the one binary of tools/cluster is started.
PROGRAMS = (
    "coredns",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kwok",
    "metrics-server",
)
#: Custom resource definitions: the folder here that pins their module, the module, and where they are in it.
CRDS = (
    # KEDA ends where it does not find all of its own, two minutes after it started.
    (
        "keda",
        "github.com/kedacore/keda/v2",
        "config/crd/bases/keda.sh_{}.yaml",
        ("clustertriggerauthentications", "scaledjobs", "scaledobjects", "triggerauthentications"),
    ),
    (
        "keda",
        "github.com/kedacore/keda/v2",
        "config/crd/bases/eventing.keda.sh_{}.yaml",
        ("cloudeventsources", "clustercloudeventsources"),
    ),
    (
        "crds",
        "github.com/cloudnative-pg/cloudnative-pg",
        "config/crd/bases/postgresql.cnpg.io_{}.yaml",
        ("backups", "clusters", "databases", "scheduledbackups"),
    ),
    (
        "crds",
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml",
        ("podmonitors", "prometheusrules", "servicemonitors"),
    ),
    ("crds", "github.com/cert-manager/cert-manager", "deploy/crds/crd-{}.yaml", ("certificates",)),
    ("crds", "sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_{}.yaml", ("gateways", "httproutes")),
)
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_SAY_EVERY = 15.0


class GoMissing(RuntimeError):
    """There is no Go here, so nothing can be built."""


class BuildFailed(RuntimeError):
    """A build went wrong; the text ends with what Go said."""


def cluster() -> Path:
    """Folder with `bin/` (the programs of a cluster, kubectl and pause) and `kwok/` (how simulated nodes behave)."""
    return _cached("cluster", _cluster)


def keda() -> Path:
    """Folder with KEDA's `operator` and `adapter` (its metrics server)."""
    return _cached("keda", _keda)


def adapter() -> Path:
    """Folder with `adapter`, Prometheus's metrics adapter."""
    return _cached("adapter", _adapter)


def crds() -> Path:
    """Folder with the custom resource definitions that a stack may use: KEDA, CloudNativePG, Prometheus, Gateway."""
    return _cached("crds", _crds, also=("keda",))


def _cluster(into: Path) -> None:
    module = HERE / "cluster"
    minor = KUBERNETES.split(".")[1]
    stamps = [
        f"-X k8s.io/{package}.{name}={value}"
        for package in ("component-base/version", "client-go/pkg/version")
        for name, value in (("gitVersion", KUBERNETES), ("gitMajor", "1"), ("gitMinor", minor))
    ]
    binary = into / "bin" / "cluster"
    _compile(module, "cluster", [".", "-o", str(binary), "-tags=grpcnotrace"], stamps)
    _compile(module, "pause", ["./pause", "-o", str(into / "bin" / "pause")])
    for program in PROGRAMS:
        (into / "bin" / program).symlink_to(binary.name)
    shutil.copytree(_downloaded(module, "sigs.k8s.io/kwok") / "kustomize", into / "kwok", copy_function=shutil.copyfile)


def _keda(into: Path) -> None:
    for program, package in (("operator", "github.com/kedacore/keda/v2/cmd/operator"), ("adapter", "./adapter")):
        _compile(HERE / "keda", f"keda {program}", [package, "-o", str(into / program)])


def _adapter(into: Path) -> None:
    package = "sigs.k8s.io/prometheus-adapter/cmd/adapter"
    _compile(HERE / "adapter", "metrics adapter", [package, "-o", str(into / "adapter")])


def _crds(into: Path) -> None:
    for pinned_in, module, pattern, kinds in CRDS:
        sources = _downloaded(HERE / pinned_in, module)
        for kind in kinds:
            path = sources / pattern.format(kind)
            # cert-manager's are a Helm chart's, with templates in labels and comments alone.
            (into / path.name).write_text(
                _TEMPLATE.sub("superset-async", path.read_text(encoding="utf-8")), encoding="utf-8"
            )


def _cached(name: str, build: Callable[[Path], None], also: Sequence[str] = ()) -> Path:
    """The folder that `build` fills, from the cache where it was filled before; it appears there whole or not at all."""
    if shutil.which("go") is None:
        raise GoMissing("Go is not installed (no `go` on PATH)")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "superset-async"
    digest = hashlib.sha256()
    sources = [path for folder in (name, *also) for path in (HERE / folder).rglob("*")]
    for path in sorted([Path(__file__), *(each for each in sources if each.is_file())]):
        digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes())
    folder = home / f"{name}-{digest.hexdigest()[:16]}"
    if folder.exists():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home) as temporary:
        filling = Path(temporary) / name
        filling.mkdir()
        build(filling)
        try:
            filling.rename(folder)
        except OSError:
            if not folder.exists():  # another run may have been faster
                raise
    return folder


def _compile(module: Path, name: str, arguments: list[str], stamps: Sequence[str] = ()) -> None:
    """`go build`, without C and debugging tables, and a line every 15 seconds that says how far it is."""
    arguments = ["-ldflags", " ".join(["-s", "-w", *stamps]), *arguments[1:], arguments[0]]
    command = ["go", "build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-gcflags=all=-dwarf=false", *arguments]
    started = time.monotonic()
    say(f"{name}: building (minutes when Go's cache is empty)")
    process = subprocess.Popen(command, cwd=module, env=os.environ | {"CGO_ENABLED": "0"}, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()
    while True:
        try:
            code = process.wait(_SAY_EVERY)
            break
        except subprocess.TimeoutExpired:
            doing = lines[-1].strip() if lines else "resolving modules"
            say(f"{name}: {time.monotonic() - started:.0f} s, {len(lines)} packages or modules done, last {doing}")
    reader.join()
    if code != 0:
        raise BuildFailed(f"{name}: go build ended with {code}\n{''.join(lines[-20:])}")
    say(f"{name}: built in {time.monotonic() - started:.0f} s")


def _downloaded(module: Path, dependency: str) -> Path:
    """The sources of a dependency of `module`, at the version pinned there."""
    command = ["go", "mod", "download", "-json", dependency]
    done = subprocess.run(command, cwd=module, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"go mod download {dependency}: {done.stderr or done.stdout}")
    return Path(json.loads(done.stdout)["Dir"])


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def main(names: Sequence[str]) -> int:
    """Build what is named, and say where it is."""
    builders = {"cluster": cluster, "crds": crds, "keda": keda, "adapter": adapter}
    try:
        for name in names or builders:
            print(f"{name} {builders[name]()}")
    except GoMissing as missing:
        say(f"{missing}: the cluster tests will be skipped")
    except BuildFailed as failed:
        say(str(failed))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
