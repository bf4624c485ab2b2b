"""What a change of a stack that lives does to what it holds: the plan of its last `pulumi up` against the one that comes.

Pure: both plans are a topology's JSON, as the ConfigMap of a stack has it. The former one may be of another version of this
project, so that nothing is asked of it but that it is JSON: what it does not say has not changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from topology.model import Topology
from topology.problems import Problem
from topology.quantities import format_memory

#: Names, with commas between them, the refused changes whose steps have been taken: the next `pulumi up` makes them.
ACCEPT_ENV = "SUPERSET_ASYNC_ACCEPT_CHANGES"
#: Of what is protected, and can leave the program.
NAMESPACE_URN = (
    "urn:pulumi:{stack}::superset-async::superset-async:namespace:Namespace$kubernetes:core/v1:Namespace::namespace"
)
BACKUP_URN = (
    "urn:pulumi:{stack}::superset-async::superset-async:backup:MetadataBackup"
    "$kubernetes:core/v1:PersistentVolumeClaim::postgres-backup"
)
ROLE_URN = (
    "urn:pulumi:{stack}::superset-async::superset-async:secrets:Secrets"
    "$random:index/randomPassword:RandomPassword::superset-postgres"
)
Plan = Mapping[str, Any]

#: A step: nothing of Superset runs. Of a Deployment without pods no scaler decides anything, so that a last step brings one back.
_STOP = "kubectl --namespace {namespace} scale deployment --selector app.kubernetes.io/name=superset --replicas=0"
_START = "kubectl --namespace {namespace} scale deployment --selector app.kubernetes.io/name=superset --replicas=1"


def refused(before: Plan, after: Topology) -> tuple[Problem, ...]:
    """Every change that would lose data or accepted queries, or that no server takes, each with the steps that make it safe."""
    now = after.model_dump(mode="json")
    if _at(before, "namespace") != now["namespace"]:
        # Nothing else is a change then: it is all made anew, elsewhere.
        return tuple(_namespace(before, now))
    return tuple(
        problem
        for check in (
            _ownership,
            _kept,
            _storage_class,
            _redis_servers,
            _broker,
            _queues,
            _postgres_server,
            _postgres_names,
            _postgres_version,
        )
        for problem in check(before, now)
    )


def told(before: Plan, after: Topology) -> tuple[str, ...]:
    """What the change stops for a while, hands over, or leaves behind, a sentence each: to be known, and no reason to refuse."""
    return tuple(
        sentence for tell in (_server_restarts, _caches, _scalers, _volumes_left) for sentence in tell(before, after)
    )


def problems(before: Plan, after: Topology, accepted: Iterable[str]) -> tuple[Problem, ...]:
    """`refused` without those that are `accepted`; each says how it is. A word that accepts nothing is a problem too."""
    found = refused(before, after)
    keys = {problem.key for problem in found}
    words = {word.strip() for word in accepted} - {""}
    stale = (
        Problem(ACCEPT_ENV, word, "accepts a change that this stack does not make", "Unset it")
        for word in sorted(words - keys)
    )
    # What no steps make possible, nothing accepts.
    open_ = (each for each in found if each.key not in words or ACCEPT_ENV not in each.fix)
    return (*open_, *stale)


def _change(key: str, old: object, new: object, rule: str, *steps: str, last: str | None = None) -> Problem:
    """A refused change with its steps: the up that makes it is one of them, and `last` comes after it."""
    up = f"{ACCEPT_ENV}={key} pulumi up (once)"
    numbered = "; ".join(f"({number}) {step}" for number, step in enumerate((*steps, up, *([last] if last else [])), 1))
    return Problem(key, f"{old} → {new}", rule, numbered)


def _namespace(before: Plan, now: Plan) -> Iterator[Problem]:
    old, new = _at(before, "namespace"), now["namespace"]
    yield _change(
        "namespace",
        old,
        new,
        "makes everything anew there, without the metadata database, the broker and the dumps of the old one",
        "to have a second stack instead, give it a file of its own in stacks/, with this namespace",
        "to move, dump and restore the metadata database into that stack (docs/living.md)",
        f"or leave the old one behind, with its data: {_unprotect(now['stack'], NAMESPACE_URN)}",
    )


def _ownership(before: Plan, now: Plan) -> Iterator[Problem]:
    old, new = _at(before, "existing_namespace"), now["existing_namespace"]
    if old is False and new:
        yield _change(
            "existing_namespace",
            "false",
            "true",
            "gives away the namespace that this stack made: the engine refuses to forget what is protected",
            _unprotect(now["stack"], NAMESPACE_URN),
        )
    elif old and not new:
        yield _change(
            "existing_namespace",
            "true",
            "false",
            "makes this stack the owner of a namespace that is there, with whatever else is in it",
            "set it to true again: a namespace is used as well as it is owned; one of the stack's own has another name",
        )


def _kept(before: Plan, now: Plan) -> Iterator[Problem]:
    """What the engine would refuse to delete, and names only by its URN."""
    if _at(before, "postgres", "backup") and now["postgres"]["backup"] is None:
        yield _change(
            "postgres.backup",
            "dumps",
            "null",
            "leaves the dumps behind: their claim, postgres-backup, is protected, and stays",
            _unprotect(now["stack"], BACKUP_URN),
        )


def _unprotect(stack: str, urn: str) -> str:
    return f"pulumi state unprotect --yes --stack {stack} '{urn.format(stack=stack)}'"


def _storage_class(before: Plan, now: Plan) -> Iterator[Problem]:
    old, new = _at(before, "storage_class"), now["storage_class"]
    if "storage_class" in before and old != new:
        yield _change(
            "storage_class",
            old or "the cluster's default",
            new or "the cluster's default",
            "a claim keeps the class that it was made with, and the servers' StatefulSets would be deleted and made again",
            "dump the metadata database",
            f"{_STOP.format(namespace=now['namespace'])}, when no query runs",
            f"kubectl --namespace {now['namespace']} delete statefulset,pvc --all",
            last=f"restore the dump (docs/living.md); {_START.format(namespace=now['namespace'])}",
        )


def _redis_servers(before: Plan, now: Plan) -> Iterator[Problem]:
    if now["platform"] != "kubernetes":
        return
    for old, new in _kept_servers(before, now):
        key = f"redis.{'broker' if new['carries_broker'] else 'cache'}"
        name, namespace = new["name"], now["namespace"]
        servers = [f"data-{name}-{number}" for number in range(old.get("replicas", 0) + 1)]
        if old["persistence"] != "none" and new["persistence"] != "none":
            yield from _volume(f"{key}.volume_size", old, new, servers, namespace)
        elif old["persistence"] != new["persistence"]:
            yield _change(
                f"{key}.persistence",
                old["persistence"],
                new["persistence"],
                "the server's volume comes or goes with it, which makes the StatefulSet anew, without its data",
                *_drained(namespace, broker=new["carries_broker"]),
                last=_open_again(namespace, broker=new["carries_broker"]),
            )
        for field in ("sentinel", "replicas"):
            # A further replica joins or leaves; from one server to several, or to Sentinel, the primary itself restarts.
            if old[field] != new[field] and (field == "sentinel" or not old[field] or not new[field]):
                yield _change(
                    f"{key}.{field}",
                    old[field],
                    new[field],
                    "clients find the primary by another name, and it restarts while they still ask at the old one",
                    *_drained(namespace, broker=new["carries_broker"]),
                    last=_open_again(namespace, broker=new["carries_broker"]),
                )


def _broker(before: Plan, now: Plan) -> Iterator[Problem]:
    """The broker's address: messages do not move with it."""
    old, new = _broker_of(before), _broker_of(now)
    if old is None or new is None or old == new:
        return
    namespace = now["namespace"]
    yield _change(
        "redis.broker",
        _address(old),
        _address(new),
        "is another broker: queries that the old one has accepted stay in it, and nothing reads them",
        *_drained(namespace, broker=True),
        last=_open_again(namespace, broker=True),
    )


