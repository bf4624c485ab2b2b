"""The schema of a request's `q` is itself checked once, and not with each request.

As shipped (Flask-AppBuilder 5.0) each request first checks its view's schema, which never changes, against the schema of schemas:
a quarter of what a poll costs the web tier.

Replaces `validate` of jsonschema, which only Flask-AppBuilder calls there (read and tested with Flask-AppBuilder 5.0.2 and
jsonschema 4.25; no upstream issue known. A plain defect there: `rison` should keep a validator for its schema).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.environment import hooks, versions

#: More schemas than views have: of schemas that are made anew with each request none is kept for long.
MOST = 500
#: Validators of schemas that were checked, by the identity of the schema, which they hold.
_checked: dict[int, Any] = {}


def install() -> None:
    """Check each schema once in this process; UntestedVersionError for another Flask-AppBuilder."""
    import jsonschema

    versions.require(__name__, "flask-appbuilder")
    hooks.replace(jsonschema, "validate", __name__, _validate)


def _validate(shipped: Callable[..., None]) -> Callable[..., None]:
    from jsonschema import exceptions
    from jsonschema.validators import validator_for

    def validate(instance: Any, schema: Any, *args: Any, **kwargs: Any) -> None:
        if args or kwargs or not isinstance(schema, dict):
            shipped(instance, schema, *args, **kwargs)
            return
        validator = _checked.get(id(schema))
        if validator is None:
            made: Any = validator_for(schema)
            made.check_schema(schema)
            if len(_checked) >= MOST:
                _checked.clear()
            validator = _checked[id(schema)] = made(schema)
        error = exceptions.best_match(validator.iter_errors(instance))
        if error is not None:
            raise error

    return validate
