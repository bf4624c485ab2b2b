"""Ways to break a stack, in its file or in what it registers, and which check or rule has to notice each.

`tests.policies.document` writes the table of what caught what into docs/policies.md.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from policies import check
from policies.evaluation import evaluate
from policies.graph import Graph, Resource
from tests.policies import aws_mutations
from tests.policies.editor import Editor, NotApplicableError, set_at
from topology import presets, stack_file
from topology.plan import plan
from topology.problems import StackError

#: The pool that every shipped stack has.
WORKER = "worker-default"
SHIPPED = tuple(name for name in stack_file.names() if stack_file.read(name).get("platform") in ("kubernetes", "aws"))


@dataclass(frozen=True)
class Mutation:
    """One way to break a stack: keys laid over its file, or an edit of what it registers."""

    what: str
    settings: Mapping[str, Any] | None = None
    edit: Callable[[Editor], object] | None = None
    #: The rule that has to notice; empty: the check of the settings (or, where that passes, any rule).
    rule: str = ""
    #: The platform that it is about; empty: any.
    platform: str = ""


def broker(graph: Editor) -> str:
    """Name of the server that carries the broker."""
    try:
        graph.find("StatefulSet", "redis-broker")
    except NotApplicableError:
        return "redis"
    return "redis-broker"


def _keys(path: str, value: Any) -> dict[str, Any]:
    keys: Any = value
    for step in reversed([step for step in path.split("/") if step]):
        keys = {step: keys}
    return keys


_LDAP = {"server": "ldaps://ldap", "search": "dc=example,dc=com", "bind_user": "cn=superset"}
#: Keys of a stack file (with / between them; none: a whole file), and a value that breaks an invariant or has no meaning.
SETTINGS: tuple[tuple[str, Any], ...] = (
    ("topology", "tiny"),
    ("platform", "nomad"),
    ("environment", "production"),
    ("namespace", "Superset_1"),
    ("labels", {"team": "data & analytics"}),
    ("images/superset", "superset-async:latest"),
    ("images/redis", "valkey/valkey"),
    ("images/postgres", "postgres"),
    ("images/pull_policy", "Sometimes"),
    ("caching/spill", {"above": "1Mi", "folder": "/var/lib/superset/results"}),
    ("caching/spill", {"above": "1Gi", "folder": "/var/lib/superset/results", "claim": "results"}),
    ("redis/broker/maxmemory_policy", "allkeys-lru"),
    ("redis/broker/maxmemory_policy", "allkeys-lfu"),
    ("redis/broker/maxmemory_policy", "allkeys-random"),
    ("redis/broker/persistence", "none"),
    ("redis/broker/maxmemory", "3Gi"),
    ("redis/broker/volume_size", "600Mi"),
    ("redis/broker", {"sentinel": True, "replicas": 1}),
    ("redis/broker/resources/memory_request", "9Gi"),
    ("redis/broker/resources/cpu_request", "0"),
    ("redis/cache", {"maxmemory": "6Gi"}),
    ("redis/cache", {"volume_size": "1Gi"}),
    ("redis/cache", {"maxmemory_policy": "noeviction"}),
    ("redis/broker/existing", {"host": "redis.example.com", "ca_secret": "redis-ca"}),
    ("redis/broker/existing", {"host": "rediss://redis.example.com:6380"}),
    ("redis/broker/existing", {"host": "redis.example.com", "cidrs": []}),
    ("redis/tls", {"kind": "cert-manager"}),
    ("redis/tls", {"kind": "generated", "secret": "redis-tls"}),
    ("postgres/tls", {"kind": "secret"}),
    ("postgres/ca_secret", "authority"),
    ("postgres/max_connections", 20),
    ("postgres/kind", "existing"),
    ("postgres/host", "db.example.com"),
    ("postgres/instances", 3),
    ("postgres/user", "postgres"),
    ("postgres/resources/cpu_request", "16"),
    ("postgres/resources/memory_request", "0"),
    ("web/min_replicas", 50),
    ("web/resources/cpu_request", "0"),
    ("web/resources/memory_request", "3Gi"),
    (
        "web/route",
        {"kind": "ingress", "host": "bi.example.com", "parent": "nginx", "tls_secret": None, "from_namespaces": []},
    ),
    (
        "web/route",
        {"kind": "gateway", "host": "bi.example.com", "parent": "nginx", "tls_secret": None, "from_namespaces": []},
    ),
    ("celery/result_backend", "rabbitmq"),
    ("celery/default_queue", "celery"),
    ("celery/queues", ["default", "priority", "orphan"]),
    ("celery/queues", ["default", "default", "priority"]),
    ("celery/soft_time_limit", 600),
    ("celery/time_limit", 200),
    ("celery/visibility_timeout", 300),
    ("celery/result_expires", 0),
    ("celery/compression", "lzma"),
    ("workers/concurrency", 0),
    ("workers/min_workers", 90),
    ("workers/grace_period", 240),
    ("workers/max_memory_per_child", "200M"),
    ("workers/max_memory_per_child", "1900M"),
    ("workers/resources/cpu_request", "0"),
    ("workers/resources/memory_request", "4Gi"),
    ("workers/scaling", {"kind": "keda", "cpu_target": 70, "queued_per_worker": 50, "scale_in_window": 10}),
    ("workers/scaling", {"kind": "cron", "cpu_target": 70, "queued_per_worker": 50, "scale_in_window": 300}),
    ("pools", {"default": {"queues": ["default", "undeclared"]}}),
    ("pools", {"default": {"grace_period": 100}}),
    ("pools", {"extra": {}}),
    ("beat_resources/memory_request", "2Gi"),
    ("beat_resources/cpu_request", "0"),
    ("caching/chart_data_ttl", 0),
    ("caching/query_results_ttl", 0),
    ("statement_timeout", 600),
    ("row_limit", 0),
    ("network/egress", {"mail": {"cidrs": ["10.0.0.1/8"], "ports": [25]}}),
    ("databases", {"sales": {"uri": "postgresql://sales:Wq8zTrk2@db/sales"}}),
    ("databases", {"sales": {"uri": "postgresql://sales@db/sales", "statement_timeout": 900}}),
    ("databases", {"sales": {"sample": True}}),
    ("databases", {"sales": {}}),
    ("databases", {"sales": {"uri": "clickhousedb://sales@db/sales"}}),
    ("databases", {"sales": {"uri": "postgresql://sales@db/sales", "allow_dml": True, "keep_connections": True}}),
    ("superset", {"feature_flags": {"DASHBORD_RBAC": True}}),
    ("superset", {"settings": {"CELERY_CONFIG": {}}}),
    ("superset", {"own_settings": {"APP_NAME": "Sales"}}),
    ("superset", {"env": {"PATH": {}}}),
    ("superset", {"sign_on": {"remote_user": {"proxies": ["10.0.0.0/8"]}, "ldap": _LDAP}}),
    ("superset", {"sign_on": {"ldap": _LDAP | {"start_tls": True}}}),
    ("superset", {"sign_on": {"ldap": _LDAP | {"ca_file": "/etc/ssl/ldap-ca.pem"}}}),
    ("tenants", {"default": {"users": ["eve"]}}),
    ("tenants", {"tenant-x": {"users": ["eve"]}, "tenant-y": {"users": ["eve"]}}),
    ("tenants", {"tenant-x": {"users": []}}),
    ("tenants", {"tenant-x": {"users": ["eve"], "in_flight": 2}}),
    ("tenants", {"tenant-x": {"users": ["eve"], "time_limit": 5}}),
    ("tenants", {"tenant-x": {"users": ["eve"], "quota": {"cpu": "1", "memory": "1Gi"}}}),
    ("tenants", {"tenant-x": {"users": ["eve"], "monthly_budget": 1}}),
    ("", {"tenants": {"tenant-x": {"users": ["eve"], "pool": "shared"}}, "workers": {"prefetch_multiplier": 8}}),
    ("", {"tenants": {"tenant-x": {"databases": ["salse"]}}, "databases": {"sales": {"uri": "postgresql://s@db/s"}}}),
    ("", {"tenants": {"tenant-x": {"users": ["eve"]}}, "redis": {"cache": None}}),
    ("urgent", {"queue": "nowhere", "roles": [], "marker_roles": []}),
    ("maintenance/cron", "daily"),
    ("admin_username", "Admin User"),
    ("broker_url", "redis://redis:6379/0"),
    ("policy_exceptions", [{"rule": "x", "resource": "y", "reason": "because", "owner": "me", "expires": "soon"}]),
)

#: What means nothing where AWS runs the servers: they have no volumes of ours.
NOT_ON_AWS = (_keys("redis/cache", {"volume_size": "1Gi"}),)

_RESTRICTED = {"securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}}


def _beat_beside_worker(graph: Editor) -> None:
    """A second Deployment of beat."""
    second = copy.deepcopy(graph.find("Deployment", "beat"))
    second["metadata"]["name"] = "beat-two"
    graph.add(second)


def _second_scaler(graph: Editor) -> None:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "maxReplicas": 9,
        "minReplicas": 3,
    }
    graph.find("HorizontalPodAutoscaler", "web")
    graph.add(
        {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web-2"}, "spec": spec}
    )


def _trigger(key: str, value: str) -> Callable[[Editor], object]:
    return lambda graph: set_at(graph.find("ScaledObject")["spec"]["triggers"][0]["metadata"], key, value)


def _other_server(graph: Editor) -> None:
    metadata = graph.find("ScaledObject")["spec"]["triggers"][0]["metadata"]
    if "addresses" not in metadata:
        raise NotApplicableError("no Sentinels")
    metadata["addresses"] = "redis-cache-sentinel.superset.svc:26379"


def _scaled(*path: Any) -> Callable[[Editor], object]:
    return lambda graph: set_at(graph.find("ScaledObject"), "spec", *path)


def _memory_scaler(graph: Editor) -> None:
    target = {"type": "Utilization", "averageUtilization": 80}
    metric = {"type": "Resource", "resource": {"name": "memory", "target": target}}
    graph.find("HorizontalPodAutoscaler", "web")["spec"]["metrics"].append(metric)


def _replace_claim(graph: Editor) -> None:
    server = graph.find("StatefulSet", broker(graph))["spec"]
    server["volumeClaimTemplates"] = []
    server["template"]["spec"]["volumes"].append({"name": "data", "emptyDir": {}})


def _rule_of(direction: str, rule: dict[str, Any], name: str) -> Callable[[Editor], object]:
    return lambda graph: set_at(graph.find("NetworkPolicy", name)["spec"], direction, [rule])


def _container(kind: str, name: str, *path: Any) -> Callable[[Editor], object]:
    return lambda graph: set_at(graph.container(kind, name), *path)


def _pod(kind: str, name: str, *path: Any) -> Callable[[Editor], object]:
    return lambda graph: set_at(graph.pod(kind, name), *path)


def _service(*path: Any) -> Callable[[Editor], object]:
    return lambda graph: set_at(graph.find("Service", "web"), *path)


def _topology(*path: Any) -> Callable[[Editor], object]:
    return lambda graph: graph.topology(lambda content: set_at(content, *path))


def _in_production(edit: Callable[[Editor], object]) -> Callable[[Editor], object]:
    """An edit that breaks something where the stack is in environment prod, and nothing elsewhere."""

    def only(graph: Editor) -> None:
        graph.topology(_is_production)
        edit(graph)

    return only


def _is_production(topology: Mapping[str, Any]) -> None:
    if topology["environment"] != "prod":
        raise NotApplicableError("environment")


def _hba_lets_plain_in(graph: Editor) -> None:
    data = graph.find("ConfigMap", "postgres-config")["data"]
    data["pg_hba.conf"] = data["pg_hba.conf"].replace("hostssl", "host")


def _postgres_argument(name: str, value: str) -> Callable[[Editor], object]:
    """Give a setting on the command line of the metadata database's server another value."""

    def edit(graph: Editor) -> None:
        command = graph.container("StatefulSet", "postgres")["command"]
        command[:] = [f"{name}={value}" if word.startswith(f"{name}=") else word for word in command]

    return edit