def _address(broker: tuple[Any, ...]) -> str:
    name, host, port, number, _ = broker
    return f"{name} ({host}, port {port}, database {number})"


def _drained(namespace: str, *, broker: bool) -> tuple[str, ...]:
    """The steps that leave nothing in a server that anybody waits for; caches are nobody's loss."""
    if not broker:
        return ()
    return (
        f"no more queries come: kubectl --namespace {namespace} scale deployment/web --replicas=0",
        "superset-async queue, until nothing waits and nothing runs",
    )


def _open_again(namespace: str, *, broker: bool) -> str | None:
    return (
        f"kubectl --namespace {namespace} scale deployment/web --replicas=1 (a scaler adds the others)" if broker else None
    )


def _queues(before: Plan, now: Plan) -> Iterator[Problem]:
    """Queues that workers listened to, and will not: what waits in them would wait for ever."""
    for queue in sorted(_listened(before) - _listened(now)):
        yield _change(
            f"celery.queues.{queue}",
            "listened to",
            "by nobody",
            "queries that wait in this queue would have no worker (a renamed tenant has another queue)",
            "keep the old tenant or queue beside the new one for one up, so that new queries take the new queue",
            f"superset-async queue, until nothing waits in {queue}",
        )


def _postgres_server(before: Plan, now: Plan) -> Iterator[Problem]:
    old, new, namespace = _section(before, "postgres"), now["postgres"], now["namespace"]
    where = ("kind", "host", "port") if "existing" in (old.get("kind"), new["kind"]) else ("kind",)
    moved = [field for field in where if field in old and old[field] != new[field]]
    if moved:
        generated = old.get("kind") not in ("existing", "rds") and new["kind"] in ("existing", "rds")
        yield _change(
            f"postgres.{moved[0]}",
            old[moved[0]],
            new[moved[0]],
            "is another server, which has no dashboard, user or saved query of this stack",
            _STOP.format(namespace=namespace),
            "dump the old database (pg_dump --format=custom) and restore it on the new server as the role of postgres.user",
            *([_unprotect(now["stack"], ROLE_URN)] if generated else []),
            last=_START.format(namespace=namespace),
        )
        return
    if new["kind"] == "existing":
        return
    if "port" in old and old["port"] != new["port"]:
        yield _change(
            "postgres.port",
            old["port"],
            new["port"],
            "the server restarts on the new port while everything still asks at the old one",
            f"set postgres.port: {old['port']} again: in the cluster the port is nobody else's",
            f"or, with the downtime: {_STOP.format(namespace=namespace)}",
            last=_START.format(namespace=namespace),
        )
    if new["kind"] == "cloudnativepg" and new["volume_bytes"] < old.get("volume_bytes", 0):
        # The operator expands them by itself.
        yield _smaller("postgres.volume_size", old["volume_bytes"], new["volume_bytes"], ["postgres-1"])
    if new["kind"] == "statefulset":
        yield from _volume("postgres.volume_size", old, new, ["data-postgres-0"], namespace)
    backup, wanted = old.get("backup"), new["backup"]
    if backup and wanted:
        yield from _volume("postgres.backup.volume_size", backup, wanted, ["postgres-backup"], namespace)


