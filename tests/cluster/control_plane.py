"""A Kubernetes control plane on loopback, with simulated nodes: its processes, its keys, and how tests talk to it.

etcd, the API server, the controllers and the scheduler are the real ones. On a simulated node (kwok) pods are scheduled, and
become ready or complete without anything being run; images, commands and probes are not looked at.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from tenacity import RetryError, Retrying, retry_if_not_result, stop_after_delay, wait_fixed

#: The first port that is tried; a control plane takes PORTS from there.
FIRST_PORT = 20000
PORTS = 20
SERVICES = "10.96.0.0/16"
#: Where the API server is said to be inside the cluster: the bridge of a real node.
BRIDGE = "10.244.0.1"
#: Who talks to the API server with a token: user and group by the kubeconfig's name.
USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
}
Manifest = dict[str, Any]
Found = TypeVar("Found")


def wait_until(what: Callable[[], Found], describe: str, seconds: float = 60, every: float = 0.2) -> Found:
    """The first true value of `what`; an AssertionError with `describe` and the last value after `seconds`."""
    waiting = Retrying(retry=retry_if_not_result(bool), wait=wait_fixed(every), stop=stop_after_delay(seconds))
    try:
        return waiting(what)
    except RetryError as error:
        last = error.last_attempt.result()
        raise AssertionError(f"{describe}: not within {seconds:.0f} s; last seen: {last!r}") from None


def free_ports() -> int:
    """The first of PORTS ports, from FIRST_PORT on, that nobody listens on."""
    for base in range(FIRST_PORT, FIRST_PORT + 50 * PORTS, PORTS):
        try:
            for port in range(base, base + PORTS):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError(f"no {PORTS} free ports in a row from {FIRST_PORT}")


@dataclass
class Processes:
    """Processes that are ours to end: each logs to a file, and goes with us if we are killed."""

    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, "subprocess.Popen[bytes]"])

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start `command`; `name` is its log's name too."""
        self.logs.mkdir(exist_ok=True)
        with (self.logs / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=TERM", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | (environment or {}),
                cwd=self.logs.parent,
                start_new_session=True,
            )

    def check(self, name: str) -> None:
        """An AssertionError with the end of its log if `name` has ended."""
        code = self.running[name].poll()
        assert code is None, f"{name} ended with {code}:\n" + "\n".join(self.log(name).splitlines()[-15:])

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def stop(self, *names: str) -> None:
        """End those named (default: all), the latest first; SIGKILL for what is still there after 20 s."""
        for name in names or tuple(reversed(self.running)):
            process = self.running.pop(name)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class ControlPlane:
    """A running control plane in `folder`; `built` is what tools/build.py built."""

    folder: Path
    built: Path
    base: int = field(default_factory=free_ports)

    def __post_init__(self) -> None:
        self.processes = Processes(self.folder / "logs")
        self.api_port, self.etcd_port, self.peer_port, self.controllers_port, self.scheduler_port = range(
            self.base, self.base + 5
        )
        self.kwok_port, self.metrics_port = self.base + 5, self.base + 6

    def port(self, offset: int) -> int:
        """A port for a further process; the first seven are taken."""
        return self.base + 7 + offset

    def program(self, name: str) -> Path:
        return self.built / "bin" / name

    def kubeconfig(self, user: str = "admin") -> Path:
        return self.folder / f"{user}.kubeconfig"

    def key(self, name: str) -> Path:
        return self.folder / "pki" / name

    # Starting

    def start(self) -> None:
        """Start etcd, the API server, the controllers and the scheduler; they are ready when this returns."""
        self._make_keys()
        self._make_users()
        etcd, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        self.processes.start(
            "etcd",
            [
                self.program("etcd"),
                *flags(
                    {
                        "data-dir": self.folder / "etcd",
                        "listen-client-urls": etcd,
                        "advertise-client-urls": etcd,
                        "listen-peer-urls": peer,
                        "initial-advertise-peer-urls": peer,
                        "initial-cluster": f"default={peer}",
                        "unsafe-no-fsync": "true",
                    }
                ),
            ],
        )
        self.processes.start("kube-apiserver", [self.program("kube-apiserver"), *self._api_flags(etcd)])
        wait_until(self._api_ready, "the API server is ready", 120)
        self._start_controllers()
        wait_until(
            lambda: self.kubectl("get", "serviceaccount", "default", "-n", "default", check=False).returncode == 0,
            "the controllers work",
        )

    def _api_ready(self) -> bool:
        self.processes.check("etcd")
        self.processes.check("kube-apiserver")
        return self.kubectl("get", "--raw", "/readyz", check=False).stdout == "ok"

    def _api_flags(self, etcd: str) -> list[str]:
        return flags(
            {
                "etcd-servers": etcd,
                "bind-address": "127.0.0.1",
                "secure-port": self.api_port,
                "advertise-address": BRIDGE,
                "endpoint-reconciler-type": "none",
                "tls-cert-file": self.key("apiserver.crt"),
                "tls-private-key-file": self.key("apiserver.key"),
                "client-ca-file": self.key("ca.crt"),
                "token-auth-file": self.folder / "tokens.csv",
                "authorization-mode": "Node,RBAC",
                "allow-privileged": "true",
                "service-cluster-ip-range": SERVICES,
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-signing-key-file": self.key("accounts.key"),
                "service-account-key-file": self.key("accounts.pub"),
                "requestheader-client-ca-file": self.key("ca.crt"),
                "requestheader-allowed-names": "aggregator",
                "requestheader-username-headers": "X-Remote-User",
                "requestheader-group-headers": "X-Remote-Group",
                "requestheader-extra-headers-prefix": "X-Remote-Extra-",
                "proxy-client-cert-file": self.key("aggregator.crt"),
                "proxy-client-key-file": self.key("aggregator.key"),
                "kubelet-client-certificate": self.key("kubelet-client.crt"),
                "kubelet-client-key": self.key("kubelet-client.key"),
                "kubelet-certificate-authority": self.key("ca.crt"),
                "kubelet-preferred-address-types": "Hostname,InternalIP",
            }
        )

    def _start_controllers(self) -> None:
        for name, user, port, more in (
            (
                "kube-controller-manager",
                "controllers",
                self.controllers_port,
                {
                    "use-service-account-credentials": "true",
                    "service-account-private-key-file": self.key("accounts.key"),
                    "root-ca-file": self.key("ca.crt"),
                    "service-cluster-ip-range": SERVICES,
                    # Tests do not wait as long as clusters do.
                    "horizontal-pod-autoscaler-sync-period": "2s",
                    "horizontal-pod-autoscaler-cpu-initialization-period": "5s",
                    "horizontal-pod-autoscaler-initial-readiness-delay": "1s",
                },
            ),
            ("kube-scheduler", "scheduler", self.scheduler_port, {}),
        ):
            config = self.kubeconfig(user)
            common = {
                "kubeconfig": config,
                "authentication-kubeconfig": config,
                "authorization-kubeconfig": config,
                "bind-address": "127.0.0.1",
                "secure-port": port,
                "leader-elect": "false",
            }
            self.processes.start(name, [self.program(name), *flags(common | more)])

    def simulate_nodes(self, count: int, group: str = "simulated") -> None:
        """Add `count` simulated nodes with 32 CPUs and 256 GiB each, and the resource metrics of their pods.

        Those of one `group` live by one process, `kwok-<group>`: without it they are silent, as lost nodes are. The first group
        brings the storage.
        """
        port = self.kwok_port if group == "simulated" else self.port(11)
        stages = [
            document
            for part in ("stage/fast", "stage/volume/fast", "metrics/usage")
            for document in yaml.safe_load_all(self.kubectl("kustomize", str(self.built / "kwok" / part)).stdout)
        ]
        of_kwok = [each for each in stages if each["apiVersion"].startswith("kwok.")]
        config = self.folder / "kwok.yaml"
        config.write_text(yaml.safe_dump_all(of_kwok))
        room = {"cpu": "32", "memory": "256Gi", "pods": "1000"}
        nodes = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": f"{group}-{number}",
                    "annotations": {
                        "kwok.x-k8s.io/node": group,
                        "metrics.k8s.io/resource-metrics-path": f"/metrics/nodes/{group}-{number}/metrics/resource",
                    },
                    "labels": {"kubernetes.io/hostname": f"{group}-{number}", "kubernetes.io/os": "linux"},
                },
                "status": {
                    "addresses": [
                        {"type": "Hostname", "address": "localhost"},
                        {"type": "InternalIP", "address": "127.0.0.1"},
                    ],
                    "allocatable": room,
                    "capacity": room,
                },
            }
            for number in range(count)
        ]
        storage = [each for each in stages if each not in of_kwok] if group == "simulated" else []
        self.create([*storage, *nodes])
        self.processes.start(
            f"kwok-{group}",
            [
                self.program("kwok"),
                *flags(
                    {
                        "kubeconfig": self.kubeconfig(),
                        "config": config,
                        "manage-nodes-with-annotation-selector": f"kwok.x-k8s.io/node={group}",
                        "node-ip": "127.0.0.1",
                        "node-port": port,
                        "server-address": f"127.0.0.1:{port}",
                        "tls-cert-file": self.key("server.crt"),
                        "tls-private-key-file": self.key("server.key"),
                        "cidr": "10.245.0.1/16",
                        "node-lease-duration-seconds": "40",
                    }
                ),
            ],
        )
        self.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")

    def serve_metrics(self) -> None:
        """Serve `metrics.k8s.io`, which scaling on CPU needs, by metrics-server."""
        config = self.kubeconfig()
        self.processes.start(
            "metrics-server",
            [
                self.program("metrics-server"),
                *flags(
                    {
                        "kubeconfig": config,
                        "authentication-kubeconfig": config,
                        "authorization-kubeconfig": config,
                        "bind-address": "127.0.0.1",
                        "secure-port": self.metrics_port,
                        "tls-cert-file": self.key("server.crt"),
                        "tls-private-key-file": self.key("server.key"),
                        "kubelet-preferred-address-types": "Hostname",
                        "kubelet-use-node-status-port": "true",
                        "kubelet-certificate-authority": self.key("ca.crt"),
                        "metric-resolution": "10s",
                        "kubelet-request-timeout": "3s",
                    }
                ),
            ],
        )
        self.aggregate("metrics.k8s.io", "v1beta1", "metrics-server", self.metrics_port)

    def aggregate(self, group: str, version: str, name: str, port: int) -> None:
        """Have the API server ask a process on this machine's `port` for everything in `group`, and wait until it can."""
        self.create(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name, "namespace": "kube-system"},
                    "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
                },
                {
                    "apiVersion": "apiregistration.k8s.io/v1",
                    "kind": "APIService",
                    "metadata": {"name": f"{version}.{group}"},
                    "spec": {
                        "group": group,
                        "version": version,
                        "groupPriorityMinimum": 100,
                        "versionPriority": 100,
                        "caBundle": base64.b64encode(self.key("ca.crt").read_bytes()).decode(),
                        "service": {"name": name, "namespace": "kube-system", "port": port},
                    },
                },
            ]
        )
        self.kubectl("wait", "--for=condition=Available", f"apiservice/{version}.{group}", "--timeout=90s", timeout=100)

    def forget(self, group: str, version: str, name: str) -> None:
        """The opposite of `aggregate`."""
        self.kubectl("delete", f"apiservice/{version}.{group}")
        self.kubectl("delete", f"service/{name}", "--namespace=kube-system")

    def stop(self) -> None:
        """End everything that this object started."""
        self.processes.stop()

    # Keys and users

    def _make_keys(self) -> None:
        """One authority for the whole cluster, and what it signed for each process."""
        self.key("").mkdir(parents=True, mode=0o700)
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key")
        usage = "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"
        self._openssl(
            *("req", "-x509", "-new", "-key", "ca.key", "-days", "30", "-subj", "/CN=tests", "-out", "ca.crt"),
            *("-addext", usage),
        )
        local = "IP:127.0.0.1,DNS:localhost"
        inside = ",".join(f"DNS:kubernetes{end}" for end in ("", ".default", ".default.svc"))
        self.sign("apiserver", "/CN=kube-apiserver", f"{local},{inside},IP:10.96.0.1,IP:{BRIDGE}")
        self.sign("aggregator", "/CN=aggregator", local)
        self.sign("kubelet-client", "/O=system:masters/CN=kubelet-client", local)
        self.sign("server", "/CN=server", f"{local},DNS:*.kube-system.svc")
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "accounts.key")
        self._openssl("ec", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")

    def sign(self, name: str, subject: str, names: str) -> None:
        """Make a key and a certificate for `subject`, for clients and servers; `names` as in subjectAltName."""
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        self._openssl("req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
        extensions = f"keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n"
        self.key(f"{name}.ext").write_text(extensions)
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "30", "-out", f"{name}.crt", "-extfile", f"{name}.ext"),
        )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.key(""), check=True, capture_output=True)

    def _make_users(self) -> None:
        lines: list[str] = []
        for name, (user, group) in USERS.items():
            token = secrets.token_hex(16)
            lines.append(",".join([token, user, name, *([group] if group else [])]))
            self.write_kubeconfig(name, {"token": token})
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")

    def write_kubeconfig(self, name: str, user: Mapping[str, str]) -> None:
        """Write the kubeconfig of `name`, who proves to be it by `user`."""
        server = {"server": f"https://127.0.0.1:{self.api_port}", "certificate-authority": str(self.key("ca.crt"))}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": server}],
            "users": [{"name": name, "user": dict(user)}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": name}}],
            "current-context": "tests",
        }
        self.kubeconfig(name).write_text(yaml.safe_dump(config))

    # Talking to it

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator; an AssertionError with what it said if it must succeed and does not."""
        done = subprocess.run(
            [self.program("kubectl"), "--kubeconfig", self.kubeconfig(), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done

    def get(self, kinds: str, namespace: str | None = None) -> list[Manifest]:
        """Every object of `kinds` (one or several with commas), in one namespace or in all."""
        where = ("--all-namespaces",) if namespace is None else ("--namespace", namespace)
        return json.loads(self.kubectl("get", kinds, *where, "--output=json", "--show-managed-fields").stdout)["items"]

    def object(self, kind: str, name: str, namespace: str) -> Manifest:
        """One object."""
        return json.loads(self.kubectl("get", kind, name, "--namespace", namespace, "--output=json").stdout)

    def create(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        """Create objects."""
        self.kubectl("create", "--filename=-", stdin=yaml.safe_dump_all(manifests))

    def apply(self, *files: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Apply files on the server, in that order, refusing fields that their kind does not have."""
        named = [f"--filename={path}" for path in files]
        return self.kubectl("apply", "--server-side", "--validate=strict", *named, check=check)


def flags(values: Mapping[str, object]) -> list[str]:
    """`--name=value` for each."""
    return [f"--{name}={value}" for name, value in values.items()]


def read_manifests(files: Iterable[Path]) -> list[Manifest]:
    """The objects in YAML files."""
    return [cast(Manifest, each) for path in files for each in yaml.safe_load_all(path.read_text()) if each]
