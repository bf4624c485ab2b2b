"""What Superset and Celery are configured with in a stack: the settings that their pods will really read.

Two forms are understood, in a ConfigMap or a Secret that a container mounts: this project's topology, which is rendered by the
very code that runs in the pod, and a `superset_config.py`, of which the plain assignments are evaluated (it is never run).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any, cast

from pydantic import ValidationError

from policies.graph import UNKNOWN, Graph, Resource, at
from policies.servers import RedisServer, host_of, reaches, redis_servers
from policies.workloads import Container, containers
from runtime import config as superset
from runtime.superset.statement_timeout import StatementTimeout
from topology.commands import ROLE_ENV, SIGN_ON_SECRET_ENV
from topology.model import Topology

#: Superset's settings of caches.
CACHES = ("CACHE_CONFIG", "DATA_CACHE_CONFIG", "FILTER_STATE_CACHE_CONFIG", "EXPLORE_FORM_DATA_CACHE_CONFIG")
#: Its tasks that run queries, whose decorators have limits of their own: 21 600 and 21 660 s for SQL Lab.
#: Stands for every secret: a configuration is looked at, and no service is asked.
SHOWN = "0123456789abcdef" * 2
QUERY_TASKS = ("sql_lab.get_sql_results", "load_chart_data_into_cache", "load_explore_json_into_cache")
#: Celery's names before version 4, which it still takes.
_OLD_NAMES = {
    "BROKER_URL": "broker_url",
    "BROKER_TRANSPORT_OPTIONS": "broker_transport_options",
    "CELERY_RESULT_BACKEND": "result_backend",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERYD_PREFETCH_MULTIPLIER": "worker_prefetch_multiplier",
    "CELERYD_MAX_TASKS_PER_CHILD": "worker_max_tasks_per_child",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERY_ACKS_LATE": "task_acks_late",
    "CELERY_ANNOTATIONS": "task_annotations",
    "CELERY_QUEUES": "task_queues",
    "CELERY_DEFAULT_QUEUE": "task_default_queue",
    "CELERYBEAT_SCHEDULE": "beat_schedule",
}


@dataclass(frozen=True, eq=False)
class Configuration:
    """One source of Superset's settings, and the containers that read it."""

    resource: Resource
    text: str
    #: The containers that mount it.
    readers: tuple[Container, ...]
    #: The topology in it, where it is one.
    topology: Topology | None
    #: Why it cannot be read, where that is so.
    error: str | None
    graph: Graph

    def settings(self, role: str = "worker") -> Mapping[str, Any]:
        """Superset's upper-case settings for a process of `role`."""
        if self.topology is not None:
            return _rendered(self.text, role)
        variables = {key: value for each in self.readers for key, value in each.environment(self.graph).items()}
        return read_python(self.text, variables)

    @cached_property
    def celery(self) -> dict[str, Any]:
        """CELERY_CONFIG, with Celery's own lower-case names; empty where Celery has only Superset's defaults."""
        found = at(dict(self.settings()), "CELERY_CONFIG")
        return {_OLD_NAMES.get(key, key): value for key, value in cast("dict[str, Any]", found or {}).items()}

    @property
    def broker_url(self) -> str:
        """URL of the broker."""
        return at(self.celery, "broker_url", default="")

    @property
    def declared_queues(self) -> set[str]:
        """Queues that a worker without --queues listens to: those declared, or else the default one."""
        declared: Any = self.celery.get("task_queues")
        return {at(each, "name", default=each) for each in at(declared, default=[])} or {self.default_queue}

    @property
    def queues(self) -> set[str]:
        """Queues to which tasks may be sent: those declared, the default one, and those that a route names."""
        names: list[Any] = []
        routes: Any = self.celery.get("task_routes") or []
        for section in cast("list[Any]", [routes] if isinstance(routes, dict) else routes):
            if isinstance(section, dict):
                names += [at(route, "queue") for route in cast("dict[str, Any]", section).values()]
        return {self.default_queue, *self.declared_queues, *(name for name in names if isinstance(name, str))}

    @property
    def default_queue(self) -> str:
        """Where a task goes that no route claims."""
        return self.celery.get("task_default_queue", "celery")

    def limits(self, task: str) -> tuple[int | None, int | None]:
        """Soft and hard limit of a task, in seconds; None where nothing sets one."""
        annotations: Any = self.celery.get("task_annotations")
        own = at(annotations, task) or at(annotations, "*")
        return at(own, "soft_time_limit"), at(own, "time_limit")

    def fences(self, task: str) -> bool:
        """Whether something is put around a task, which can refuse to execute it."""
        annotations: Any = self.celery.get("task_annotations")
        return any(at(annotations, name, around) for name in (task, "*") for around in ("@__call__", "@run"))

    @property
    def soft_limit(self) -> int | None:
        """The longest soft limit of a task that runs queries; None where one has none that Superset obeys."""
        limits = [self.limits(task)[0] for task in QUERY_TASKS]
        return max(cast("list[int]", limits)) if all(isinstance(each, int) for each in limits) else None

    @property
    def statement_timeouts(self) -> dict[str, int]:
        """Seconds after which an analytic database itself ends a statement, by database (`*`: any other)."""
        mutator = self.settings().get("DB_CONNECTION_MUTATOR")
        found = {"*": mutator.default_seconds} if isinstance(mutator, StatementTimeout) else {}
        own = self.topology.databases if self.topology else ()
        return {**found, **{each.name: each.statement_timeout_seconds for each in own}}

    @property
    def broker(self) -> list[RedisServer]:
        """The servers of the graph that carry the broker: one, or none where it is elsewhere."""
        options: Any = self.celery.get("broker_transport_options")
        return self._servers(at(options, "master_name") or host_of(self.broker_url))

    @property
    def cache_servers(self) -> list[RedisServer]:
        """The servers of the graph that hold caches or query results."""
        settings = self.settings()
        hosts = [_cache_host(settings.get(name)) for name in CACHES]
        hosts.append(_cache_host(settings.get("RESULTS_BACKEND")))
        return [server for host in {each for each in hosts if each} for server in self._servers(host)]

    def _servers(self, host: str | None) -> list[RedisServer]:
        return [each for each in self.graph.derive(redis_servers) if reaches(host, each.hosts)]