def _secret_of(graph: Editor) -> str:
    return graph.find("Secret", "superset-app")["stringData"]["ASYNC_QUERIES_JWT_SECRET"]


def _variable(graph: Editor, workload: str, name: str) -> dict[str, Any]:
    return next(each for each in graph.container("Deployment", workload)["env"] if each["name"] == name)


def _foreign_web(graph: Editor) -> None:
    """The web tier reads another ConfigMap than the workers."""
    other = copy.deepcopy(graph.find("ConfigMap", "superset-topology"))
    other["metadata"]["name"] = "edited-topology"
    graph.add(other)
    graph.pod("Deployment", "web")["volumes"][0]["configMap"]["name"] = "edited-topology"


def _deployment(name: str, *path: Any) -> Callable[[Editor], object]:
    return lambda graph: set_at(graph.find("Deployment", name), "spec", *path)


def _adapter(graph: Editor) -> None:
    graph.find("ScaledObject")
    spec = {"service": {"name": "prometheus-adapter", "namespace": "monitoring"}, "group": "external.metrics.k8s.io"}
    name = "v1beta1.external.metrics.k8s.io"
    graph.add({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}, "spec": spec})


def _tls_twice(graph: Editor) -> None:
    scaled = graph.find("ScaledObject")
    _trigger("enableTLS", "true")(graph)
    name = scaled["spec"]["triggers"][0]["authenticationRef"]["name"]
    targets = graph.find("TriggerAuthentication", name)["spec"]["secretTargetRef"]
    targets.append({"parameter": "tls", "name": "x", "key": "tls"})


