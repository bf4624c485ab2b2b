"""A team's own Superset on this machine: its module in the state folder, its secrets from the environment of `make up`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from local.state import StateFolder, write_private
from topology.commands import OWN_MODULE_ENV, SIGN_ON_SECRET_ENV
from topology.model import Topology
from topology.own_module import OwnModule
from topology.problems import MendableError


class OwnSecretsError(MendableError):
    """Secrets of the team's own Superset that the environment lacks, or that no process can be given; names every one."""


def variables(topology: Topology) -> dict[str, str]:
    """The variables that the stack's own Superset takes from the environment, with the key of each."""
    names = {name: f"superset.env.{name}" for name in topology.superset.env}
    sign_on = topology.superset.sign_on
    return names | ({SIGN_ON_SECRET_ENV: "superset.sign_on"} if sign_on and sign_on.needs_secret else {})


def check(topology: Topology, env: Mapping[str, str] = os.environ) -> None:
    """OwnSecretsError where `env` lacks one, or has one that the supervisor cannot hand on."""
    wanted = variables(topology)
    if missing := [f"{name} ({key})" for name, key in wanted.items() if not env.get(name)]:
        raise OwnSecretsError(f"set these in the environment of make up: {', '.join(missing)}")
    if odd := [f"{name} ({key})" for name, key in wanted.items() if not _can_be_handed_on(env[name])]:
        rule = "has a line break, or both kinds of quotes, or one at its end, which the supervisor cannot hand on"
        raise OwnSecretsError(f"{', '.join(odd)} {rule}. Give it as base64, and decode it in the module")


def _can_be_handed_on(value: str) -> bool:
    return not ("\n" in value or ("'" in value and '"' in value) or value.strip("'\"") != value)


def environment(
    topology: Topology, folder: StateFolder, module: OwnModule | None, role: str, env: Mapping[str, str]
) -> dict[str, str]:
    """What a Superset process of `role` gets: those variables, the sign-on's secret in the web tier alone; and where the module
    is: another path for other files, so that a changed file starts the processes anew.
    """
    mine = {name for name in variables(topology) if role == "web" or name != SIGN_ON_SECRET_ENV}
    given = {name: env[name] for name in sorted(mine) if name in env}
    return given | ({OWN_MODULE_ENV: str(folder.own / module.digest / module.entry)} if module else {})


def write_module(folder: StateFolder, module: OwnModule | None) -> None:
    """Write the module's files, and remove those of an earlier version."""
    for old in folder.own.iterdir() if folder.own.exists() else ():
        if module is None or old.name != module.digest:
            shutil.rmtree(old)
    if module is None:
        return
    for path, text in module.files.items():
        file = folder.own / module.digest / path
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(file, text)