def configurations(graph: Graph) -> list[Configuration]:
    """Every source of settings that some container mounts."""
    readers: dict[tuple[str, str], tuple[Resource, str, list[Container]]] = {}
    for container in graph.derive(containers):
        with graph.unless_unknown():
            for path, resource, text in container.files(graph):
                name = PurePosixPath(path).name
                if name in ("topology.json", "superset_config.py"):
                    readers.setdefault((resource.urn, name), (resource, at(text), []))[2].append(container)
    return [_configuration(*each, graph) for each in readers.values()]


def _configuration(resource: Resource, text: str, readers: list[Container], graph: Graph) -> Configuration:
    topology, error = None, None
    if text.lstrip().startswith("{"):
        try:
            topology = Topology.model_validate_json(text)
        except ValidationError as problem:
            first = problem.errors()[0]
            error = f"{'.'.join(map(str, first['loc'])) or 'topology'}: {first['msg']}"
    else:
        try:
            ast.parse(text)
        except SyntaxError as problem:
            error = f"line {problem.lineno}: {problem.msg}"
    return Configuration(resource, text, tuple(readers), topology, error, graph)


def readable(graph: Graph) -> list[Configuration]:
    """The sources of settings that can be read."""
    return [each for each in graph.derive(configurations) if each.error is None]


def is_production(graph: Graph) -> bool:
    """Whether a topology in the graph says `environment: prod`; of a stack without one nobody knows."""
    return any(found.topology and found.topology.environment == "prod" for found in graph.derive(readable))


def role_of(container: Container) -> str:
    """Which kind of process a container of this project is."""
    for variable in at(container.spec, "env", default=[]):
        if at(variable, "name") == ROLE_ENV:
            return at(variable, "value", default="worker")
    return "worker"


@lru_cache(maxsize=64)
def _rendered(text: str, role: str) -> Mapping[str, Any]:
    topology = Topology.model_validate_json(text)
    names = (
        topology.postgres.password_env,
        *(each.password_env for each in topology.process_redis_users().values()),
        *topology.message_key_envs().values(),
    )
    own = (*topology.superset.env, SIGN_ON_SECRET_ENV)
    secrets = dict.fromkeys((*names, *own, "SUPERSET_SECRET_KEY", "ASYNC_QUERIES_JWT_SECRET"), SHOWN)
    return superset.render(topology, {**secrets, ROLE_ENV: role})


