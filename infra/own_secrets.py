"""The secrets of a team's own Superset in the stack's configuration: each that is wanted is there, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from topology.model import Topology
from topology.problems import Problem, did_you_mean
from topology.stack_file import PROJECT_NAME

SUPERSET_ENV = "superset_env"
SIGN_ON_SECRET = "sign_on_secret"  # noqa: S105 a key's name
_HIDDEN = "(hidden)"


def own_secret_problems(planned: Topology, secrets: Mapping[str, object]) -> Iterator[Problem]:
    """What is wrong with `superset_env` and `sign_on_secret` among the `secrets` of a stack."""
    given = secrets.get(SUPERSET_ENV, {})
    if not isinstance(given, dict):
        yield Problem(SUPERSET_ENV, _HIDDEN, "must map names of variables to values", "Set it with --path, name by name")
        return
    values = cast("dict[str, Any]", given)
    wanted = [name for name, source in planned.superset.env.items() if not source.secret_name]
    for name in wanted:
        if not isinstance(values.get(name), str) or not values[name]:
            yield Problem(
                f"{SUPERSET_ENV}.{name}",
                _HIDDEN if values.get(name) else "missing",
                f"must hold, as text, the value of superset.env.{name}, which names no Secret",
                f"pulumi config set --secret --path {PROJECT_NAME}:{SUPERSET_ENV}.{name} <value>",
                also=(f"superset.env.{name}", "superset.env"),
            )
    for name in values:
        if name not in wanted:
            yield Problem(
                f"{SUPERSET_ENV}.{name}",
                _HIDDEN,
                "is the value of no variable of superset.env that names no Secret",
                did_you_mean(name, tuple(wanted)) if wanted else f"Add superset.env.{name}: {{}}, or remove it",
                also=(f"superset.env.{name}", "superset.env"),
            )
    sign_on = planned.superset.sign_on
    needed = sign_on is not None and sign_on.needs_secret and sign_on.secret_ref is None
    if needed and not secrets.get(SIGN_ON_SECRET):
        yield Problem(
            SIGN_ON_SECRET,
            "missing",
            "must hold the client's secret, or the directory's password, of superset.sign_on",
            f"pulumi config set --secret {PROJECT_NAME}:{SIGN_ON_SECRET} <secret>, or name the Secret that has it",
            also=("superset.sign_on", "superset"),
        )
    if SIGN_ON_SECRET in secrets and not needed:
        yield Problem(
            SIGN_ON_SECRET,
            _HIDDEN,
            "is for no superset.sign_on that takes its secret from the stack's configuration",
            "Remove it",
            also=("superset.sign_on", "superset"),
        )