def _postgres_names(before: Plan, now: Plan) -> Iterator[Problem]:
    old, new, namespace = _section(before, "postgres"), now["postgres"], now["namespace"]
    statement = {"user": "ALTER ROLE {old} RENAME TO {new}", "database": "ALTER DATABASE {old} RENAME TO {new}"}
    lost = {
        "user": "the new role owns nothing in the database: Superset cannot read its own tables",
        "database": "the new database is empty: dashboards, users and saved queries stay in the old one",
    }
    for field in ("user", "database"):
        if field in old and old[field] != new[field] and old.get("kind") == new["kind"]:
            sql = statement[field].format(old=old[field], new=new[field])
            yield _change(
                f"postgres.{field}",
                old[field],
                new[field],
                lost[field],
                _STOP.format(namespace=namespace),
                f'kubectl --namespace {namespace} exec postgres-0 -- psql -U postgres -c "{sql}"'
                if new["kind"] == "statefulset"
                else f"run as the server's administrator: {sql}",
                last=_START.format(namespace=namespace),
            )


def _postgres_version(before: Plan, now: Plan) -> Iterator[Problem]:
    old, new = (_at(each, "images", "postgres") for each in (before, now))
    versions = [_major(image) for image in (old, new)]
    ours = {_at(each, "postgres", "kind") for each in (before, now)} <= {"statefulset"}
    if ours and old != new and old is not None and (None in versions or versions[0] != versions[1]):
        namespace = now["namespace"]
        kubectl = f"kubectl --namespace {namespace}"
        yield _change(
            "images.postgres",
            old,
            new,
            "a PostgreSQL server does not start on the files of another major version",
            _STOP.format(namespace=namespace),
            f"{kubectl} exec postgres-0 -- pg_dump -U postgres --format=custom {now['postgres']['database']} > metadata.dump",
            f"{kubectl} scale statefulset/postgres --replicas=0, and {kubectl} delete pvc data-postgres-0",
            last=f"restore the dump (docs/living.md); {_START.format(namespace=namespace)}",
        )


def _major(image: str | None) -> int | None:
    """The major version that an image's tag begins with; None where it says none."""
    found = re.search(r":v?(\d+)[^/]*$", image or "")
    return int(found[1]) if found else None


