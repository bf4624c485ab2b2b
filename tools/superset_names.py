"""`python -m tools.superset_names` writes topology/superset_names.py from the installed Superset: its settings, kinds and flags.

The Pulumi program has no Superset, so that it checks a stack's names against this list. Read, not imported: what
`superset/config.py` assigns, and what Superset, Flask-AppBuilder and the extensions of Flask ask a configuration for.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from local import binaries

TARGET = Path(__file__).resolve().parent.parent / "topology" / "superset_names.py"
#: Who reads Superset's configuration.
READERS = (
    "superset",
    "flask",
    "flask_appbuilder",
    "flask_babel",
    "flask_caching",
    "flask_compress",
    "flask_cors",
    "flask_jwt_extended",
    "flask_limiter",
    "flask_login",
    "flask_migrate",
    "flask_session",
    "flask_sqlalchemy",
    "flask_talisman",
    "flask_wtf",
)
_NAME = re.compile(r"[A-Z][A-Z0-9_]{2,}")
_CONFIGURATION = re.compile(r"(?i)(conf|config|cfg|settings)$")
_METHODS = ("get", "setdefault", "pop", "get_namespace")
_WIDTH = 118


def site_packages() -> Path:
    """Where Superset's environment has its packages."""
    return binaries.superset_python().parent.parent / "lib/python3.11/site-packages"


def assigned(source: str) -> dict[str, ast.expr]:
    """Upper-case names that a module assigns at its top level (conditions included), with what it assigns last."""
    found: dict[str, ast.expr] = {}
    for node in _statements(ast.parse(source).body):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            value = cast("ast.Assign | ast.AnnAssign", node).value
            if isinstance(target, ast.Name) and target.id.isupper() and value is not None:
                found[target.id] = value
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield from _statements(getattr(node, field, []))


def read_names(source: str) -> Iterator[str]:
    """Names that a module asks a configuration for: `config["X"]`, `app.config.get("X")`, `self.conf.setdefault("X", …)`."""
    for node in ast.walk(ast.parse(source)):
        key: ast.expr | None = None
        if isinstance(node, ast.Subscript) and _is_configuration(node.value):
            key = node.slice
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _METHODS
            and _is_configuration(node.func.value)
            and node.args
        ):
            key = node.args[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ConfigAttribute":
            # Flask's own, that are attributes of the application too.
            key = node.args[0]
        elif isinstance(node, ast.ClassDef) and node.name == "ConfigVars":
            # Flask-Limiter's.
            yield from (
                str(each.value) for each in ast.walk(node) if isinstance(each, ast.Constant) and _is_name(each.value)
            )
        if isinstance(key, ast.Constant) and _is_name(key.value):
            yield str(key.value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_configuration(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return _CONFIGURATION.search(name) is not None


def kind(value: ast.expr) -> str | None:
    """What a default is, where it is written down as a number, text or boolean: `bool`, `number`, `text`; else None."""
    if isinstance(value, ast.UnaryOp):
        value = value.operand
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("cast_to_boolean"):
        return "bool"
    if not isinstance(value, ast.Constant):
        return None
    kinds: dict[type, str] = {bool: "bool", int: "number", float: "number", str: "text"}
    return kinds.get(type(value.value))


def flags(source: str) -> list[str]:
    """The feature flags that Superset knows."""
    defaults = assigned(source)["DEFAULT_FEATURE_FLAGS"]
    if not isinstance(defaults, ast.Dict):
        raise TypeError("DEFAULT_FEATURE_FLAGS of superset/config.py is no mapping that can be read")
    return sorted(str(key.value) for key in defaults.keys if isinstance(key, ast.Constant))


def document() -> str:
    """The text of topology/superset_names.py."""
    site = site_packages()
    config = (site / "superset/config.py").read_text(encoding="utf-8")
    of_superset = assigned(config)
    names = {name for name in of_superset if _NAME.fullmatch(name)} - {"DEFAULT_FEATURE_FLAGS", "ENV_VAR_KEYS"}
    for package in READERS:
        for file in (site / package).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            if "conf" in text.lower():
                names.update(read_names(text))
    kinds = {name: found for name, value in of_superset.items() if (found := kind(value))}
    lines = [
        '"""Names of settings and feature flags of Superset 6.1, Flask, Flask-AppBuilder and its other extensions.',
        "",
        "Written by `python -m tools.superset_names`; a test fails when it is not what the installed ones have.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "# ruff: noqa: SIM905 - a list of so many words is read as words",
        "",
        "#: Every setting that something installed reads.",
        *_words("SETTINGS", sorted(names)),
        "#: Settings whose default is a boolean, a number or a text.",
    ]
    for which in ("bool", "number", "text"):
        lines += _words(
            f"{which.upper()}S", sorted(name for name, found in kinds.items() if found == which and name in names)
        )
    lines += ["#: Feature flags.", *_words("FEATURE_FLAGS", flags(config))]
    return "\n".join(lines) + "\n"


def _words(name: str, words: list[str]) -> list[str]:
    wrapped = textwrap.wrap(" ".join(words), _WIDTH, break_long_words=False, break_on_hyphens=False)
    return [f"{name} = frozenset(", '    """', *(f"    {line}" for line in wrapped), '    """.split()', ")"]


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
    sys.stdout.write(f"wrote {TARGET}\n")
