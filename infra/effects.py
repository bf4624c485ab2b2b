"""`python -m infra.effects` prints docs/settings-and-processes.md: which processes a changed setting reaches, and how.

Each setting of a stack file is changed to another value that a stack may have. What follows from the two plans is what
`topology.readers` says of every field in which they differ: a new setting is on the page by itself. Tests compare the page with
the objects that the Pulumi program makes of both plans, and with what real processes read.
"""

from __future__ import annotations

import json
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from pydantic.fields import FieldInfo

from topology import presets, readers
from topology.model import Topology
from topology.plan import plan
from topology.presets import merge, settings_of
from topology.problems import StackError
from topology.reference import setting_leaves
from topology.settings import Settings
from topology.settings.section import section_in

_SERVER = settings_of("minimal")["redis"]["broker"]
#: The stack that is changed: small, with one entry of everything that has names.
BASE: dict[str, Any] = {
    "topology": "minimal",
    "redis": {"broker": _SERVER, "cache": _SERVER},
    "celery": {"acks_late": True, "queues": ["default", "urgent"]},
    "workers": {"prefetch_multiplier": 1, "max_workers": 4},
    "pools": {"default": {}, "urgent": {}},
    "urgent": {"queue": "urgent", "roles": [], "marker_roles": ["Admin"]},
    "tenants": {"acme": {"users": ["ann"]}, "beta": {"users": ["bob"], "pool": "shared"}},
    "web": {"max_replicas": 2},
    "databases": {"lake": {"uri": "postgresql://10.21.0.9/hive"}},
}
_KEY = {"secret": "login", "key": "password"}
_SECRET = {"secret": "login", "key": "secret"}
_CIDRS = ["10.30.0.0/24"]
_OIDC = {"issuer": "https://login.example.com", "client_id": "superset", "client_secret": _SECRET}
_EMBEDDING = {"origins": ["https://portal.example.com"]}
_LDAP = {"server": "ldaps://ldap.example.com", "search": "dc=example", "bind_user": "cn=superset", "bind_password": _SECRET}
#: The names in it that stand for `<name>`.
NAMES = {"tenants": "acme", "pools": "default", "databases": "lake", "env": "ACME", "egress": "mail"}
_EXISTING = {
    "host": "redis.example.com",
    "port": 6380,
    "username": "superset",
    "tls": True,
    "ca_secret": "authority",
    "password_secret": "login",
    "cidrs": ["10.9.0.0/24"],
}
_ROUTE = {"kind": "ingress", "host": "x.example.com", "parent": "nginx", "tls_secret": "tls", "from_namespaces": ["nginx"]}
_SCALING = {"kind": "keda", "cpu_target": 70, "queued_per_worker": 50, "scale_in_window": 300}
_SENTINEL = {"replicas": 2, "sentinel": True}
_BACKUP = {"backup": {"cron": "41 1 * * *", "keep": 7, "volume_size": "5Gi"}}
_SPILL = {"spill": {"above": "1Mi", "folder": "/results", "claim": "results"}}
#: What the stack has beside, so that a setting of an optional section can be changed: by the beginning of its path.
BESIDE: dict[str, dict[str, Any]] = {
    "redis.broker.existing.": {"redis": {"broker": {"existing": _EXISTING}}},
    "redis.cache.existing.": {"redis": {"cache": {"existing": _EXISTING}}},
    "postgres.backup.": {"postgres": _BACKUP},
    "postgres.instances": {"postgres": {"kind": "cloudnativepg", "instances": 2}},
    "postgres.host": {"postgres": {"kind": "existing", "host": "db.example.com", "cidrs": _CIDRS, "max_connections": 900}},
    "postgres.cidrs": {"postgres": {"kind": "existing", "host": "10.8.0.9", "max_connections": 900}},
    "network.egress.<name>.": {"network": {"egress": {"mail": {"cidrs": ["10.2.0.0/24"], "ports": [25]}}}},
    "postgres.ca_secret": {
        "postgres": {"kind": "existing", "host": "db.example.com", "cidrs": _CIDRS, "max_connections": 900, "tls": None}
    },
    "redis.tls.": {"redis": {"tls": {"kind": "cert-manager", "issuer": "internal-ca"}}},
    "postgres.tls.": {"postgres": {"tls": {"kind": "cert-manager", "issuer": "internal-ca"}}},
    "postgres.port": {"postgres": {"kind": "existing", "host": "db.example.com", "cidrs": _CIDRS, "max_connections": 900}},
    "web.route.": {"web": {"route": _ROUTE}},
    "workers.scaling.": {"workers": {"scaling": _SCALING}},
    "pools.<name>.scaling.": {"pools": {"default": {"scaling": _SCALING}}},
    "caching.spill.": {"caching": _SPILL},
    "celery.acks_late": {"tenants": {"beta": {"pool": "dedicated"}}},
    "workers.prefetch_multiplier": {"tenants": {"beta": {"pool": "dedicated"}}},
    "pools.<name>.prefetch_multiplier": {"tenants": {"beta": {"pool": "dedicated"}}},
    "superset.env.": {"superset": {"env": {"ACME": {"secret": "acme", "key": "token"}}}},
    "superset.embedding.": {"superset": {"embedding": _EMBEDDING}},
    "superset.sign_on.oidc.": {"superset": {"sign_on": {"oidc": _OIDC, "cidrs": _CIDRS}}},
    "superset.sign_on.ldap.": {"superset": {"sign_on": {"ldap": _LDAP, "cidrs": _CIDRS}}},
    "superset.sign_on.remote_user.": {"superset": {"sign_on": {"remote_user": {"proxies": ["10.2.0.0/16"]}}}},
    "superset.sign_on.roles": {"superset": {"sign_on": {"oidc": _OIDC, "cidrs": _CIDRS}}},
    "superset.sign_on.registration_role": {"superset": {"sign_on": {"oidc": _OIDC, "cidrs": _CIDRS}}},
    "superset.sign_on.sync_roles": {"superset": {"sign_on": {"oidc": _OIDC, "cidrs": _CIDRS}}},
    "superset.sign_on.cidrs": {"superset": {"sign_on": {"oidc": _OIDC, "cidrs": _CIDRS}}},
    "tracing.": {"tracing": {"endpoint": "http://10.2.0.9:4318"}},
    "tenants.<name>.quota.": {"tenants": {"acme": {"quota": {"cpu": "90", "memory": "900Gi"}}}},
}
_RESOURCES = {"cpu_request": "300m", "cpu_limit": "2", "memory_request": "1100Mi", "memory_limit": "3Gi"}
#: A value that needs others beside it, or is of a form that cannot be guessed: the change as a stack file says it.
EXAMPLES: dict[str, dict[str, Any]] = {
    "redis.broker.sentinel": {"redis": {"broker": _SENTINEL}},
    "redis.cache.sentinel": {"redis": {"cache": _SENTINEL}},
    "redis.broker.existing": {"redis": {"broker": {"existing": _EXISTING}}},
    "redis.cache.existing": {"redis": {"cache": {"existing": _EXISTING}}},
    "redis.cache": {"redis": {"cache": {"maxmemory": "128Mi"}}},
    "postgres.backup": {"postgres": _BACKUP},
    "web.route": {"web": {"route": _ROUTE}},
    "workers.scaling": {"workers": {"scaling": _SCALING}},
    "celery.default_queue": {
        "celery": {"default_queue": "more", "queues": ["more", "urgent"]},
        "pools": {"more": {}, "default": {"queues": ["more"]}},
    },
    "celery.queues": {"celery": {"queues": ["default", "urgent", "more"]}, "pools": {"more": {}}},
    "pools.<name>.queues": {
        "celery": {"queues": ["default", "urgent", "more"]},
        "pools": {"default": {"queues": ["default", "more"]}},
    },
    **{f"pools.<name>.resources.{key}": {"pools": {"default": {"resources": _RESOURCES}}} for key in _RESOURCES},
    "caching.spill": {"caching": _SPILL},
    "urgent": {"urgent": None},
    "urgent.queue": {
        "urgent": {"queue": "more"},
        "celery": {"queues": ["default", "urgent", "more"]},
        "pools": {"more": {}},
    },
    **{
        f"redis.{server}.existing.tls": {"redis": {server: {"existing": {"tls": False, "ca_secret": None}}}}
        for server in ("broker", "cache")
    },
    **{
        f"{server}.tls{key}": {server: {"tls": change}}
        for server in ("redis", "postgres")
        for key, change in {
            "": {"kind": "generated"},
            ".kind": {"kind": "generated", "issuer": None},
            ".secret": {"kind": "secret", "issuer": None, "secret": "servers"},
        }.items()
    },
    "tracing.endpoint": {"tracing": {"endpoint": "http://collector.observability.svc:4318"}},
    "tracing.cidrs": {"tracing": {"cidrs": _CIDRS}},
    "web.route.kind": {"web": {"route": {"kind": "gateway", "parent": "gateways/public", "tls_secret": None}}},
    "network.egress": {"network": {"egress": {"other": {"cidrs": ["10.1.0.0/24"], "ports": [587]}}}},
    "network.egress.<name>.cidrs": {"network": {"egress": {"mail": {"cidrs": ["10.1.0.0/24"]}}}},
    "network.egress.<name>.ports": {"network": {"egress": {"mail": {"ports": [465]}}}},
    "network.egress.<name>.pods": {"network": {"egress": {"mail": {"pods": "web"}}}},
    "postgres.cidrs": {"postgres": {"cidrs": ["10.9.0.0/24"]}},
    "databases.<name>.cidrs": {"databases": {"lake": {"cidrs": ["10.9.0.0/24"]}}},
    "databases.<name>.ports": {"databases": {"lake": {"ports": [6432]}}},
    "network.api_server_cidrs": {"network": {"api_server_cidrs": ["10.0.0.1/32"]}},
    "network.dns": {"network": {"dns": ["openshift"]}},
    "network.dns_cidrs": {"network": {"dns_cidrs": ["10.96.0.10/32"]}},
    "superset.feature_flags": {"superset": {"feature_flags": {"DASHBOARD_RBAC": True}}},
    "superset.settings": {"superset": {"settings": {"APP_NAME": "Acme"}}},
    "superset.own_settings": {"superset": {"own_settings": {"ACME_REGION": "eu"}}},
    "superset.config_module": {"superset": {"config_module": "../docs/examples/acme"}},
    "superset.env.<name>.secret": {"superset": {"env": {"ACME": {"secret": "other"}}}},
    "superset.env.<name>.key": {"superset": {"env": {"ACME": {"key": "other"}}}},
    "superset.embedding": {"superset": {"embedding": _EMBEDDING}},
    "superset.embedding.origins": {"superset": {"embedding": {"origins": ["https://other.example.com"]}}},
    "superset.sign_on": {"superset": {"sign_on": {"oidc": _OIDC, "cidrs": _CIDRS}}},
    "superset.sign_on.oidc": {"superset": {"sign_on": {"oidc": _OIDC, "cidrs": _CIDRS}}},
    "superset.sign_on.oidc.issuer": {"superset": {"sign_on": {"oidc": {"issuer": "https://other.example.com"}}}},
    "superset.sign_on.oidc.client_secret": {"superset": {"sign_on": {"oidc": {"client_secret": _KEY}}}},
    "superset.sign_on.oidc.scopes": {"superset": {"sign_on": {"oidc": {"scopes": ["openid", "groups"]}}}},
    "superset.sign_on.ldap": {"superset": {"sign_on": {"ldap": _LDAP, "cidrs": _CIDRS}}},
    "superset.sign_on.ldap.server": {"superset": {"sign_on": {"ldap": {"server": "ldaps://other.example.com"}}}},
    "superset.sign_on.ldap.start_tls": {
        "superset": {"sign_on": {"ldap": {"server": "ldap://ldap.example.com", "start_tls": True}}}
    },
    "superset.sign_on.ldap.bind_password": {"superset": {"sign_on": {"ldap": {"bind_password": _KEY}}}},
    "superset.sign_on.remote_user": {"superset": {"sign_on": {"remote_user": {"proxies": ["10.1.0.0/16"]}}}},
    "superset.sign_on.roles": {"superset": {"sign_on": {"roles": {"admins": ["Admin"]}}}},
    "superset.sign_on.sync_roles": {"superset": {"sign_on": {"sync_roles": False}}},
    "tenants.<name>.groups": {
        "tenants": {"acme": {"groups": ["analysts"]}},
        "superset": {"sign_on": {"oidc": _OIDC, "cidrs": _CIDRS}},
    },
    "rates.currency": {"rates": {"currency": "EUR"}},
    "databases.<name>.uri": {"databases": {"lake": {"uri": "postgresql://10.21.0.10/hive"}}},
    "tenants.<name>.databases": {"tenants": {"acme": {"databases": ["lake"]}}},
    "tenants.<name>.guests": {"tenants": {"acme": {"guests": [{"claim": "org", "value": "acme"}]}}},
    "tenants.<name>.in_flight": {"tenants": {"beta": {"in_flight": 1}}, "workers": {"concurrency": 3}},
    "tenants.<name>.quota": {"tenants": {"acme": {"quota": {"cpu": "90", "memory": "900Gi"}}}},
    "tenants.<name>.soft_time_limit": {"tenants": {"acme": {"soft_time_limit": 500, "statement_timeout": 490}}},
}
#: Settings of one platform alone, which the stack above is not for.
ELSEWHERE = {
    "local": "`make up` starts every process anew",
    "aws": "resources of AWS: [aws.md](aws.md)",
    "policy_exceptions": "read by the policy pack alone",
    "superset.sign_on.ldap.ca_file": "for this machine alone",
    "caching.bucket": "on AWS and on this machine: web and workers restart",
    "databases.<name>.sample": "for this machine alone",
    "topology": "another stack",
    "platform": "another stack",
    "namespace": "another stack: everything is made anew",
    "existing_namespace": "no process: whose the namespace is",
}

