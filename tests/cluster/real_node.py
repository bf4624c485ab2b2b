"""A real node beside the control plane: kubelet, containerd, kube-proxy and cluster DNS, running real pods on this machine.

Pods are on a bridge of their own and reach nothing outside this machine. NetworkPolicies are stored, not enforced: that is a
network plugin's work. What starting changes outside of the folder (bridge, packet filter, kernel parameters, cgroups) is put
back when it stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path

import yaml

from tests.cluster import images
from tests.cluster.control_plane import BRIDGE, ControlPlane, Manifest, wait_until
from tools.image import Image

NODE = "localhost"
DNS_ADDRESS, API_ADDRESS = "10.96.0.10", "10.96.0.1"
PAUSE = "localhost/pause:1"
DEVICE = "cni0"
#: How many volumes there are to be claimed.
VOLUMES = 8
#: Kernel parameters that a node needs, and those that kubelet sets by itself.
PARAMETERS = {"net.ipv4.ip_forward": "1"}
SET_BY_KUBELET = (
    *("vm.overcommit_memory", "vm.panic_on_oom", "kernel.panic", "kernel.panic_on_oops"),
    *("kernel.keys.root_maxkeys", "kernel.keys.root_maxbytes"),
)
#: Debian's packages with what a node needs.
PACKAGES = "containerd runc containernetworking-plugins iptables conntrack busybox-static redis-tools"


def why_not() -> str | None:
    """Why a real node cannot run here, or None."""
    if os.geteuid() != 0:
        return "a real node needs root"
    if missing := images.missing_programs():
        return f"a real node needs {', '.join(missing)} (apt-get install {PACKAGES})"
    if _run("ip", "link", "show", DEVICE, check=False).returncode == 0:
        return f"there is a network device {DEVICE}: another node may be running"
    return None


class RealNode:
    """The node of `cluster`, which must have been started and must have no other."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster
        self.folder = cluster.folder / "node"
        self.folder.mkdir()
        self._socket = self.folder / "containerd.sock"
        self._kubelet_port, self._health_port, self._dns_port, self._proxy_port, self._proxy_health = (
            cluster.port(number) for number in range(5)
        )
        self._filter: str | None = None
        self._parameters: dict[str, str] = {}

    def start(self) -> None:
        """Start everything; the node is ready when this returns."""
        self._start_network()
        self._start_containerd()
        self.load(images.pause(self.cluster.program("pause")), PAUSE)
        self._start_dns()
        self._start_kubelet()
        self._start_proxy()
        self.cluster.create(self._storage())

        def ready() -> bool:
            for name in ("kubelet", "containerd", "kube-proxy", "coredns"):
                self.cluster.processes.check(name)
            nodes = self.cluster.get("nodes")
            return any(
                each["type"] == "Ready" and each["status"] == "True"
                for node in nodes
                for each in node["status"]["conditions"]
            )

        wait_until(ready, "the node is ready", 90)

    def _storage(self) -> list[Manifest]:
        """Volumes in our folder, of the node's own kind: pods own theirs by `fsGroup`, which a hostPath does not know."""
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
        storage_class = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "local", "annotations": annotations},
            "provisioner": "kubernetes.io/no-provisioner",
        }
        here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}
        paths = [self.folder / "volumes" / str(number) for number in range(VOLUMES)]
        for path in paths:
            path.mkdir(parents=True)
        return [
            storage_class,
            *(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": f"local-{path.name}"},
                    "spec": {
                        "capacity": {"storage": "100Gi"},
                        "accessModes": ["ReadWriteOnce"],
                        "storageClassName": "local",
                        "local": {"path": str(path)},
                        "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
                    },
                }
                for path in paths
            ),
        ]

    def load(self, image: Image, name: str) -> None:
        """Give the node an image under the name that pods use for it."""
        archive = self.folder / "image.tar"
        first = name.partition("/")[0]
        full = name if "." in first or first == "localhost" else f"docker.io/{name if '/' in name else f'library/{name}'}"
        image.save(archive, [full])
        self._ctr("images", "import", str(archive))
        archive.unlink()

    def signal(self, pod: Manifest, signal: str) -> None:
        """Send a signal to the process of the pod's first container, such as SIGSTOP for one that hangs."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        self._ctr("task", "kill", "--signal", signal, container)

    def _start_network(self) -> None:
        self._filter = _run("iptables-save").stdout
        names = (*PARAMETERS, *SET_BY_KUBELET)
        self._parameters = {name: _parameter(name).read_text().strip() for name in names if _parameter(name).exists()}
        _run("ip", "link", "add", DEVICE, "type", "bridge")
        _run("ip", "address", "add", f"{BRIDGE}/24", "dev", DEVICE)
        _run("ip", "link", "set", DEVICE, "up")
        for name, value in (PARAMETERS | {f"net.ipv4.conf.{DEVICE}.route_localnet": "1"}).items():
            _parameter(name).write_text(value)
        # The API server and DNS listen on 127.0.0.1 only; pods reach them over the bridge.
        for address, protocol, port, target in (
            (API_ADDRESS, "tcp", 443, self.cluster.api_port),
            (DNS_ADDRESS, "udp", 53, self._dns_port),
            (DNS_ADDRESS, "tcp", 53, self._dns_port),
        ):
            rule = f"-i {DEVICE} -d {address} -p {protocol} --dport {port} -j DNAT --to-destination 127.0.0.1:{target}"
            _run("iptables", "-w", "-t", "nat", "-A", "PREROUTING", *rule.split())
        for route in json.loads(_run("ip", "-json", "route", "show", "default").stdout):
            _run("iptables", "-w", "-A", "FORWARD", "-i", DEVICE, "-o", route["dev"], "-j", "REJECT")
        network = {
            "cniVersion": "0.4.0",
            "name": "tests",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": DEVICE,
                    "isGateway": True,
                    "isDefaultGateway": True,
                    "hairpinMode": True,
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": "10.244.0.0/24"}]],
                        "dataDir": str(self.folder / "addresses"),
                    },
                }
            ],
        }
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "10-tests.conflist").write_text(json.dumps(network))

    def _start_containerd(self) -> None:
        config = self.folder / "containerd.toml"
        config.write_text(
            f"""\
