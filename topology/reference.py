"""`python -m topology.reference` prints the configuration reference, docs/configuration.md, from the settings themselves."""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from topology import presets
from topology.settings import Settings
from topology.settings.section import fields_by_key, section_in

_HEADER = """# Configuration

Written from `topology/settings/` and `topology/presets.py` by `make docs`; a test fails when it is not up to date.

A stack file is `stacks/Pulumi.<stack>.yaml`. Each key below is written as `superset-async:<section>`, and the rest of its path
as YAML under it:

```yaml
config:
  superset-async:topology: enterprise
  superset-async:web:
    min_replicas: 4
    resources:
      memory_limit: 3Gi
```

Only `topology` must be given: it names the preset whose values stand in the table, and the file changes any of them. An unknown
key, a wrong value and a broken rule are all reported at once, before anything is created or started. Memory is written as
`512Mi` or `2Gi`, CPU as `500m` or `1.5`, times in seconds.

Five keys are secrets and never stand in the file in clear; with the engine, set them by `pulumi config set --secret --path`:

| key | is |
|---|---|
| `superset-async:database_uris.<name>` | SQLAlchemy URI, password included, of the analytic database `<name>` that has no `uri` |
| `superset-async:postgres_password` | password of `postgres.user` on a server of `kind: existing` |
| `superset-async:redis_passwords.broker`, `.cache` | password on the `existing` server without `password_secret` |
| `superset-async:superset_env.<NAME>` | value of the variable `<NAME>` of `superset.env` that names no Secret |
| `superset-async:sign_on_secret` | of `superset.sign_on`: the client's secret, or the directory account's password |

On the local platform the URI of an analytic database comes from the environment instead: `DATABASE_URI_<NAME>`, upper case, `-`
as `_`.

## A Redis or Valkey server that exists

```yaml
config:
  superset-async:topology: enterprise
  superset-async:redis:
    broker:
      existing: {host: broker.example.com, port: 6380, username: superset, tls: true}
      replicas: 0
      sentinel: false
    cache:
      existing: {host: cache.example.com, tls: true, ca_secret: cache-authority, password_secret: cache-login}
      replicas: 0
      sentinel: false
  superset-async:redis_passwords:
    broker: {secure: …}   # pulumi config set --secret --path superset-async:redis_passwords.broker
```

Nothing is made for such a server; web, workers, beat, exporter and KEDA use it as one ACL user. With `redis.cache: null` the
caches share the broker's server and its user. Secrets that are named here are looked for in the stack's namespace; after a
change in one, restart the pods (`kubectl rollout restart deployment`). Before anything is migrated the init job looks at the
server itself, and stops with every problem that it finds:

- `maxmemory-policy` of the broker is `noeviction` or `volatile-*`, and `volatile-*` where the caches share it;
- the broker has an append-only file or snapshots (a managed service may not say: then that is a warning);
- every numbered database that the stack uses can be selected: the usual 16 are enough, a Redis Cluster has only one;
- the user may do what Celery and the caches do, tried on keys of their own names that are removed again.

A server in the same namespace needs a NetworkPolicy of its own that lets these pods in.

## Redis and PostgreSQL over TLS

With `redis.tls` and `postgres.tls` the servers that this project runs (replicas and Sentinels too) take TLS alone, and every
client verifies certificate and name. The certificate is in a Secret of the stack's namespace with `tls.crt`, `tls.key` and
`ca.crt`, made as `kind` says:

- `generated`: by the stack, an authority and a certificate for each server, whose keys are secrets of the stack's state. A
  `pulumi up` in the last of its five years renews it. CloudNativePG has an authority of its own, and renews what it makes.
- `cert-manager`: by an issuer of the cluster's that gives its authority, in a Certificate that the stack makes.
- `secret`: by you, in the Secret `secret`. The stack's outputs `redis_certificate_names` and `postgres_certificate_names` say
  which names it needs.

```yaml
  superset-async:redis: {tls: {kind: generated}}
  superset-async:postgres: {tls: {kind: cert-manager, issuer: internal-ca, issuer_kind: ClusterIssuer}}
```

Of an existing PostgreSQL server `postgres.ca_secret` names a Secret with its authority in `ca.crt`; without it clients take
whatever the server offers. RDS and ElastiCache have certificates of their own, which clients verify. What a renewal needs is
in [operating.md](operating.md#certificates).

## Keys

A `·` stands for the value of the column before it. `<name>` is a name of your own.
`superset-async explain KEY` says it of one stack.

| I want to … | keys of |
|---|---|
"""