Reach = Literal["restarts", "live", "–"]


def settings_of_all() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting with its path as in docs/configuration.md."""
    for path, field in setting_leaves(Settings):
        yield ".".join(path), field


def elsewhere(path: str) -> str | None:
    """What a setting reaches that is not of Kubernetes, or makes another stack; None for all others."""
    return next((text for start, text in ELSEWHERE.items() if path == start or path.startswith(f"{start}.")), None)


def beside(path: str) -> dict[str, Any]:
    """The stack in which the setting at `path` is changed."""
    for start, extra in BESIDE.items():
        if path == start or (start.endswith(".") and path.startswith(start)):
            return merge(BASE, extra)
    return BASE


def change_of(path: str, field: FieldInfo) -> dict[str, Any] | None:
    """A change of one setting, as keys of a stack file, with which the stack can still be planned; None where none is known."""
    base = beside(path)
    if path in EXAMPLES:
        return EXAMPLES[path]
    keys = [NAMES.get(before, key) if key == "<name>" else key for before, key in _pairs(path)]
    before, unchanged = _at(merge(presets.settings_of("minimal"), base), keys), _planned(base)
    for value in _candidates(before, field):
        change: Any = value
        for key in reversed(keys):
            change = {key: change}
        if _planned(merge(base, change)) not in (None, unchanged):
            return cast("dict[str, Any]", change)
    return None


def effect_of(before: Topology, after: Topology) -> Mapping[readers.Process, Reach]:
    """What a change does to each kind of process: it restarts, follows the file live, or goes on as it is."""
    changed = changed_fields(before, after)

    def reach(process: readers.Process) -> Reach:
        whys = {readers.why_not(path, process) for path in changed if not path.startswith("pools.")}
        if process == "worker" and _pools_restart(before, after):
            return "restarts"
        return "restarts" if not whys.isdisjoint({None, "template"}) else "live" if "live" in whys else "–"

    return {process: reach(process) for process in readers.PROCESSES}


def field_of(topology: Topology, path: str) -> bool:
    """Whether a setting stands in the topology under its own path."""
    found: Any = topology
    for part in path.split("."):
        found = getattr(found, part, None)
    return found is not None


def effect_of_field(path: str) -> Mapping[readers.Process, Reach]:
    """What a change of the topology's field at `path` does, where no other value of it is known."""

    def reach(why: readers.Why | None) -> Reach:
        return "restarts" if why in (None, "template") else "live" if why == "live" else "–"

    return {process: reach(readers.why_not(path, process)) for process in readers.PROCESSES}


