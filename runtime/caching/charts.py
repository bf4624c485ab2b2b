"""Where Superset computes a chart's data: its look into the cache, its query and its storing become one `flights.scope`.

As shipped (6.1) nothing joins identical computations: each request that finds nothing runs its query, and a result that
cannot be stored is reported as done and then not found. Two methods are wrapped, because a cache's `get` and `set` alone do
not see whether the caller only looks, and what became of a computation that stored nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

from runtime import superset_version
from runtime.caching import flights
from runtime.commands import ROLE_ENV

logger = logging.getLogger(__name__)

#: Attribute of flask.g with the identity of what this request's look did not find.
_MISSED = "superset_async_missed"
#: Views that fetch a result that a job has announced: they are served whatever is there.
_FETCHING = ("ChartDataRestApi.data_from_cache", "Superset.explore_json_data")
TIME_LIMIT_MESSAGE = "The query took longer than a task may."


def install() -> None:
    """Wrap the two methods, once in a process; UntestedSupersetError for a Superset that they were not tried with."""
    superset_version.require(__name__)
    _wrap(import_module("superset.common.query_context_processor").QueryContextProcessor, _chart)
    _wrap(import_module("superset.viz").BaseViz, _legacy_chart)


def _wrap(owner: Any, wrapper: Callable[..., Any]) -> None:
    shipped = owner.get_df_payload
    if getattr(shipped, "superset_async", False):
        return

    def get_df_payload(self: Any, *args: Any, **kwargs: Any) -> Any:
        return wrapper(shipped, self, *args, **kwargs)

    get_df_payload.superset_async = True  # type: ignore[attr-defined]
    owner.get_df_payload = get_df_payload


def _chart(shipped: Callable[..., Any], processor: Any, query_obj: Any, force_cached: bool | None = False) -> Any:
    """QueryContextProcessor.get_df_payload: a failure is in its payload's `error`."""
    with flights.scope(probe=bool(force_cached), may_refresh=_may_refresh()) as scope:
        try:
            payload = _run(scope, lambda: shipped(processor, query_obj, force_cached))
        except flights.FailedError as error:
            # Superset's own exception for a payload with an error, worded as it words it.
            raise _query_failed(str(error)) from error
        finally:
            if scope.probe and scope.missed:
                _remember(_missed_keys(processor))
        if scope.refused and (scope.too_large or _must_be_stored()):
            payload["error"], payload["status"] = scope.refused, "failed"
        _finish(scope, payload["error"])
        return payload


def _legacy_chart(shipped: Callable[..., Any], viz: Any, *args: Any, **kwargs: Any) -> Any:
    """BaseViz.get_df_payload: failures are in its `errors`."""
    with flights.scope(probe=bool(viz.force_cached), may_refresh=_may_refresh()) as scope:
        try:
            payload = _run(scope, lambda: shipped(viz, *args, **kwargs))
        except flights.FailedError as error:
            raise import_module("superset.exceptions").SupersetException(str(error)) from error
        if scope.refused and (scope.too_large or _must_be_stored()):
            viz.errors.append({"message": scope.refused, "error_type": "VIZ_GET_DF_ERROR", "level": "error", "extra": {}})
            viz.status = payload["status"] = "failed"
        _finish(scope, "; ".join(_message(error) for error in viz.errors) if viz.errors else None)
        return payload


def _run(scope: flights.Scope, compute: Callable[[], Any]) -> Any:
    try:
        return compute()
    except flights.BusyError as error:
        exceptions = import_module("superset.exceptions")
        raise exceptions.SupersetGenericErrorException(str(error), status=503) from error
    except Exception as error:
        # The next one who tried would wait as long. Other exceptions come at once, and may be this user's own (a log-in to
        # the database that is missing), so that the next one tries.
        if type(error).__name__ == "SoftTimeLimitExceeded":
            scope.end(flights.FAILED + TIME_LIMIT_MESSAGE.encode())
        raise


def _finish(scope: flights.Scope, error: str | None) -> None:
    if error:
        scope.end(flights.FAILED + str(error).encode())
    elif scope.lease:
        # It has a result and did not store it: it was not to be stored, or could not be.
        scope.end(flights.ALONE)


def _may_refresh() -> bool:
    """Whether a look of this request that finds nothing leads to a computation."""
    flask = import_module("flask")
    return bool(flask.has_request_context()) and flask.request.endpoint not in _FETCHING


def _must_be_stored() -> bool:
    """Whether what was computed is fetched from the cache, as an asynchronous chart is."""
    return os.environ.get(ROLE_ENV) == "worker"


def _query_failed(message: str) -> Exception:
    gettext: Any = import_module("flask_babel").gettext
    failed: Any = import_module("superset.commands.chart.exceptions").ChartDataQueryFailedError
    return cast(Exception, failed(gettext("Error: %(error)s", error=message)))


def _message(error: Any) -> str:
    return str(cast("dict[str, Any]", error).get("message", error)) if isinstance(error, dict) else str(error)


def _missed_keys(processor: Any) -> list[str] | None:
    """The cache keys of all queries of the chart, not only of the first that was missed; None where they are not plain."""
    context = processor._query_context
    if any(query.result_type not in (None, context.result_type) for query in context.queries):
        return None
    keys: list[str] = []
    try:
        for query in context.queries:
            query.validate()
            keys.append(str(processor.query_cache_key(query)))
    except Exception:
        logger.debug("a chart's keys were not found out, it is computed for itself", exc_info=True)
        return None
    return keys


def _remember(keys: list[str] | None) -> None:
    setattr(import_module("flask").g, _MISSED, keys)


def missed() -> list[str] | None:
    """The cache keys of the chart that this request's last look did not find, once; None where it did not look."""
    return cast("list[str] | None", import_module("flask").g.pop(_MISSED, None))


def digest(value: object) -> str:
    """A name for plain data, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def keep_form(form: Mapping[str, Any]) -> str:
    """Store a chart's request as a job does when it is done; the URL at which its result is then fetched."""
    cache: Any = import_module("superset.extensions").cache_manager.cache
    key = f"qc-{digest(form)}"
    cache.set(key, {"data": dict(form)})
    return f"/api/v1/chart/data/{key}"