version = 2
root = "{self.folder}/containerd"
state = "{self.folder}/containerd-state"
[grpc]
  address = "{self._socket}"
[ttrpc]
  address = "{self._socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""
        )
        self.cluster.processes.start("containerd", ["containerd", "--config", config])
        wait_until(lambda: self._ctr("version", check=False).returncode == 0, "containerd answers", 30)

    def _ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return _run("ctr", "--address", str(self._socket), "--namespace", "k8s.io", *arguments, check=check)

    def _start_dns(self) -> None:
        corefile = self.folder / "Corefile"
        corefile.write_text(
            f".:{self._dns_port} {{\n  bind 127.0.0.1\n  errors\n"
            f"  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {self.cluster.kubeconfig()}\n  }}\n}}\n"
        )
        self.cluster.processes.start("coredns", [self.cluster.program("coredns"), "-conf", corefile])

    def _start_kubelet(self) -> None:
        cluster = self.cluster
        cluster.sign("kubelet", f"/O=system:nodes/CN=system:node:{NODE}", f"IP:127.0.0.1,DNS:{NODE}")
        keys = {"client-certificate": str(cluster.key("kubelet.crt")), "client-key": str(cluster.key("kubelet.key"))}
        cluster.write_kubeconfig("kubelet", keys)
        # Pods ask the cluster's DNS and nobody else.
        (self.folder / "resolv.conf").write_text("")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": self._kubelet_port,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": self._health_port,
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(cluster.key("ca.crt"))},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(cluster.key("kubelet.crt")),
            "tlsPrivateKeyFile": str(cluster.key("kubelet.key")),
            "resolvConf": str(self.folder / "resolv.conf"),
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            # A full disk or memory of a developer's machine is no reason to evict.
            "evictionHard": dict.fromkeys(
                ("memory.available", "nodefs.available", "imagefs.available", "nodefs.inodesFree"), "0%"
            ),
            "imageGCHighThresholdPercent": 100,
            "volumePluginDir": str(self.folder / "plugins"),
            "podLogsDir": str(self.folder / "pod-logs"),
        }
        path = self.folder / "kubelet.yaml"
        path.write_text(yaml.safe_dump(config))
        cluster.processes.start(
            "kubelet",
            [
                cluster.program("kubelet"),
                f"--config={path}",
                f"--kubeconfig={cluster.kubeconfig('kubelet')}",
                f"--root-dir={self.folder / 'kubelet'}",
                f"--hostname-override={NODE}",
                f"--cert-dir={cluster.key('')}",
            ],
        )

    def _start_proxy(self) -> None:
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(self.cluster.kubeconfig("proxy"))},
            "clusterCIDR": "10.244.0.0/16",
            "hostnameOverride": NODE,
            "bindAddress": "127.0.0.1",
            "healthzBindAddress": f"127.0.0.1:{self._proxy_health}",
            "metricsBindAddress": f"127.0.0.1:{self._proxy_port}",
            "nodePortAddresses": ["127.0.0.0/8"],
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
        path = self.folder / "proxy.yaml"
        path.write_text(yaml.safe_dump(config))
        self.cluster.processes.start("kube-proxy", [self.cluster.program("kube-proxy"), f"--config={path}"])

    def stop(self) -> None:
        """End the pods and the node's processes, and put back what starting changed."""
        processes = self.cluster.processes
        processes.stop(*(name for name in ("kubelet", "kube-proxy", "coredns") if name in processes.running))
        if "containerd" in processes.running:
            for kind, arguments in (("task", ("rm", "--force")), ("container", ("rm",))):
                for each in self._ctr(kind, "ls", "--quiet", check=False).stdout.split():
                    self._ctr(kind, *arguments, each, check=False)
            processes.stop("containerd")
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((each for each in mounts if each.startswith(f"{self.folder}/")), reverse=True):
            _run("umount", "--lazy", mount, check=False)
        for namespace in Path("/run/netns").glob("cni-*"):
            _run("ip", "netns", "delete", namespace.name, check=False)
        _run("ip", "link", "delete", DEVICE, check=False)
        if self._filter is not None:
            # What is restored replaces whole tables: those that were not there are made empty.
            tables = set(re.findall(r"^\*(\w+)", _run("iptables-save").stdout, re.MULTILINE))
            tables -= set(re.findall(r"^\*(\w+)", self._filter, re.MULTILINE))
            _run("iptables-restore", stdin=self._filter + "".join(f"*{table}\nCOMMIT\n" for table in sorted(tables)))
        for name, value in self._parameters.items():
            _parameter(name).write_text(value)
        for group in [*Path("/sys/fs/cgroup").glob("kubepods"), *Path("/sys/fs/cgroup").glob("*/kubepods")]:
            for path in sorted(group.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()
            with contextlib.suppress(OSError):
                group.rmdir()


def _parameter(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def _run(*command: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, input=stdin, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done
