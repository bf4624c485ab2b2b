"""What makes a stack's Superset the team's own: the files of its module, its secrets, and those that somebody else keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pulumi
from pulumi_kubernetes.core import v1 as core

from components.common import SUPERSET, Scope, SecretRef, environment, labels, metadata, name_of, secret_variable
from topology.commands import LDAP_CA_FILE, OWN_MODULE_ENV, SIGN_ON_SECRET_ENV
from topology.own_module import OwnModule
from topology.settings.superset import SupersetSettings
from topology.valkey_conf import AUTHORITY

#: Where a pod has the module's files.
FOLDER = "/etc/superset-async-own"
#: Annotation by which Stakater's Reloader, where the cluster has it, restarts a Deployment when a Secret changes.
RELOADER = "secret.reloader.stakater.com/reload"


@dataclass(frozen=True)
class OwnSupersetRef:
    """What the pods of Superset's processes get of it."""

    variables: Sequence[core.EnvVarArgs] = ()
    #: Of the web tier alone, where users log in.
    web_variables: Sequence[core.EnvVarArgs] = ()
    volumes: Sequence[core.VolumeArgs] = ()
    mounts: Sequence[core.VolumeMountArgs] = ()
    #: Changes with the module's files.
    digest: str | None = None
    #: Changes with the secrets that the stack itself keeps.
    fingerprint: pulumi.Output[str] | None = None
    #: Secrets that somebody else keeps, by name.
    kept_elsewhere: Sequence[str] = ()

    @property
    def annotations(self) -> dict[str, pulumi.Input[str]] | None:
        """Of the Deployments: whom a Secret that somebody else changes restarts."""
        return {RELOADER: ",".join(self.kept_elsewhere)} if self.kept_elsewhere else None


@dataclass(frozen=True)
class OwnSupersetArgs:
    """What a team's own Superset is made of."""

    scope: Scope
    superset: SupersetSettings
    module: OwnModule | None
    #: The Secret with `superset_env` and `sign_on_secret`, where the stack keeps any.
    secret: SecretRef | None = field(default=None)


class OwnSuperset(pulumi.ComponentResource):
    """A ConfigMap with the files of the team's module; it holds no secret: those come as variables."""

    ref: OwnSupersetRef

    def __init__(self, name: str, args: OwnSupersetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:own_superset:OwnSuperset", name, None, opts)
        keys = {path: f"file-{number}" for number, path in enumerate(sorted(args.module.files))} if args.module else {}
        volumes: list[core.VolumeArgs] = []
        mounts: list[core.VolumeMountArgs] = []
        variables: list[core.EnvVarArgs] = []
        if args.module:
            config = core.ConfigMap(
                name,
                metadata=metadata(args.scope, name, labels(args.scope, SUPERSET, "own-module")),
                data={key: args.module.files[path] for path, key in keys.items()},
                opts=pulumi.ResourceOptions(parent=self),
            )
            items = [core.KeyToPathArgs(key=key, path=path) for path, key in keys.items()]
            source = core.ConfigMapVolumeSourceArgs(name=name_of(config.metadata, name), items=items)
            volumes.append(core.VolumeArgs(name="own-module", config_map=source))
            mounts.append(core.VolumeMountArgs(name="own-module", mount_path=FOLDER, read_only=True))
            variables += environment({OWN_MODULE_ENV: str(PurePosixPath(FOLDER, args.module.entry))})
        sign_on = args.superset.sign_on
        if sign_on and sign_on.ldap and sign_on.ldap.ca_secret_name:
            authority = core.SecretVolumeSourceArgs(
                secret_name=sign_on.ldap.ca_secret_name, items=[core.KeyToPathArgs(key=AUTHORITY, path=AUTHORITY)]
            )
            volumes.append(core.VolumeArgs(name="sign-on-ca", secret=authority))
            folder = str(PurePosixPath(LDAP_CA_FILE).parent)
            mounts.append(core.VolumeMountArgs(name="sign-on-ca", mount_path=folder, read_only=True))
        kept = kept_elsewhere(args.superset)
        ours = {key: (args.secret.name, key) for key in args.secret.keys} if args.secret else {}
        secrets = {name: secret_variable(name, secret, key) for name, (secret, key) in {**kept, **ours}.items()}
        sign_on_secret = secrets.pop(SIGN_ON_SECRET_ENV, None)
        self.ref = OwnSupersetRef(
            [*variables, *secrets.values()],
            [sign_on_secret] if sign_on_secret else [],
            volumes,
            mounts,
            args.module.digest if args.module else None,
            args.secret.fingerprint if args.secret else None,
            sorted({secret for secret, _ in kept.values()}),
        )
        self.register_outputs({"digest": self.ref.digest})


def kept_elsewhere(superset: SupersetSettings) -> Mapping[str, tuple[str, str]]:
    """Variables whose values are in existing Secrets: name and key of each."""
    found = {name: (source.secret_name, source.key or name) for name, source in superset.env.items() if source.secret_name}
    reference = superset.sign_on.secret_ref if superset.sign_on else None
    return found | ({SIGN_ON_SECRET_ENV: (reference.secret_name, reference.key)} if reference else {})
