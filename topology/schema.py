"""`python -m topology.schema` prints the JSON Schema of a stack file, written from the settings: for editors.

It knows every key, what it is and which values it takes. Rules between keys are no part of it: the plan checks those.
 Keys that a preset gives need not be said, so only what stands in a section that no preset has is required.
"""

from __future__ import annotations

import json
import sys
from typing import Any, cast

from topology import presets, superset_names
from topology.settings import Settings
from topology.stack_file import PROJECT_NAME
from topology.superset_ownership import OBJECTS, OWNED, OWNED_FLAGS

#: Where a stack file's first line says that this is, relative to itself.
FILE = "schema.json"
LINE = f"# yaml-language-server: $schema={FILE}"
#: Keys whose values the engine encrypts, with what each is.
SECRETS: dict[str, str] = {
    "database_uris": "secret: SQLAlchemy URI, password included, of each analytic database without a uri",
    "postgres_password": "secret: password of postgres.user on a server of kind existing",
    "redis_passwords": "secret: passwords on existing servers without a password_secret",
    "superset_env": "secret: values of superset.env that name no Secret",
    "sign_on_secret": "secret: of the client at the identity provider, or of the account in the directory",
}
_ENGINE = "a key of the engine or of another provider"


def document() -> str:
    """The whole schema as text."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def schema() -> dict[str, Any]:
    """The schema of a stack file."""
    whole = Settings.model_json_schema(by_alias=True, mode="validation")
    given: dict[str, Any] = {}
    for name in presets.NAMES:
        given = presets.merge(given, presets.settings_of(cast(Any, name), on_aws=True))
    inner = _Writer(whole["$defs"]).write(whole, given)
    properties: dict[str, Any] = {f"{PROJECT_NAME}:{key}": each for key, each in inner["properties"].items()}
    properties |= {f"{PROJECT_NAME}:{key}": {"description": text} for key, text in SECRETS.items()}
    _name_supersets(properties[f"{PROJECT_NAME}:superset"]["properties"])
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"stack file of {PROJECT_NAME}",
        "type": "object",
        "required": ["config"],
        "properties": {
            "config": {
                "type": "object",
                "properties": properties,
                "required": [f"{PROJECT_NAME}:topology"],
                "patternProperties": {f"^(?!{PROJECT_NAME}:)[^:]+:.+$": {"description": _ENGINE}},
                "additionalProperties": False,
            }
        },
    }


def _name_supersets(superset: dict[str, Any]) -> None:
    """Superset's own settings and flags, so that they complete and a misspelt one shows."""
    teams = superset_names.SETTINGS - OWNED.keys() - OBJECTS - {"FEATURE_FLAGS"}
    kinds = {
        **dict.fromkeys(superset_names.BOOLS, "boolean"),
        **dict.fromkeys(superset_names.NUMBERS, "number"),
        **dict.fromkeys(superset_names.TEXTS, "string"),
    }
    for section in ("settings", "feature_flags"):
        superset[section].pop("patternProperties", None)
    superset["settings"] |= {
        "properties": {name: {"type": [kinds[name], "object", "null"]} if name in kinds else {} for name in sorted(teams)},
        "additionalProperties": False,
    }
    flags = sorted(superset_names.FEATURE_FLAGS - OWNED_FLAGS.keys())
    superset["feature_flags"] |= {"properties": {name: {"type": "boolean"} for name in flags}, "additionalProperties": False}


class _Writer:
    """Writes pydantic's schema without references, each section as its place in the presets needs it."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions

    def write(self, node: dict[str, Any], given: Any) -> dict[str, Any]:
        """`node`, where the presets have `given`."""
        if "$ref" in node:
            inner = self._definitions[node["$ref"].rpartition("/")[2]]
            node = {**inner, **{key: value for key, value in node.items() if key != "$ref"}}
        found = {key: value for key, value in node.items() if key not in ("$defs", "title", "default")}
        values = cast("dict[str, Any]", given) if isinstance(given, dict) else None
        if "properties" in node:
            found["properties"] = {
                key: self.write(each, (values or {}).get(key)) for key, each in node["properties"].items()
            }
            if values is not None:
                found.pop("required", None)
        if isinstance(node.get("additionalProperties"), dict):
            found["additionalProperties"] = self.write(node["additionalProperties"], None)
        if "patternProperties" in node:
            # Names of the stack's own; what is no such name is none.
            found["patternProperties"] = {name: self.write(each, None) for name, each in node["patternProperties"].items()}
            found["additionalProperties"] = False
        if isinstance(node.get("items"), dict):
            found["items"] = self.write(node["items"], None)
        for choice in ("anyOf", "oneOf"):
            if choice in node:
                found[choice] = [self.write(each, given) for each in node[choice]]
        return found


if __name__ == "__main__":
    sys.stdout.write(document())