def _claim_of_web(graph: Editor) -> None:
    graph.pod("Deployment", "web")["volumes"].append({"name": "d", "persistentVolumeClaim": {"claimName": "d"}})


def _argument(option: str, value: str | None) -> Callable[[Editor], object]:
    return lambda graph: graph.argument(WORKER, option, value)


def _directive(name: str, value: str | None) -> Callable[[Editor], object]:
    return lambda graph: graph.directive(broker(graph), name, value)


def _drop(kind: str, name: str) -> Callable[[Editor], object]:
    return lambda graph: graph.drop(kind, name)


def _without(kind: str, name: str, *path: str) -> Callable[[Editor], object]:
    """Remove what is at `path` in a workload's first container."""

    def edit(graph: Editor) -> None:
        target = graph.container(kind, name)
        for step in path[:-1]:
            target = target[step]
        del target[path[-1]]

    return edit


#: Edits of what a stack registers, each with the rule that has to notice.
EDITS: tuple[tuple[str, str, Callable[[Editor], object]], ...] = (
    ("redis-broker-evicts", "redis.conf of the broker: allkeys-lru", _directive("maxmemory-policy", "allkeys-lru")),
    (
        "redis-broker-not-persistent",
        "broker without append-only file and snapshots",
        lambda g: (g.directive(broker(g), "appendonly", "no"), g.directive(broker(g), "save", '""')),
    ),
    ("redis-broker-not-persistent", "broker's data in an emptyDir", _replace_claim),
    (
        "redis-broker-loses-failover",
        "min-replicas-to-write removed",
        lambda g: g.directive("redis-broker", "min-replicas-to-write", None),
    ),
    (
        "redis-sentinel-quorum",
        "two Sentinels",
        lambda g: set_at(g.find("StatefulSet", "redis-broker-sentinel"), "spec", "replicas", 2),
    ),
    (
        "redis-cache-policy",
        "caches under noeviction",
        lambda g: g.directive("redis" if broker(g) == "redis" else "redis-cache", "maxmemory-policy", "noeviction"),
    ),
    (
        "redis-cache-ttl",
        "chart data without a lifetime",
        lambda g: g.topology(
            lambda t: next(each for each in t["redis_databases"] if each["purpose"] == "data_cache").update(
                default_ttl_seconds=0
            )
        ),
    ),
    (
        "redis-cache-prefix",
        "two caches on one database and prefix",
        lambda g: g.topology(
            lambda t: [
                each.update(number=3, prefix="x:")
                for each in t["redis_databases"]
                if each["purpose"] in ("data_cache", "metadata_cache")
            ]
        ),
    ),
    ("redis-maxmemory", "maxmemory above the container's limit", _directive("maxmemory", "64gb")),
    ("redis-maxmemory", "no maxmemory", _directive("maxmemory", None)),
    (
        "redis-maxmemory",
        "no memory limit",
        lambda g: g.container("StatefulSet", broker(g))["resources"]["limits"].pop("memory"),
    ),
    (
        "redis-volume-size",
        "a volume of 100Mi",
        lambda g: set_at(
            g.find("StatefulSet", broker(g)),
            "spec",
            "volumeClaimTemplates",
            0,
            "spec",
            "resources",
            "requests",
            "storage",
            "100Mi",
        ),
    ),
    ("redis-no-password", "no access control", _directive("aclfile", None)),
    (
        "celery-config-unreadable",
        "the topology's JSON cut off",
        lambda g: set_at(g.find("ConfigMap", "superset-topology"), "data", "topology.json", "{"),
    ),
    ("celery-config-unreadable", "an unknown key in the topology", _topology("celery", "workers", 4)),
    ("celery-config-differs", "the web tier on a ConfigMap of its own", _foreign_web),
    ("celery-queue-unheard", "workers on another queue", _argument("--queues", "defaults")),
    (
        "celery-queue-unheard",
        "a queue declared that nobody hears",
        lambda g: g.topology(lambda t: t["celery"]["queues"].append("late")),
    ),
    ("celery-queue-unheard", "the pool of a queue removed", _drop("Deployment", WORKER)),
    ("celery-queue-undeclared", "workers on one queue more", _argument("--queues", "default,typo")),
    ("celery-limits", "soft limit above the hard one", _topology("celery", "soft_time_limit_seconds", 700)),
    ("celery-limits", "visibility timeout below the hard limit", _topology("celery", "visibility_timeout_seconds", 120)),
    ("celery-statement-timeout", "statement timeout above the soft limit", _topology("statement_timeout_seconds", 3000)),
    ("celery-grace-period", "30 s to stop", _pod("Deployment", WORKER, "terminationGracePeriodSeconds", 30)),
    (
        "celery-grace-period",
        "the API server's default grace period",
        lambda g: g.pod("Deployment", WORKER).pop("terminationGracePeriodSeconds"),
    ),
    (
        "celery-shell-keeps-signal",
        "the worker in a shell",
        lambda g: set_at(
            g.container("Deployment", WORKER),
            "command",
            ["sh", "-c", " ".join(g.container("Deployment", WORKER)["command"])],
        ),
    ),
    # No process reads a topology that says so; settings of another origin are planted.
    ("celery-config-unreadable", "results kept for ever", _topology("celery", "result_expires_seconds", 0)),
    (
        "celery-results-cleaner",
        "results in PostgreSQL without their cleaner",
        lambda g: g.topology(lambda t: (t["celery"].update(result_backend="postgresql"), t["beat"].update(jobs=[]))),
    ),
    ("celery-beat-missing", "beat removed", _drop("Deployment", "beat")),
    ("celery-beat-missing", "beat at 0 replicas", _deployment("beat", "replicas", 0)),
    ("celery-one-beat", "two replicas of beat", _deployment("beat", "replicas", 2)),
    ("celery-one-beat", "beat that rolls", _deployment("beat", "strategy", {"type": "RollingUpdate"})),
    ("celery-one-beat", "a second beat", _beat_beside_worker),
    (
        "celery-embedded-beat",
        "a beat inside the worker",
        lambda g: g.container("Deployment", WORKER)["command"].append("--beat"),
    ),
    ("celery-child-memory", "children replaced at 200 MB", _argument("--max-memory-per-child", "200000")),
    ("celery-child-memory", "children larger than the pod", _argument("--max-memory-per-child", "1900000")),
    ("celery-concurrency", "no --concurrency", _argument("--concurrency", None)),
    ("celery-prefetch", "prefetch 8", _argument("--prefetch-multiplier", "8")),
    ("celery-connections", "concurrency 400", _argument("--concurrency", "400")),
    (
        "celery-connections",
        "PostgreSQL's own 20 connections",
        lambda g: set_at(g.container("StatefulSet", "postgres"), "command", ["postgres", "-c", "max_connections=20"]),
    ),
    ("scaling-one-scaler", "a second scaler on the web tier", _second_scaler),
    (
        "scaling-no-target",
        "a scaler of nothing",
        lambda g: set_at(g.find("HorizontalPodAutoscaler"), "spec", "scaleTargetRef", "name", "webb"),
    ),
    (
        "scaling-replicas-beside-scaler",
        "replicas beside the scaler",
        lambda g: (g.find("ScaledObject"), set_at(g.find("Deployment", WORKER), "spec", "replicas", 3)),
    ),
    (
        "scaling-request-missing",
        "no CPU request under a CPU scaler",
        lambda g: (
            g.find("HorizontalPodAutoscaler", "web"),
            g.container("Deployment", "web")["resources"]["requests"].pop("cpu"),
        ),
    ),
    ("scaling-bounds", "minimum above maximum", _scaled("minReplicaCount", 99)),
    ("scaling-bounds", "an HPA from 0", lambda g: set_at(g.find("HorizontalPodAutoscaler"), "spec", "minReplicas", 0)),
    (
        "scaling-keda-admission",
        "a name of 60 characters",
        lambda g: set_at(g.find("ScaledObject"), "metadata", "name", "w" * 60),
    ),
    (
        "scaling-keda-admission",
        "CPU alone from 0",
        lambda g: (
            _scaled("minReplicaCount", 0)(g),
            _scaled("triggers", [each for each in g.find("ScaledObject")["spec"]["triggers"] if each["type"] == "cpu"])(g),
        ),
    ),
    (
        "scaling-keda-admission",
        "two triggers of one name",
        lambda g: g.find("ScaledObject")["spec"]["triggers"].append(
            copy.deepcopy(g.find("ScaledObject")["spec"]["triggers"][0])
        ),
    ),
    (
        "scaling-keda-admission",
        "a formula over triggers without names",
        lambda g: g.find("ScaledObject")["spec"]["triggers"][0].pop("name"),
    ),
    ("scaling-keda-admission", "no triggers", _scaled("triggers", [])),
    ("scaling-watches-broker", "database 1 instead of the broker's", _trigger("databaseIndex", "1")),
    ("scaling-watches-broker", "another queue's list", _trigger("listName", "other")),
    ("scaling-watches-broker", "the caches' server", _other_server),
    ("scaling-watches-broker", "the caches' Sentinel service", _trigger("sentinelMaster", "redis-cache")),
    (
        "scaling-blind-to-queue",
        "CPU alone",
        lambda g: _scaled(
            "triggers", [each for each in g.find("ScaledObject")["spec"]["triggers"] if each["type"] == "cpu"]
        )(g),
    ),
    ("scaling-keda-tls-twice", "TLS in trigger and authentication", _tls_twice),
    (
        "scaling-no-data",
        "a prometheus trigger that takes no data for zero",
        lambda g: g.find("ScaledObject")["spec"]["triggers"].append(
            {
                "type": "prometheus",
                "name": "p",
                "metadata": {"serverAddress": "http://prometheus:9090", "query": "x", "threshold": "1"},
            }
        ),
    ),
    (
        "scaling-scale-in",
        "scale-in at once",
        _scaled("advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown", "stabilizationWindowSeconds", 0),
    ),
    ("scaling-web-on-memory", "the web tier scaled on memory", _memory_scaler),
    ("scaling-two-metric-servers", "an adapter beside KEDA", _adapter),
    (
        "scaling-worker-fixed",
        "the scaler removed, 5 workers",
        lambda g: (g.drop("ScaledObject", WORKER), set_at(g.find("Deployment", WORKER), "spec", "replicas", 5)),
    ),
    ("pods-image-tag", "image latest", _container("Deployment", "web", "image", "apache/superset:latest")),
    ("pods-image-tag", "image without a tag", _container("StatefulSet", "redis", "image", "redis")),
    (
        "network-redis-plain",
        "a plain port beside TLS",
        _in_production(lambda g: g.directive("redis-broker", "port", "6379")),
    ),
    ("network-redis-plain", "a server without TLS", _in_production(lambda g: g.directive("redis-cache", "tls-port", None))),
    ("network-postgres-plain", "a rule for clients without TLS", _in_production(_hba_lets_plain_in)),
    ("network-postgres-plain", "a server without TLS", _in_production(_postgres_argument("ssl", "off"))),
    ("network-clients-plain", "clients that verify no Redis", _in_production(_topology("redis", 0, "tls", None))),
    ("network-clients-plain", "clients that verify no PostgreSQL", _in_production(_topology("postgres", "tls", None))),
    (
        "pods-image-digest",
        "image without a digest",
        _in_production(_container("Deployment", "web", "image", "registry.example.com/superset-async:6.1.0-1")),
    ),
    ("pods-restricted", "a container as root", _container("Deployment", "web", "securityContext", "runAsUser", 0)),
    ("pods-restricted", "runAsNonRoot false", _container("Deployment", WORKER, "securityContext", "runAsNonRoot", False)),
    ("pods-restricted", "a privileged container", _container("Deployment", "web", "securityContext", "privileged", True)),
    (
        "pods-restricted",
        "privilege escalation",
        _without("Deployment", "beat", "securityContext", "allowPrivilegeEscalation"),
    ),
    ("pods-restricted", "capabilities kept", _without("StatefulSet", "postgres", "securityContext", "capabilities")),
    (
        "pods-restricted",
        "a capability added",
        _container("Deployment", "web", "securityContext", "capabilities", "add", ["SYS_ADMIN"]),
    ),
    ("pods-restricted", "no seccomp profile", lambda g: g.pod("Deployment", "web")["securityContext"].pop("seccompProfile")),
    (
        "pods-host-access",
        "a hostPath volume",
        lambda g: g.pod("Deployment", "web")["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
    ),
    ("pods-host-access", "the node's network", _pod("Deployment", WORKER, "hostNetwork", True)),
    ("pods-resources", "no requests", _without("Deployment", "beat", "resources", "requests")),
    ("pods-resources", "no memory limit", _without("Deployment", "web", "resources", "limits", "memory")),
    (
        "pods-resources",
        "a request above its limit",
        _container("StatefulSet", "postgres", "resources", "requests", "memory", "64Gi"),
    ),
    ("pods-token", "a token of the API server", _pod("Deployment", "web", "automountServiceAccountToken", True)),
    ("pods-service-links", "Services as variables", _pod("Deployment", "web", "enableServiceLinks", True)),
    (
        "pods-budget-missing",
        "the workers' budget removed",
        lambda g: (set_at(g.find("Deployment", WORKER), "spec", "replicas", 3), g.drop("PodDisruptionBudget", WORKER)),
    ),
    (
        "pods-budget-missing",
        "a budget for other pods",
        lambda g: (
            set_at(g.find("Deployment", WORKER), "spec", "replicas", 3),
            set_at(g.find("PodDisruptionBudget", WORKER), "spec", "selector", {"matchLabels": {"app": "x"}}),
        ),
    ),
    (
        "pods-budget-blocks",
        "maxUnavailable 0",
        lambda g: set_at(g.find("PodDisruptionBudget", WORKER), "spec", "maxUnavailable", 0),
    ),
    (
        "pods-budget-blocks",
        "minAvailable 100%",
        lambda g: set_at(
            g.find("PodDisruptionBudget", WORKER),
            "spec",
            {
                "minAvailable": "100%",
                **{k: v for k, v in g.find("PodDisruptionBudget", WORKER)["spec"].items() if k == "selector"},
            },
        ),
    ),
    (
        "pods-budget-unhealthy",
        "sick pods block a drain",
        lambda g: g.find("PodDisruptionBudget")["spec"].pop("unhealthyPodEvictionPolicy"),
    ),
    ("pods-readiness", "no readinessProbe", _without("Deployment", "web", "readinessProbe")),
    ("pods-selector", "a selector of other labels", _deployment("web", "selector", {"matchLabels": {"app": "other"}})),
    (
        "pods-namespace",
        "Pod Security baseline",
        lambda g: set_at(g.find("Namespace"), "metadata", "labels", "pod-security.kubernetes.io/enforce", "baseline"),
    ),
    (
        "pods-namespace-missing",
        "a pod in namespace default",
        lambda g: g.find("Deployment", "beat")["metadata"].pop("namespace"),
    ),
    (
        "pods-labels",
        "a label removed",
        lambda g: g.find("Deployment", "web")["metadata"]["labels"].pop("app.kubernetes.io/instance"),
    ),
    ("pods-one-writer", "a claimed volume under a rolling Deployment", _claim_of_web),
    ("network-default-deny", "default deny removed", _drop("NetworkPolicy", "allow-default-deny")),
    (
        "network-default-deny",
        "default deny for ingress alone",
        lambda g: set_at(g.find("NetworkPolicy", "allow-default-deny"), "spec", "policyTypes", ["Ingress"]),
    ),
    ("network-policy-opens-all", "a rule that allows all egress", _rule_of("egress", {}, "allow-dns")),
    (
        "network-policy-opens-all",
        "ingress from anywhere on every port",
        _rule_of("ingress", {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, "allow-to-web"),
    ),
    (
        "network-policy-opens-all",
        "egress of some pods to anywhere on one port",
        _rule_of("egress", {"ports": [{"port": 443}]}, "allow-from-superset"),
    ),
    (
        "network-policy-opens-all",
        "egress of some pods to every namespace",
        _rule_of("egress", {"to": [{"namespaceSelector": {}}], "ports": [{"port": 443}]}, "allow-from-superset"),
    ),
    (
        "network-policy-opens-all",
        "egress of some pods on every port",
        _rule_of("egress", {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, "allow-from-superset"),
    ),
    (
        "network-node-reached",
        "the Internet, and the machine's metadata with it",
        _rule_of("egress", {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 80}]}, "allow-from-superset"),
    ),
    (
        "network-node-reached",
        "the machine's metadata beside its resolver",
        _rule_of("egress", {"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}], "ports": [{"port": 80}]}, "allow-dns"),
    ),
    (
        "network-node-reached",
        "half of the Internet, with one address of the node excepted",
        _rule_of(
            "egress",
            {
                "to": [{"ipBlock": {"cidr": "128.0.0.0/1", "except": ["169.254.169.254/32"]}}],
                "ports": [{"port": 443}],
            },
            "allow-from-superset",
        ),
    ),
    (
        "network-node-reached",
        "the machine's metadata by IPv6",
        _rule_of("egress", {"to": [{"ipBlock": {"cidr": "::/0"}}], "ports": [{"port": 443}]}, "allow-from-superset"),
    ),
    (
        "network-store-open",
        "PostgreSQL reached by all",
        _rule_of("ingress", {"ports": [{"port": 5432}]}, "allow-to-postgres"),
    ),
    (
        "network-store-open",
        "Redis reached from every namespace",
        _rule_of("ingress", {"from": [{"namespaceSelector": {}}], "ports": [{"port": 6379}]}, "allow-to-redis"),
    ),
    ("network-public-service", "a LoadBalancer", _service("spec", "type", "LoadBalancer")),
    ("network-public-service", "a NodePort", _service("spec", "type", "NodePort")),
    ("network-public-service", "an external address", _service("spec", "externalIPs", ["192.0.2.7"])),
    ("network-service-without-pods", "a Service of no pods", _service("spec", "selector", {"app": "nobody"})),
    (
        "network-ingress-plain",
        "an Ingress without TLS",
        lambda g: g.add(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "metadata": {"name": "web"},
                "spec": {"rules": [{"host": "bi.example.com"}]},
            }
        ),
    ),
    (
        "secrets-in-clear",
        "a password in a ConfigMap",
        lambda g: set_at(g.find("ConfigMap"), "data", "note", f"it is {_secret_of(g)}"),
    ),
    (
        "secrets-in-clear",
        "a password in an argument",
        lambda g: g.container("Deployment", "web")["command"].append(f"--key={_secret_of(g)}"),
    ),
    (
        "secrets-in-clear",
        "a password in an annotation",
        lambda g: set_at(g.find("Deployment", "web"), "metadata", "annotations", "note", _secret_of(g)),
    ),
    (
        "secrets-in-clear",
        "a password in a custom resource",
        lambda g: g.add(
            {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ClusterTriggerAuthentication",
                "metadata": {"name": "x"},
                "spec": {"inline": {"password": _secret_of(g)}},
            }
        ),
    ),
    (
        "secrets-in-clear",
        "a URL with a password in a ConfigMap",
        lambda g: set_at(g.find("ConfigMap"), "data", "url", "redis://:Tr0ub4dor@redis:6379/0"),
    ),
    (
        "secrets-in-environment",
        "a variable with a literal password",
        lambda g: g.container("Deployment", "web")["env"].append({"name": "REDIS_PASSWORD", "value": "Tr0ub4dor"}),
    ),
    (
        "secrets-length",
        "a JWT secret of 16 characters",
        lambda g: set_at(g.find("RandomPassword", "superset-jwt"), "length", 16),
    ),
    (
        "secrets-key-length",
        "a secret key of 9 bytes",
        lambda g: set_at(g.find("Secret", "superset-app"), "stringData", "SUPERSET_SECRET_KEY", "too-short"),
    ),
    (
        "secrets-known",
        "the secret key of the documentation",
        lambda g: set_at(
            g.find("Secret", "superset-app"), "stringData", "SUPERSET_SECRET_KEY", "CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET"
        ),
    ),
    (
        "secrets-known",
        "password admin",
        lambda g: set_at(g.find("Secret", "superset-init"), "stringData", "ADMIN_PASSWORD", "admin"),
    ),
    (
        "secrets-shared",
        "workers with another secret key",
        lambda g: set_at(_variable(g, WORKER, "SUPERSET_SECRET_KEY"), "valueFrom", "secretKeyRef", "name", "other"),
    ),
    (
        "secrets-shared",
        "workers without the JWT secret",
        lambda g: g.container("Deployment", WORKER)["env"].remove(_variable(g, WORKER, "ASYNC_QUERIES_JWT_SECRET")),
    ),
    (
        "secrets-key-missing",
        "no secret key at all",
        lambda g: [
            each["env"].remove(_variable(g, name, "SUPERSET_SECRET_KEY"))
            for name in ("web", WORKER)
            for each in [g.container("Deployment", name)]
        ],
    ),
    (
        "platform-prod-minimal",
        "environment prod on topology minimal",
        lambda g: g.topology(lambda t: t.update(environment="prod", name="minimal")),
    ),
    (
        "platform-unseen-objects",
        "a Helm release",
        lambda g: g.resources.append(
            Resource(type="kubernetes:helm.sh/v3:Release", name="redis", inputs={"chart": "redis"})
        ),
    ),
)


def all_mutations() -> Iterator[Mutation]:
    """Every mutation."""
    of_any, of_aws = ((*each, "") for each in SETTINGS), ((*each, "aws") for each in aws_mutations.SETTINGS)
    for path, value, platform in (*of_any, *of_aws):
        text = json.dumps(value, ensure_ascii=False)
        where = f"{path.replace('/', '.')}: " if path else ""
        yield Mutation(
            f"`{where}{text if len(text) <= 90 else text[:89] + '…'}`", settings=_keys(path, value), platform=platform
        )
    for rule, what, edit in (*EDITS, *aws_mutations.EDITS):
        yield Mutation(what, edit=edit, rule=rule)


@cache
def with_digests(stack: str) -> dict[str, Any]:
    """The keys of a stack file, its images with the digests that a registry would have given."""
    config = stack_file.read(stack)
    images = plan(stack, config).images
    pinned = {
        name: f"{getattr(images, name)}@sha256:{check.generate(name, 64)}" for name in ("superset", "redis", "postgres")
    }
    return presets.merge(config, {"images": pinned})


@cache
def shipped(stack: str) -> Graph:
    """What a shipped stack registers."""
    return check.graph_of(stack, with_digests(stack))


def mutated(stack: str, mutation: Mutation) -> Graph:
    """What `stack` registers when it is broken so; StackError where the settings' check refuses it, NotApplicableError."""
    if mutation.edit is not None:
        editor = Editor(shipped(stack))
        mutation.edit(editor)
        return editor.graph()
    config = with_digests(stack)
    wanted = mutation.settings or {}
    on_aws = config["platform"] == "aws"
    if (mutation.platform == "aws" and not on_aws) or (on_aws and wanted in NOT_ON_AWS):
        raise NotApplicableError(mutation.what)
    changed = presets.merge(config, wanted)
    preset = presets.settings_of(config["topology"], on_aws=on_aws)
    if presets.merge(preset, changed) == presets.merge(preset, config):
        raise NotApplicableError(mutation.what)
    return check.graph_of(stack, changed)


def caught_by(stack: str, mutation: Mutation) -> list[str] | None:
    """What notices the mutation on `stack`: `settings`, or rules; none of them: empty; None: it does not apply there."""
    key = stack, mutation.what, mutation.rule
    if key not in _CAUGHT:
        _CAUGHT[key] = _caught_by(stack, mutation)
    return _CAUGHT[key]


_CAUGHT: dict[tuple[str, str, str], list[str] | None] = {}


def _caught_by(stack: str, mutation: Mutation) -> list[str] | None:
    try:
        graph = mutated(stack, mutation)
    except NotApplicableError:
        return None
    except StackError:
        return ["settings"]
    return list(dict.fromkeys(each.rule for each in evaluate(graph).findings))
