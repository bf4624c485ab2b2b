"""Running the Pulumi program without the engine: every resource that it registers, written down instead of made.

The program is the same and so are the SDK's serialization and ordering; only the far end of its two connections (resource
monitor and engine) is here. Nothing is sent anywhere, and no plugin or command-line tool is needed.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime import configure, run_in_stack, set_all_config, settings
from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime.proto import resource_pb2

from infra import aws_answers, certificates, previous, program
from infra.aws_answers import PLACEHOLDER
from infra.certificates import Issuer
from topology.stack_file import PROJECT_NAME

#: Value of a generated secret, from the logical name of its `RandomPassword` and its length.
Generator = Callable[[str, int], str]
_STACK = "pulumi:pulumi:Stack"
#: Of a private key as PEM: as long as one on the curve P-256.
_KEY_LENGTH = 227
#: How a secret is marked between program and engine (part of the wire protocol).
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 a mark, not a secret


@dataclass(frozen=True)
class Resource:
    """One registration, as the engine would have got it."""

    urn: str
    type: str
    name: str
    parent: str
    #: Whether a provider makes it, or it is a component.
    custom: bool
    #: Its inputs as a provider sees them (camelCase), secrets in clear.
    inputs: dict[str, Any] = field(repr=False)
    #: Where in `inputs` the program marked a value as secret, as tuples of keys and indices.
    secret_paths: frozenset[tuple[str | int, ...]]
    #: URNs of what has to exist before it.
    dependencies: frozenset[str]
    #: URN of the provider that makes it, where the program says which.
    provider: str = ""
    #: How long the engine waits for it to be ready ("3900s"); empty: as long as the provider does by itself.
    create_timeout: str = ""
    #: Whether the engine refuses to delete it.
    protect: bool = False
    #: Whether the engine forgets it where it would delete it.
    retain_on_delete: bool = False
    #: Inputs that stay as they are once it is made, as paths.
    ignore_changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """Everything that one run of the program registered."""

    resources: tuple[Resource, ...]
    #: The stack's outputs, and what each component registered as its outputs, by URN.
    outputs: dict[str, Any]
    secret_outputs: frozenset[str]
    component_outputs: dict[str, dict[str, Any]]

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """The manifests of one Kubernetes kind by name."""
        return {manifest["metadata"]["name"]: manifest for manifest in self.manifests() if manifest["kind"] == kind}

    def manifests(self) -> list[dict[str, Any]]:
        """Every Kubernetes object, in the order of registration, secrets in clear."""
        return [
            resource.inputs for resource in self.resources if resource.custom and resource.type.startswith("kubernetes:")
        ]


def placeholder(name: str, length: int) -> str:
    """What stands for a generated secret where none is generated."""
    return f"{PLACEHOLDER}-{name}"


def record(
    stack: str,
    config: Mapping[str, Any],
    *,
    secret_keys: frozenset[str] = frozenset(),
    generate: Generator = placeholder,
    before: Recording | None = None,
    issuer: Issuer | None = None,
) -> Recording:
    """Run the program for `stack` with the keys of a stack file (without their prefix); what it registered.

    `secret_keys` are those that the engine would have decrypted; `before` is what the stack's last up made, where there was one;
    `issuer` makes certificates (None: marks stand for them).
    RunError where the configuration has mistakes, or cannot follow on `before`. Runs share nothing: the SDK keeps its state in
    context variables, and each run has a context and an event loop of its own.
    """
    return contextvars.copy_context().run(_record, stack, config, secret_keys, _Monitor(generate, before, issuer))


def _record(
    stack: str,
    config: Mapping[str, Any],
    secret_keys: frozenset[str],
    monitor: _Monitor,
) -> Recording:
    configure(
        pulumi_mocks.MockSettings(
            monitor=monitor,
            monitor_features=set(cast(Any, monitor).GetDeploymentInfo(None).supportedFeatures),
            engine=pulumi_mocks.MockEngine(None),
            project=PROJECT_NAME,
            stack=stack,
            dry_run=False,
            callbacks=None,
            outputs=set[asyncio.Task[Any]](),
        )
    )
    settings.set_root_resource(cast(Any, None))
    set_all_config(as_engine_config(config), [f"{PROJECT_NAME}:{key}" for key in secret_keys])
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(run_in_stack(program.main))
    finally:
        loop.close()
    return monitor.recording()


def as_engine_config(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a stack file as the engine hands them to a program: a string as itself, all else as JSON."""
    return {
        f"{PROJECT_NAME}:{key}": value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in config.items()
    }


