"""What a team's own Superset is: feature flags, settings, a module of its own, secrets for them, how users log in, and guests."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from topology.settings.embedding import Embedding
from topology.settings.section import Section
from topology.settings.sign_on import SignOn
from topology.settings.values import ObjectName, matching

#: In a setting's value, at any depth: `{from_env: NAME}` stands for that variable of `env`.
FROM_ENV = "from_env"
SettingName = Annotated[
    str, matching(r"[A-Z][A-Z0-9_]*", "must be in upper case: Superset sees no other setting|Write it as in APP_NAME")
]
VariableName = Annotated[
    str, matching(r"[A-Z][A-Z0-9_]*", "must be upper-case letters, digits and '_'|Write it as in SMTP_PASSWORD")
]
#: A path that begins with `../` leaves the folder of the stack files.
ModulePath = Annotated[
    str,
    matching(
        r"(\.\./)*/?([A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z_][A-Za-z0-9_]*(\.py)?/?",
        "must be a Python file, or a folder with __init__.py, named like a module|Write it as in ../superset/acme.py",
    ),
]


class EnvSource(Section):
    """Where a variable's value is: a key of an existing Secret, or else the stack's secret superset_env."""

    secret_name: ObjectName | None = Field(
        default=None, validation_alias="secret", description="existing Secret of the namespace; null: superset_env"
    )
    key: str | None = Field(default=None, description="key in that Secret; default: the variable's name")

    @model_validator(mode="after")
    def _key_has_a_secret(self) -> EnvSource:
        if self.key is not None and self.secret_name is None:
            raise ValueError(
                "has a key and no secret|Name the Secret, or leave both out and set superset-async:superset_env"
            )
        return self


class SupersetSettings(Section):
    """A team's own Superset. What the platform must control is refused, with the key that decides it: docs/own-superset.md."""

    feature_flags: dict[str, bool] = Field(description="Superset's feature flags")
    settings: dict[SettingName, Any] = Field(
        description="Superset's, Flask's and Flask-AppBuilder's settings that are plain data; {from_env: NAME} stands for env"
    )
    own_settings: dict[SettingName, Any] = Field(description="settings that only the team's own code reads")
    config_module: ModulePath | None = Field(
        description="Python file or folder of the team's, loaded last; relative to the stack file, absolute: in the image"
    )
    env: dict[VariableName, EnvSource] = Field(description="environment variables with the team's secrets")
    log_sql: bool = Field(
        description="write the text of statements to the log where libraries do; it may hold people's data"
    )
    audit: bool = Field(description="keep a trail of who did what: records on the processes' stdout")
    audit_sql: bool = Field(description="records of who ran what have the statement's text; it may hold people's data")
    sign_on: SignOn | None = Field(description="how users log in; null: by Superset's own passwords")
    embedding: Embedding | None = Field(description="dashboards in pages of other sites; null: none")