#: The keys by subject: its heading, what a reader wants there, and the sections of a stack file.
SUBJECTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "The stack",
        "say where a stack runs, name its objects, choose images",
        ("topology", "platform", "environment", "namespace", "existing_namespace", "storage_class", "labels", "images"),
    ),
    (
        "Your own Superset",
        "set something of Superset's, turn on a feature, use a module, let users log in",
        ("superset", "admin_username"),
    ),
    ("Databases", "add an analytic database, limit its statements", ("databases", "statement_timeout", "row_limit")),
    ("Tenants", "give a team its own queue, workers, limits and budget", ("tenants", "urgent", "rates")),
    ("Workers and queues", "have more workers, scale them, change Celery", ("workers", "pools", "celery", "beat_resources")),
    ("The web tier", "serve more users, be reached from outside", ("web",)),
    ("Caches and results", "keep charts and results longer, or in S3", ("caching",)),
    ("Redis", "use a server that exists, change memory and persistence", ("redis",)),
    ("PostgreSQL", "use a server that exists, back up, have more connections", ("postgres",)),
    ("Network", "open or close what pods reach", ("network",)),
    ("Watching", "have metrics, alerts, rules and traces", ("metrics", "tracing")),
    ("Safety", "change what holds in faults and rollouts", ("resilience", "maintenance", "policy_exceptions")),
    ("This machine", "choose ports of the local platform", ("local",)),
    ("AWS", "run on AWS with its own data stores", ("aws",)),
)


def document() -> str:
    """The whole page; ValueError for a section of a stack file that no subject, or more than one, has."""
    leaves = list(setting_leaves(Settings))
    listed = [section for _, _, sections in SUBJECTS for section in sections]
    if sorted(listed) != sorted({path[0] for path, _ in leaves}):
        raise ValueError(f"sections without one subject: {sorted({path[0] for path, _ in leaves} ^ set(listed))}")
    lines = [f"| {wanted} | [{title}](#{title.lower().replace(' ', '-')}) |" for title, wanted, _ in SUBJECTS]
    values = [presets.settings_of(typing.cast(Any, name)) for name in presets.NAMES]
    for title, _, sections in SUBJECTS:
        lines += ["", f"### {title}", "", "| key | is | " + " | ".join(presets.NAMES) + " |"]
        lines.append("|---" * (2 + len(presets.NAMES)) + "|")
        lines += [_row(path, field, values) for path, field in leaves if path[0] in sections]
    return _HEADER + "\n".join(lines) + "\n"


def _row(path: tuple[str, ...], field: FieldInfo, values: list[dict[str, Any]]) -> str:
    cells = [_show(_value(preset, path)) for preset in values]
    shown = [cell if index == 0 or cell != cells[index - 1] else "·" for index, cell in enumerate(cells)]
    return f"| `{'.'.join(path)}` | {describe(field)} | {' | '.join(shown)} |"


def setting_leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting of a section, and of those in it: its path (`<name>` where a map has names) and its field."""
    for key, (_, field) in fields_by_key(model).items():
        section, is_map = section_in(field.annotation)
        here = (*path, key)
        if section is None:
            yield here, field
            continue
        if field.description and not is_map and type(None) in typing.get_args(field.annotation):
            yield here, field
        yield from setting_leaves(section, (*here, "<name>") if is_map else here)


def _value(preset: dict[str, Any], path: tuple[str, ...]) -> object:
    node: Any = preset
    for key in path:
        if not isinstance(node, dict) or key not in node:
            return _ABSENT
        node = typing.cast(dict[str, Any], node)[key]
    return _ABSENT if isinstance(node, dict) and node else typing.cast(object, node)


_ABSENT = object()


def _show(value: object) -> str:
    if value is _ABSENT:
        return "–"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, typing.cast("list[object]", value)))
    return "none" if value == {} else str(value)


def describe(field: FieldInfo) -> str:
    """What a key is, with the choices that its description does not name."""
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is Literal else ()
    text = field.description or "as in `workers`, for this pool"
    missing = [str(choice) for choice in choices if str(choice) not in text]
    return f"{text} ({', '.join(missing)})" if missing else text


if __name__ == "__main__":
    sys.stdout.write(document())