def _pools_restart(before: Topology, after: Topology) -> bool:
    """Whether workers of a pool that stays read something else, or have another template."""
    after_by_name = {pool.name: pool for pool in after.pools}
    for pool in before.pools:
        if (now := after_by_name.get(pool.name)) is None:
            continue
        old, new = (dict(readers.leaves(each.model_dump(mode="json"))) for each in (pool, now))
        fields = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
        if any(readers.why_not(f"pools.*.{path}", "worker") == "template" for path in fields):
            return True
        if readers.of_pool(before, pool.name) != readers.of_pool(after, pool.name):
            return True
    return False


def changed_fields(before: Topology, after: Topology) -> set[str]:
    """Paths of the fields in which two plans differ, with `*` for items of lists."""
    old, new = (
        {(path, json.dumps(value)) for path, value in readers.leaves(each.model_dump(mode="json"))}
        for each in (before, after)
    )
    return {path for path, _ in old ^ new}


def _pairs(path: str) -> Iterator[tuple[str, str]]:
    parts = path.split(".")
    yield from zip(["", *parts], parts, strict=False)


def _at(node: Any, keys: list[str]) -> Any:
    for key in keys:
        node = cast("dict[str, Any]", node).get(key) if isinstance(node, dict) else None
    return node


def _candidates(value: Any, field: FieldInfo) -> Iterator[Any]:
    """Other values that a setting of this value, or of this type where it has none, may have."""
    yield from _literals(field.annotation)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value * 2, value - 1, value / 2, value + 0.1)
    elif isinstance(value, str):
        if found := re.fullmatch(r"(\d+)(\D*)", value):
            number, unit = int(found[1]), found[2]
            yield from (f"{number * 2}{unit}", f"{number // 2}{unit}", f"{number + 1}{unit}", f"{max(1, number - 1)}{unit}")
        yield from ("7 4 * * *", f"{value}x", f"{value}/x", "x")
    elif isinstance(value, list):
        for item in _GUESSES:
            yield [*cast("list[Any]", value), item]
        yield []
    yield from _GUESSES
    for item in _GUESSES:
        yield from ([item], {"x": item})


