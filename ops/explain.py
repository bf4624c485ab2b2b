"""`superset-async explain KEY`: what a key of a stack file is, its value here, where it came from, and what it changes."""

from __future__ import annotations

from typing import Annotated

import typer
import yaml
from rich.console import Console

from infra import effects
from topology import readers, stack_file
from topology.explain import explain as explained

out = Console()


def explain(
    key: Annotated[str, typer.Argument(help="dotted path, such as web.min_replicas or superset.sign_on")],
    stack: Annotated[str, typer.Option(help="stack file to read: stacks/Pulumi.STACK.yaml")] = "local",
) -> None:
    """Say what a key of a stack file is, its value in this stack, where that came from, and what a change of it changes."""
    found = explained(stack, key, stack_file.read(stack))
    value = (
        yaml.safe_dump(found.value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("\n...\n").strip()
    )
    for name, text in (
        ("key", f"superset-async:{found.key.removeprefix('superset-async:')}"),
        ("is", found.is_),
        ("value here", value),
        ("from", found.origin),
        ("changes", changes(found.path)),
        *([("below it", ", ".join(found.below))] if found.below else []),
    ):
        out.print(f"{name:<12}{text}", highlight=False, markup=False, soft_wrap=True)


def changes(path: str) -> str:
    """What a change of a setting, or of those of a section, does to the processes, as docs/settings-and-processes.md has it."""
    if text := effects.elsewhere(path):
        return text
    reached: dict[str, list[readers.Process]] = {}
    for setting, field in effects.settings_of_all():
        if setting != path and not setting.startswith(f"{path}."):
            continue
        for process, reach in (effects.effect_of_setting(setting, field) or {}).items():
            if reach != "–" and process not in reached.setdefault(reach, []):
                reached[reach].append(process)
    live = [process for process in reached.get("live", []) if process not in reached.get("restarts", [])]
    said = [
        *([f"restarts {', '.join(reached['restarts'])}"] if reached.get("restarts") else []),
        *([f"read by running {', '.join(live)}"] if live else []),
    ]
    return "; ".join(said) or "no process of Superset: servers, scalers, volumes or policies have it in their own objects"
