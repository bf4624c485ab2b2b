"""A refusal as an answer of Superset's: one shape and one status, whichever of its views gives it.

Replaces nothing; leans on `superset.exceptions.SupersetErrorException` and on Flask's `after_request` (read and tested with
Superset 6.1.0; no upstream issue known).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from runtime.queries.admission import ERROR_TYPE, Refusal

if TYPE_CHECKING:
    from flask import Flask, Response

#: Attribute of flask.g: the refusal of this request.
_REFUSAL = "superset_async_refusal"


def superset_error(refusal: Refusal) -> Exception:
    """Superset's exception for a refusal, which its pages of errors know; the answer itself is `answer`'s."""
    from flask import g
    from superset.errors import ErrorLevel, SupersetError, SupersetErrorType
    from superset.exceptions import SupersetErrorException

    setattr(g, _REFUSAL, refusal)
    error = SupersetError(message=refusal.message, error_type=SupersetErrorType[ERROR_TYPE], level=ErrorLevel.ERROR)
    return SupersetErrorException(error, status=refusal.status)


def is_refused() -> bool:
    """Whether something that this request wanted was refused."""
    from flask import g

    return _REFUSAL in g


def install(app: Flask) -> None:
    """Answer so in this web process."""
    app.after_request(answer)


def answer(response: Response) -> Response:
    """Superset's views turn an exception into one of several shapes and statuses; a refusal has one."""
    from flask import g

    refusal = cast("Refusal | None", g.pop(_REFUSAL, None))
    if refusal is not None and response.status_code >= 400:
        response.set_data(json.dumps({"errors": refusal.errors()}))
        response.mimetype = "application/json"
        response.status_code = refusal.status
        response.headers["Retry-After"] = str(refusal.retry_after_seconds)
    return response