_GUESSES: tuple[Any, ...] = (
    2,
    1,
    60,
    900,
    0.5,
    "1Gi",
    "512Mi",
    "x-1",
    "X",
    "x.example.com",
    "10.1.0.0/16",
    True,
    False,
    "x/y",
)


def _literals(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is Literal:
        yield from typing.get_args(annotation)
    else:
        for inner in typing.get_args(annotation):
            if section_in(inner)[0] is None:
                yield from _literals(inner)


def _planned(config: Mapping[str, Any]) -> Topology | None:
    try:
        return plan("any", config)
    except StackError:
        return None


_HEADER = """# Which processes a changed setting reaches

Written from the settings and `topology/readers.py` by `make docs`. Tests hold it: real processes write down what they read, and
the objects of both stacks are compared.

- **restarts**: the pods roll, the init job runs again. What a process reads at its start decides that: everything, but for a
  short list with reasons. A change from one replica or worker to several also rolls its pods: several are spread over nodes.
- **live**: a running process takes it from the topology's file, within about a minute of the change on Kubernetes.
- **–**: it goes on as it is. Where nothing else stands in a line, the setting reaches servers of Redis and PostgreSQL, scalers,
  volumes or policies, which have it in their own objects.

On this machine `make up` starts every process anew when anything has changed. A setting of a pool or a tenant restarts the
workers of that pool alone.

| setting | web | workers | beat | init job | exporter |
|---|---|---|---|---|---|
"""


def effect_of_setting(path: str, field: FieldInfo) -> Mapping[readers.Process, Reach] | None:
    """What a change of the setting at `path` does to each kind of process; None where no other value of it is known."""
    change = change_of(path, field)
    before = plan("any", beside(path))
    if change is not None:
        return effect_of(before, plan("any", merge(beside(path), change)))
    return effect_of_field(path) if field_of(before, path) else None


def document() -> str:
    """The whole page; ValueError with the settings of which no other value is known (add one to `EXAMPLES`)."""
    lines: list[str] = []
    unknown: list[str] = []
    for path, field in settings_of_all():
        if text := elsewhere(path):
            if path in ELSEWHERE or path.split(".")[0] not in {line.split("`")[1].split(".")[0] for line in lines}:
                lines.append(f"| `{path if path in ELSEWHERE else path.split('.')[0] + '.*'}` | {text} | | | | |")
            continue
        effect = effect_of_setting(path, field)
        if effect is None:
            unknown.append(path)
            continue
        lines.append(f"| `{path}` | {' | '.join(effect.values())} |")
    if unknown:
        raise ValueError(f"no other value is known of {', '.join(unknown)}: give one in EXAMPLES of {__name__}")
    return _HEADER + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