class _StateOfLastUp(pulumi_mocks.Mocks):
    """Answers what the program asks the engine: what the stack's last up made. Never asked for a resource."""

    def __init__(self, before: Recording | None) -> None:
        self._before = before

    def new_resource(self, args: pulumi_mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        raise NotImplementedError(args.typ)

    def call(self, args: pulumi_mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        before = self._before
        match args.token:
            case previous.STACK_OUTPUTS:
                return {"outputs": before.outputs if before else {}}, []
            case previous.STACK_RESOURCES if before:
                made = {each.urn: {"type": each.type, "outputs": each.inputs} for each in before.resources}
                return {"outputs": made}, []
            case _:
                pass
        raise NotImplementedError(f"{args.token}: a function of a provider needs the engine")


class _Monitor(pulumi_mocks.MockMonitor):
    """A resource monitor that answers every registration with its own inputs, and makes up passwords."""

    def __init__(self, generate: Generator, before: Recording | None, issuer: Issuer | None) -> None:
        super().__init__(_StateOfLastUp(before))
        self._generate = generate
        self._issuer = issuer
        self._recorded: list[Resource] = []
        self._outputs: dict[str, tuple[dict[str, Any], set[tuple[str | int, ...]]]] = {}
        self._stack_urn = ""

    def RegisterResource(self, request: Any) -> Any:
        """Write a registration down, and answer as if the provider had made it."""
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == _STACK:
            self._stack_urn = urn
            return resource_pb2.RegisterResourceResponse(urn=urn)
        secrets: set[tuple[str | int, ...]] = set()
        inputs = cast("dict[str, Any]", _plain(request.object, (), secrets))
        self._recorded.append(
            Resource(
                urn=urn,
                type=request.type,
                name=request.name,
                parent=request.parent,
                custom=request.custom,
                inputs=inputs,
                secret_paths=frozenset(secrets),
                dependencies=frozenset(request.dependencies),
                provider=request.provider.rpartition("::")[0],
                create_timeout=request.customTimeouts.create,
                protect=bool(request.protect),
                retain_on_delete=bool(request.retainOnDelete),
                ignore_changes=tuple(request.ignoreChanges),
            )
        )
        state = struct_pb2.Struct()
        state.CopyFrom(request.object)
        if request.type == "random:index/randomPassword:RandomPassword":
            password = self._generate(request.name, int(inputs["length"]))
            state["result"] = {_SIGNATURE: _SECRET, "value": password}
        if output := certificates.OUTPUTS.get(request.type):
            made = self._certificate(request.type, request.name, inputs)
            state[output] = {_SIGNATURE: _SECRET, "value": made} if request.type == certificates.KEY else made
        for key, value in aws_answers.of(request.type, request.name, inputs).items():
            state[key] = value
        return resource_pb2.RegisterResourceResponse(
            urn=urn, id=aws_answers.identity(request.type, request.name) if request.custom else "", object=state
        )

    def _certificate(self, kind: str, name: str, inputs: Mapping[str, Any]) -> str:
        if self._issuer:
            return self._issuer.answer(kind, name, inputs)
        return (
            self._generate(f"{name}{certificates.KEY_SUFFIX}", _KEY_LENGTH)
            if kind == certificates.KEY
            else certificates.mark(name)
        )

    def RegisterResourceOutputs(self, request: Any) -> Any:
        """Write down what a component, or the stack, says of itself."""
        secrets: set[tuple[str | int, ...]] = set()
        self._outputs[request.urn] = (cast("dict[str, Any]", _plain(request.outputs, (), secrets)), secrets)
        return empty_pb2.Empty()

    def recording(self) -> Recording:
        outputs, secrets = self._outputs.get(self._stack_urn, ({}, set[tuple[str | int, ...]]()))
        return Recording(
            resources=tuple(self._recorded),
            outputs=outputs,
            secret_outputs=frozenset(str(path[0]) for path in secrets),
            component_outputs={urn: found for urn, (found, _) in self._outputs.items() if urn != self._stack_urn},
        )


def _plain(value: struct_pb2.Struct, path: tuple[str | int, ...], secrets: set[tuple[str | int, ...]]) -> object:
    """Python's form of a value on the wire, with the paths of what is marked as secret added to `secrets`."""
    fields = dict(value.fields)
    if _SIGNATURE in fields:
        if fields[_SIGNATURE].string_value != _SECRET:
            raise NotImplementedError(f"a special value at {path}")
        secrets.add(path)
        return _plain_value(fields["value"], path, secrets)
    return {key: _plain_value(inner, (*path, key), secrets) for key, inner in sorted(fields.items())}


def _plain_value(value: struct_pb2.Value, path: tuple[str | int, ...], secrets: set[tuple[str | int, ...]]) -> object:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain(value.struct_value, path, secrets)
    if kind == "list_value":
        return [_plain_value(inner, (*path, index), secrets) for index, inner in enumerate(value.list_value.values)]
    if kind == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    if kind in (None, "null_value"):
        return None
    return getattr(value, kind)