def _cache_host(cache: Any) -> str | None:
    """Host (or Sentinel's service) of a cache or results store, in any of the forms that Superset takes."""
    database = getattr(cache, "database", None)
    if database is not None:
        return database.service or database.host
    host = at(cache, "CACHE_REDIS_SENTINEL_MASTER") or at(cache, "CACHE_REDIS_HOST") or at(cache, "host")
    return host if isinstance(host, str) else host_of(at(cache, "CACHE_REDIS_URL"))


def read_python(text: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The upper-case names that a Python file assigns, as far as literals, names, f-strings and environment decide them.

    A class is a mapping of what it assigns; a call is a mapping of its keyword arguments; all else is UNKNOWN.
    """
    reader = _Reader(variables)
    reader.run(ast.parse(text).body)
    return {name: value for name, value in reader.names.items() if name.isupper()}


class _Reader:
    """Evaluates the plain part of a configuration file."""

    def __init__(self, variables: Mapping[str, Any], names: dict[str, Any] | None = None) -> None:
        self.variables = variables
        self.names = dict(names or {})

    def run(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.ClassDef):
                inner = _Reader(self.variables, self.names)
                inner.run(statement.body)
                self.names[statement.name] = {
                    key: value for key, value in inner.names.items() if key not in self.names or self.names[key] is not value
                }
            elif isinstance(statement, ast.FunctionDef):
                source = ast.unparse(statement)
                self.names[statement.name] = _GETENV if "getenv" in source or "environ" in source else UNKNOWN
            else:
                for name, value in _assigned(statement):
                    self.names[name] = self.value(value)

    def value(self, node: ast.expr) -> Any:  # noqa: PLR0911 one a kind of expression
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self.names.get(node.id, UNKNOWN)
            case ast.Dict():
                pairs = [
                    (self.value(key), self.value(value)) for key, value in zip(node.keys, node.values, strict=True) if key
                ]
                return {key: value for key, value in pairs if isinstance(key, str)}
            case ast.List() | ast.Tuple() | ast.Set():
                return [self.value(each) for each in node.elts]
            case ast.JoinedStr():
                parts = [self.value(each.value if isinstance(each, ast.FormattedValue) else each) for each in node.values]
                return UNKNOWN if any(part is UNKNOWN for part in parts) else "".join(map(str, parts))
            case ast.BinOp():
                return self._operation(node)
            case ast.Subscript() if ast.unparse(node.value) == "os.environ":
                return self.variables.get(self.value(node.slice), UNKNOWN)
            case ast.Call():
                return self._call(node)
            case _:
                return UNKNOWN

    def _operation(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if left is UNKNOWN or right is UNKNOWN:
            return UNKNOWN
        try:
            if isinstance(node.op, ast.Add):
                return left + right
            return left * right if isinstance(node.op, ast.Mult) else UNKNOWN
        except TypeError:
            return UNKNOWN

    def _call(self, node: ast.Call) -> Any:
        function = ast.unparse(node.func)
        arguments = [self.value(each) for each in node.args]
        if function in ("os.getenv", "os.environ.get") or self.names.get(function) is _GETENV:
            default = arguments[1] if len(arguments) > 1 else UNKNOWN
            return self.variables.get(arguments[0], default) if arguments[0] is not UNKNOWN else UNKNOWN
        if function in ("int", "str", "float") and len(arguments) == 1 and arguments[0] is not UNKNOWN:
            try:
                return {"int": int, "str": str, "float": float}[function](arguments[0])
            except ValueError:
                return UNKNOWN
        keywords = {each.arg: self.value(each.value) for each in node.keywords if each.arg}
        if function.rpartition(".")[2] == "timedelta":
            units = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
            return sum(units.get(key, 0) * value for key, value in keywords.items())
        if function.rpartition(".")[2] == "Queue" and arguments:
            return {"name": arguments[0], **keywords}
        return keywords or UNKNOWN


#: Stands for a function of the file's own that reads the environment.
_GETENV = object()


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, statement.value
