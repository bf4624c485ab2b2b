"""What every component shares: names and labels, the restricted security context, resources, spreading, content hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pulumi
from pulumi_kubernetes.core import v1 as core
from pulumi_kubernetes.meta import v1 as meta
from pulumi_kubernetes.policy import v1 as policy

from topology.quantities import format_cpu, format_memory
from topology.settings.resources import Resources

#: Prefix of the annotations and labels that are this project's own.
PREFIX = "superset-async"
#: On every object and pod that is one tenant's alone.
TENANT_LABEL = f"{PREFIX}/tenant"
#: Value of `app.kubernetes.io/name` on every pod that runs Superset's code (web, workers, beat, jobs).
SUPERSET = "superset"
#: Long enough for a kubelet that starts anew, short enough for what must be back in a minute or two.
LOST_NODE_SECONDS = 10


@dataclass(frozen=True)
class Scope:
    """Where a component's objects live and what they are labelled with."""

    #: Namespace of every object; an output of the namespace itself, so that it exists first.
    namespace: pulumi.Input[str]
    #: The stack's name: `app.kubernetes.io/instance`.
    stack: str
    #: StorageClass of every volume; None: the cluster's default.
    storage_class: str | None = None
    #: The stack file's own labels, on every object and pod but in no selector, so that they can change.
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Secrets by which nodes pull the images of every pod.
    pull_secrets: tuple[str, ...] = ()


def of_tenant(scope: Scope, tenant: str) -> Scope:
    """The scope of a tenant's own objects: they and their pods are labelled with it."""
    return replace(scope, labels={**scope.labels, TENANT_LABEL: tenant})


@dataclass(frozen=True)
class SecretRef:
    """A Secret that containers take environment variables from, and a digest that changes with its values."""

    name: pulumi.Output[str]
    #: Its keys, which are also the names of the environment variables.
    keys: tuple[str, ...]
    fingerprint: pulumi.Output[str]


def selector(scope: Scope, name: str, component: str) -> dict[str, str]:
    """The labels that pick a component's pods; they can never change once deployed."""
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": scope.stack,
        "app.kubernetes.io/component": component,
    }


def labels(scope: Scope, name: str, component: str) -> dict[str, str]:
    """The labels of a component's objects and pods: the stack's own, the common ones, and its selector."""
    return {
        **scope.labels,
        "app.kubernetes.io/part-of": PREFIX,
        "app.kubernetes.io/managed-by": "pulumi",
        **selector(scope, name, component),
    }


def server_labels(scope: Scope, name: str, component: str) -> dict[str, str]:
    """The labels of a data store's pods: without the stack's own, whose change must restart no server."""
    return labels(replace(scope, labels={}), name, component)


def metadata(
    scope: Scope,
    object_name: pulumi.Input[str],
    object_labels: Mapping[str, str],
    annotations: Mapping[str, pulumi.Input[str]] | None = None,
) -> meta.ObjectMetaArgs:
    """Metadata of an object in the scope's namespace."""
    return meta.ObjectMetaArgs(
        name=object_name, namespace=scope.namespace, labels=dict(object_labels), annotations=annotations
    )


#: The values of this object's fields are the program's, whoever has set them since.
_FORCE = "pulumi.com/patchForce"


def replica_annotations(
    annotations: Mapping[str, pulumi.Input[str]] | None, *, scaled: bool
) -> dict[str, pulumi.Input[str]] | None:
    """Annotations of a Deployment: where no scaler decides its replicas, the program takes them from one that did.

    None for none: an empty mapping would be another owner of the field at each apply.
    """
    return {**(annotations or {}), **({} if scaled else {_FORCE: "true"})} or None


def replica_options(opts: pulumi.ResourceOptions, *, scaled: bool) -> pulumi.ResourceOptions:
    """Options of a Deployment: where a scaler decides its replicas, those that run now stay until it does.

    Left out alone, the number would fall to the API server's default, one, when a scaler is turned on.
    """
    kept = pulumi.ResourceOptions(ignore_changes=["spec.replicas"]) if scaled else None
    return pulumi.ResourceOptions.merge(opts, kept)


def name_of(made: pulumi.Output[meta.outputs.ObjectMeta], name: str) -> pulumi.Output[str]:
    """The name in an object's metadata as an output, so that what uses it is made after the object."""
    return made.apply(lambda found: found.name or name)


def container_resources(resources: Resources) -> core.ResourceRequirementsArgs:
    """A container's requests and limits."""
    return core.ResourceRequirementsArgs(
        requests={
            "cpu": format_cpu(resources.cpu_request_millis),
            "memory": format_memory(resources.memory_request_bytes),
        },
        limits={
            "cpu": format_cpu(resources.cpu_limit_millis),
            "memory": format_memory(resources.memory_limit_bytes),
        },
    )


def pod_security(user: int) -> core.PodSecurityContextArgs:
    """What Pod Security `restricted` asks of a pod, with its volumes owned by the group of `user`."""
    return core.PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=user,
        run_as_group=user,
        fs_group=user,
        fs_group_change_policy="OnRootMismatch",
        seccomp_profile=core.SeccompProfileArgs(type="RuntimeDefault"),
    )


def container_security() -> core.SecurityContextArgs:
    """What Pod Security `restricted` asks of a container, and a root file system that cannot be written."""
    return core.SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        run_as_non_root=True,
        capabilities=core.CapabilitiesArgs(drop=["ALL"]),
    )