def _smaller(key: str, before: int, after: int, claims: list[str]) -> Problem:
    sizes = format_memory(before), format_memory(after)
    return Problem(
        key,
        " → ".join(sizes),
        f"a volume cannot be made smaller ({', '.join(claims)})",
        f"Set it to {sizes[0]} again; a smaller one needs another stack, into which a dump is restored (docs/living.md)",
    )


def _volume(key: str, old: Plan, new: Plan, claims: list[str], namespace: str) -> Iterator[Problem]:
    before, after = old.get("volume_bytes"), new["volume_bytes"]
    if before is None or before == after:
        return
    sizes = format_memory(before), format_memory(after)
    if after < before:
        yield _smaller(key, before, after, claims)
        return
    kubectl = f"kubectl --namespace {namespace}"
    patch = f"""'{{"spec": {{"resources": {{"requests": {{"storage": "{sizes[1]}"}}}}}}}}'"""
    yield _change(
        key,
        *sizes,
        "claims that exist keep their size, and the set would be deleted and made again with all its pods at once",
        "see that the class expands volumes: kubectl get storageclass (ALLOWVOLUMEEXPANSION)",
        *(f"{kubectl} patch pvc {claim} --patch {patch}" for claim in claims),
        *(
            f"{kubectl} delete statefulset/{name} --cascade=orphan (its pods go on, and the up's new set takes them)"
            for name in sorted({claim[5:].rpartition("-")[0] for claim in claims if claim.startswith("data-")})
        ),
    )


# What is told


def _server_restarts(before: Plan, after: Topology) -> Iterator[str]:
    old = _section(before, "postgres")
    if after.postgres.kind != "statefulset" or old.get("kind") != "statefulset":
        return
    number = old.get("max_connections")
    if number is not None and number != after.postgres.max_connections:
        yield (
            f"postgres.max_connections: {number} → {after.postgres.max_connections}, which workers and web can open together: "
            "the one metadata server restarts; requests wait for it, running queries go on"
        )
    elif old.get("resources") != after.postgres.model_dump(mode="json")["resources"]:
        yield "postgres.resources: the one metadata server restarts; requests wait for it, running queries go on"


def _caches(before: Plan, after: Topology) -> Iterator[str]:
    gone = _servers(before).keys() - {each.name for each in after.redis if not each.existing}
    broker = (_broker_of(before) or ("",))[0]
    yield from (f"redis server {name} goes, with what it caches" for name in sorted(gone) if name != broker)


def _scalers(before: Plan, after: Topology) -> Iterator[str]:
    old = {pool["name"]: bool(pool.get("scaling")) for pool in _at(before, "pools") or ()}
    for pool in after.pools:
        if pool.name in old and old[pool.name] != bool(pool.scaling):
            yield (
                f"pools.{pool.name}: a scaler decides the workers from now on; those that run stay until it does"
                if pool.scaling
                else f"pools.{pool.name}: no scaler decides the workers any more; {pool.min_workers} will run"
            )


def _volumes_left(before: Plan, after: Topology) -> Iterator[str]:
    gone = _servers(before).keys() - {each.name for each in after.redis if not each.existing}
    for name in sorted(gone):
        yield (
            f"the claims of redis server {name} stay: kubectl --namespace {after.namespace} get pvc "
            f"--selector app.kubernetes.io/component={name}"
        )


# Reading a plan


def _at(plan: Plan, *path: str) -> Any:
    found: Any = plan
    for key in path:
        found = cast("dict[str, Any]", found).get(key) if isinstance(found, dict) else None
    return found


def _section(plan: Plan, key: str) -> dict[str, Any]:
    found = _at(plan, key)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _servers(plan: Plan) -> dict[str, dict[str, Any]]:
    """The Redis servers that the stack runs, by name."""
    return {each["name"]: each for each in _at(plan, "redis") or () if not each.get("existing")}


def _kept_servers(before: Plan, now: Plan) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    old, new = _servers(before), _servers(now)
    return ((old[name], new[name]) for name in sorted(old.keys() & new.keys()))


def _broker_of(plan: Plan) -> tuple[Any, ...] | None:
    """Where messages are: server, host, port, number and prefix of the broker's database."""
    databases = {each["purpose"]: each for each in _at(plan, "redis_databases") or ()}
    found = databases.get("broker")
    for instance in _at(plan, "redis") or ():
        if found and instance["name"] == found["instance"]:
            # Of a server that is made with the stack, the host may be known only afterwards.
            host = instance["host"] if instance.get("existing") else "of this stack"
            return (found["instance"], host, instance["port"], found["number"], found["prefix"])
    return None


def _listened(plan: Plan) -> set[str]:
    return {queue for pool in _at(plan, "pools") or () for queue in pool["queues"]}
