"""The graph that rules look at: every resource that a stack registers, in one neutral form, wherever it comes from.

A resource's inputs are plain data with the providers' own names (camelCase). Whole numbers are `int` (the engine sends
floats), secrets are plain values, and what is not known yet, in a preview, is `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from infra.recording import Recording

T = TypeVar("T")
#: How the engine writes a value that it does not know yet, one text for each kind of value (part of its protocol).
_UNKNOWN_MARKS = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)


class UnknownValueError(Exception):
    """A rule asked for a value that is not known yet: it says nothing about that subject."""


class _Unknown:
    """Stands for a value that is not known yet. Whatever is asked of it raises UnknownValueError."""

    def _raise(self, *_: object) -> Any:
        raise UnknownValueError

    __bool__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __len__ = __iter__ = __contains__ = __getitem__ = _raise
    __add__ = __radd__ = __sub__ = __mul__ = __str__ = __int__ = __float__ = _raise
    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnknownValueError

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __deepcopy__(self, memo: object) -> _Unknown:
        return self


UNKNOWN: Any = _Unknown()


def normalise(value: object) -> Any:
    """`value`, as any source of resources has it, as plain data: see the module."""
    if isinstance(value, str):
        return UNKNOWN if value in _UNKNOWN_MARKS else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, object]", value).items()
        # A null is the same as nothing, also to the API server.
        return {str(key): normalise(inner) for key, inner in pairs if inner is not None}
    if isinstance(value, list | tuple):
        return [normalise(inner) for inner in cast("Iterable[object]", value)]
    return value


@dataclass(frozen=True)
class Resource:
    """One registered resource."""

    #: Type token, such as `kubernetes:apps/v1:Deployment`.
    type: str
    #: Logical name in the program.
    name: str
    urn: str = ""
    parent: str = ""
    inputs: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    dependencies: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        """The last part of the type: a Kubernetes kind, or a provider's own name such as `ReplicationGroup`."""
        return self.type.rpartition(":")[2]

    @property
    def title(self) -> str:
        """How reports and exceptions call it: `Deployment/web`, by the object's own name where it has one."""
        name = maybe(self.inputs, "metadata", "name") if self.is_kubernetes else None
        return f"{self.kind}/{name if isinstance(name, str) else self.name}"

    @property
    def object_name(self) -> str:
        """The name by which other objects of the cluster refer to it."""
        return self.get("metadata", "name", default=self.name)

    @property
    def is_kubernetes(self) -> bool:
        """Whether it is an object of a cluster (and not a Helm release, whose objects are not known here)."""
        return self.type.startswith("kubernetes:") and not self.type.startswith(("kubernetes:helm", "kubernetes:yaml"))

    @property
    def namespace(self) -> str:
        """Namespace of a Kubernetes object; `default` where it says none."""
        return self.get("metadata", "namespace", default="default")

    def get(self, *path: str | int, default: Any = None) -> Any:
        """The input at `path`, or `default`; see `at`."""
        return at(self.inputs, *path, default=default)


def at(value: Any, *path: str | int, default: Any = None) -> Any:
    """What is at `path` inside plain data, `default` where there is nothing; UnknownValueError where it is not known."""
    found = maybe(value, *path)
    if found is UNKNOWN:
        raise UnknownValueError
    return default if found is None else found


def maybe(value: Any, *path: str | int) -> Any:
    """As `at`, but UNKNOWN where it is not known, and None where there is nothing."""
    for step in path:
        if value is UNKNOWN:
            return UNKNOWN
        if isinstance(value, dict):
            value = cast("dict[Any, Any]", value).get(step)
        elif isinstance(value, list) and isinstance(step, int):
            items = cast("list[Any]", value)
            value = items[step] if -len(items) <= step < len(items) else None
        else:
            return None
    return value


class Graph:
    """All resources of a stack, and what is derived from them, each derivation computed once."""

    def __init__(self, resources: Iterable[Resource], outputs: Mapping[str, Any] | None = None) -> None:
        self.resources = tuple(resources)
        #: The stack's plain outputs, where they are known; those marked as secret are not among them.
        self.outputs = dict(outputs or {})
        self._derived: dict[Callable[[Graph], Any], Any] = {}
        self._complete = True

    def of_kind(self, *kinds: str) -> list[Resource]:
        """Kubernetes objects of these kinds, in the order of registration."""
        return [each for each in self.resources if each.is_kubernetes and each.kind in kinds]

    def of_type(self, *prefixes: str) -> list[Resource]:
        """Resources whose type begins with one of `prefixes`."""
        return [each for each in self.resources if each.type.startswith(prefixes)]

    def derive(self, function: Callable[[Graph], T]) -> T:
        """`function` of this graph, computed once."""
        if function not in self._derived:
            self._derived[function] = function(self)
        return self._derived[function]

    @contextmanager
    def unless_unknown(self) -> Generator[None]:
        """Leave out what is not known yet, and remember that something was."""
        try:
            yield
        except UnknownValueError:
            self._complete = False

    def require_complete(self) -> None:
        """Raise where something was left out: then the absence of anything proves nothing."""
        if not self._complete:
            raise UnknownValueError


def from_recording(recording: Recording) -> Graph:
    """The graph of a program that ran without the engine."""
    plain = {key: value for key, value in recording.outputs.items() if key not in recording.secret_outputs}
    stack = Resource(type="pulumi:pulumi:Stack", name="outputs")
    made = (
        Resource(
            type=each.type,
            name=each.name,
            urn=each.urn,
            parent=each.parent,
            inputs=normalise(each.inputs),
            dependencies=each.dependencies,
        )
        for each in recording.resources
    )
    return Graph((stack, *made), normalise(plain))


def from_manifests(manifests: Iterable[Mapping[str, Any]]) -> Graph:
    """The graph of plain Kubernetes manifests, such as a chart renders; a `List` is taken apart."""
    return Graph(_of_manifest(manifest) for each in manifests for manifest in _flat(each))


def _flat(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if manifest.get("kind") == "List":
        yield from manifest["items"]
    else:
        yield manifest


def _of_manifest(manifest: Mapping[str, Any]) -> Resource:
    version = manifest["apiVersion"]
    token = f"kubernetes:{'core/' if '/' not in version else ''}{version}:{manifest['kind']}"
    return Resource(
        type=token,
        name=manifest["metadata"]["name"],
        urn=f"{token}::{manifest['metadata']['name']}",
        inputs=normalise(manifest),
    )