def secret_environment(secret: SecretRef) -> list[core.EnvVarArgs]:
    """Environment variables taken from a Secret, each of its key's name."""
    return [secret_variable(key, secret.name, key) for key in secret.keys]


def secret_variable(variable: str, secret: pulumi.Input[str], key: str) -> core.EnvVarArgs:
    """An environment variable whose value is one key of a Secret."""
    return core.EnvVarArgs(
        name=variable,
        value_from=core.EnvVarSourceArgs(secret_key_ref=core.SecretKeySelectorArgs(name=secret, key=key)),
    )


def environment(variables: Mapping[str, str]) -> list[core.EnvVarArgs]:
    """Plain environment variables."""
    return [core.EnvVarArgs(name=name, value=value) for name, value in variables.items()]


def scratch(name: str, size: str, *, in_memory: bool = False) -> core.VolumeArgs:
    """An empty volume that goes with the pod, of at most `size`."""
    return core.VolumeArgs(
        name=name,
        empty_dir=core.EmptyDirVolumeSourceArgs(size_limit=size, medium="Memory" if in_memory else None),
    )


def exec_probe(
    command: list[str], *, period: int, failures: int, timeout: int = 5, grace: int | None = None
) -> core.ProbeArgs:
    """A probe that runs `command` in the container every `period` seconds.

    `grace` is how many seconds the container has to end when a startup or liveness probe has failed: the pod's own period
    unless given.
    """
    return core.ProbeArgs(
        exec_=core.ExecActionArgs(command=command),
        period_seconds=period,
        timeout_seconds=timeout,
        failure_threshold=failures,
        termination_grace_period_seconds=grace,
    )


def spread(match: Mapping[str, str]) -> list[core.TopologySpreadConstraintArgs]:
    """Pods that `match` go to different nodes and zones as far as there are any."""
    return [
        core.TopologySpreadConstraintArgs(
            max_skew=1,
            topology_key=key,
            when_unsatisfiable="ScheduleAnyway",
            label_selector=meta.LabelSelectorArgs(match_labels=dict(match)),
        )
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def leaves_lost_nodes() -> list[core.TolerationArgs]:
    """Tolerations with which a pod leaves a node LOST_NODE_SECONDS after it is known to be lost, instead of the usual 300.

    For pods that keep nothing on their node: the others wait for their volume anyway.
    """
    return [
        core.TolerationArgs(
            key=f"node.kubernetes.io/{state}",
            operator="Exists",
            effect="NoExecute",
            toleration_seconds=LOST_NODE_SECONDS,
        )
        for state in ("not-ready", "unreachable")
    ]


def disruption_budget(
    name: str, scope: Scope, match: Mapping[str, str], object_labels: Mapping[str, str], opts: pulumi.ResourceOptions
) -> policy.PodDisruptionBudget:
    """At most one of the pods that `match` goes at a time when nodes are drained, and a sick one never blocks a drain."""
    return policy.PodDisruptionBudget(
        name,
        metadata=metadata(scope, name, object_labels),
        spec=policy.PodDisruptionBudgetSpecArgs(
            max_unavailable=1,
            selector=meta.LabelSelectorArgs(match_labels=dict(match)),
            unhealthy_pod_eviction_policy="AlwaysAllow",
        ),
        opts=opts,
    )


def volume_claim(name: str, scope: Scope, size: int, claim_labels: dict[str, str]) -> core.PersistentVolumeClaimArgs:
    """A claim template of `size` bytes that one pod writes."""
    return core.PersistentVolumeClaimArgs(
        api_version="v1",
        kind="PersistentVolumeClaim",
        metadata=meta.ObjectMetaArgs(name=name, labels=claim_labels),
        spec=claim_spec(scope, size),
    )


def claim_spec(scope: Scope, size: int) -> core.PersistentVolumeClaimSpecArgs:
    """A claim of `size` bytes, of the stack's StorageClass, that one pod writes at a time."""
    return core.PersistentVolumeClaimSpecArgs(
        access_modes=["ReadWriteOnce"],
        storage_class_name=scope.storage_class,
        resources=core.VolumeResourceRequirementsArgs(requests={"storage": format_memory(size)}),
    )


def service_account(
    name: str, scope: Scope, object_labels: Mapping[str, str], opts: pulumi.ResourceOptions
) -> pulumi.Output[str]:
    """The name of an identity of a component's own, without a token: nothing here talks to the API server."""
    account = core.ServiceAccount(
        name,
        metadata=metadata(scope, name, object_labels),
        automount_service_account_token=False,
        # Every pod of the account has them then, without a pod template saying so.
        image_pull_secrets=[core.LocalObjectReferenceArgs(name=each) for each in scope.pull_secrets] or None,
        opts=opts,
    )
    return name_of(account.metadata, name)


def content_hash(*parts: object) -> str:
    """Hexadecimal SHA-256 of plain data (whatever JSON can say): equal for equal content, whatever the order of keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fingerprint(values: Mapping[str, pulumi.Input[str]]) -> pulumi.Output[str]:
    """A digest of secret values that may stand in a pod template, so that a new value rolls the pods that use it.

    At least one value must be generated (over 128 random bits): nobody can then guess the input, so the digest of all of
    them together says nothing about any, and is no secret itself.
    """
    digest = pulumi.Output.all(**values).apply(lambda plain: content_hash("secret", plain)[:32])
    return pulumi.Output.unsecret(digest)
