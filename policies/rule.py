"""What a rule is: a function from one subject of the graph to what is wrong with it, and what a person needs to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from policies.graph import Graph, Resource, UnknownValueError

Severity = Literal["mandatory", "advisory"]
Options = Mapping[str, Any]


class Subject(Protocol):
    """What a rule looks at: anything that belongs to a resource."""

    @property
    def resource(self) -> Resource:
        """The resource that a violation is reported for."""
        ...


S = TypeVar("S", bound=Subject)


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong: which resource, and what about it."""

    resource: Resource
    problem: str


@dataclass(frozen=True)
class Option:
    """Something about a rule that a team may set: its JSON schema, default included."""

    default: Any
    description: str

    def schema(self) -> dict[str, Any]:
        """The option in JSON schema's language."""
        if not isinstance(self.default, bool | int | str):
            return {"type": "array", "items": {"type": "string"}, "default": self.default, "description": self.description}
        kind = {bool: "boolean", int: "integer", str: "string"}[type(self.default)]
        return {"type": kind, "default": self.default, "description": self.description}


@dataclass(frozen=True)
class Rule:
    """One rule. `alone`: it looks at one resource at a time, so the engine can stop that resource before it is made."""

    id: str
    severity: Severity
    reason: str
    fix: str
    runbook: str
    #: Whether breaking it loses data: then no option, level or exception softens it.
    loses_data: bool
    alone: bool
    options: Mapping[str, Option]
    find: Callable[[Graph, Options], Iterator[Violation]]

    def violations(self, graph: Graph, options: Options | None = None) -> list[Violation]:
        """What breaks the rule in `graph`, with the team's `options` over the defaults."""
        defaults = {name: option.default for name, option in self.options.items()}
        return list(self.find(graph, {**defaults, **(options or {})}))


@dataclass
class Rules:
    """The rules of one subject, in the order of their definition."""

    #: Page of docs/runbooks that explains them, without its suffix.
    page: str
    rules: list[Rule] = field(default_factory=list[Rule])

    def rule(
        self,
        name: str,
        each: Callable[[Graph], Iterable[S]],
        *,
        fix: str,
        runbook: str,
        severity: Severity = "mandatory",
        loses_data: bool = False,
        alone: bool = False,
        options: Mapping[str, Option] | None = None,
    ) -> Callable[[Callable[[S, Graph, Options], Iterable[str]]], Callable[[S, Graph, Options], Iterable[str]]]:
        """Add the decorated function as a rule: it gets every subject that `each` finds and yields what is wrong with it.

        Its docstring is the rule's reason, in one sentence. `runbook` is a heading of the subject's page. A subject with a
        value that is not known yet is left alone.
        """

        def add(check: Callable[[S, Graph, Options], Iterable[str]]) -> Callable[[S, Graph, Options], Iterable[str]]:
            def find(graph: Graph, settings: Options) -> Iterator[Violation]:
                try:
                    subjects = graph.derive(each)
                except UnknownValueError:
                    return
                for subject in subjects:
                    try:
                        yield from (Violation(subject.resource, problem) for problem in check(subject, graph, settings))
                    except UnknownValueError:
                        continue
                    except (ValueError, TypeError, KeyError, AttributeError) as error:
                        yield Violation(subject.resource, f"cannot be checked: {error}")

            link = f"docs/runbooks/{self.page}.md#{runbook}"
            self.rules.append(
                Rule(name, severity, check.__doc__ or "", fix, link, loses_data, alone, dict(options or {}), find)
            )
            return check

        return add


@dataclass(frozen=True)
class Plain:
    """A resource as the subject of a rule."""

    resource: Resource

    def get(self, *path: str | int, default: Any = None) -> Any:
        """The input at `path`; see `policies.graph.at`."""
        return self.resource.get(*path, default=default)


def kinds(*names: str) -> Callable[[Graph], list[Plain]]:
    """Subjects: Kubernetes objects of these kinds."""

    def find(graph: Graph) -> list[Plain]:
        return [Plain(each) for each in graph.of_kind(*names)]

    return find


def types(*tokens: str) -> Callable[[Graph], list[Plain]]:
    """Subjects: resources of these types (each the beginning of a type token)."""

    def find(graph: Graph) -> list[Plain]:
        return [Plain(each) for each in graph.of_type(*tokens)]

    return find
