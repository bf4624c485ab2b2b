"""KEDA on this machine, beside the cluster: its operator and its metrics server as processes, for one namespace."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.control_plane import ControlPlane, flags

_GROUP = ("external.metrics.k8s.io", "v1beta1", "keda-metrics-apiserver")


class Keda:
    """A running KEDA that looks after the ScaledObjects of `namespace` only."""

    def __init__(self, cluster: ControlPlane, programs: Path, namespace: str) -> None:
        self._cluster = cluster
        certificates = cluster.folder / "keda"
        certificates.mkdir(exist_ok=True)
        for source, name in (("ca.crt", "ca.crt"), ("server.crt", "tls.crt"), ("server.key", "tls.key")):
            shutil.copyfile(cluster.key(source), certificates / name)
        service, secure = f"127.0.0.1:{cluster.port(0)}", cluster.port(1)
        environment = {
            "KUBECONFIG": str(cluster.kubeconfig()),
            "WATCH_NAMESPACE": namespace,
            "POD_NAMESPACE": "kube-system",
            "KEDA_CLUSTER_OBJECT_NAMESPACE": "kube-system",
        }
        cluster.processes.start(
            "keda-operator",
            [
                programs / "operator",
                *flags(
                    {
                        "cert-dir": certificates,
                        "metrics-bind-address": "0",
                        "health-probe-bind-address": "0",
                        "metrics-service-bind-address": service,
                        "enable-webhook-patching": "false",
                        "enable-apiservice-patching": "false",
                        "zap-log-level": "info",
                    }
                ),
            ],
            environment,
        )
        config = cluster.kubeconfig()
        cluster.processes.start(
            "keda-adapter",
            [
                programs / "adapter",
                *flags(
                    {
                        "lister-kubeconfig": config,
                        "authentication-kubeconfig": config,
                        "authorization-kubeconfig": config,
                        "metrics-service-address": service,
                        "bind-address": "127.0.0.1",
                        "secure-port": secure,
                        "cert-dir": certificates,
                        "tls-cert-file": certificates / "tls.crt",
                        "tls-private-key-file": certificates / "tls.key",
                    }
                ),
            ],
            environment,
        )
        group, version, name = _GROUP
        cluster.aggregate(group, version, name, secure)

    def stop(self) -> None:
        self._cluster.forget(*_GROUP)
        self._cluster.processes.stop("keda-adapter", "keda-operator")
