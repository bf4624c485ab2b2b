"""Where Superset computes a chart's data: its question to the cache, its query and its storing become one `single_flight.scope`.

As shipped (6.1) nothing joins identical computations: each request that finds nothing runs its query, and a result that
cannot be stored is reported as done and then not found. Two methods are wrapped, because a cache's `get` and `set` alone do
not see whether the caller only asks, and what became of a computation that stored nothing.

Replaces `get_df_payload` of `superset.common.query_context_processor.QueryContextProcessor` and of `superset.viz.BaseViz`,
and writes a chart's form through `superset.extensions.cache_manager` (read and tested with 6.1.0; no upstream issue known).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from flask import g, has_request_context, request
from flask_babel import gettext  # pyright: ignore[reportUnknownVariableType] - its variables have no types

from runtime.environment import hooks, versions
from runtime.queries import abandoned_charts
from runtime.results import single_flight
from runtime.results.followers import digest
from runtime.superset import refusals
from topology.commands import ROLE_ENV

if TYPE_CHECKING:
    from superset.common.query_context_processor import QueryContextProcessor
    from superset.common.query_object import QueryObject
    from superset.viz import BaseViz

logger = logging.getLogger(__name__)

#: Attribute of flask.g with the identity of what this request did not find.
_MISSED = "superset_async_missed"
#: Views that fetch a result that a job has announced: they are served whatever is there.
_FETCHING = ("ChartDataRestApi.data_from_cache", "Superset.explore_json_data")
TIME_LIMIT_MESSAGE = "The query took longer than a task may."


def install() -> None:
    """Wrap the two methods, once in a process; UntestedVersionError for a Superset that they were not tried with."""
    from superset.common.query_context_processor import QueryContextProcessor
    from superset.viz import BaseViz

    versions.require(__name__)
    hooks.replace(QueryContextProcessor, "get_df_payload", __name__, partial(_in_scope, _chart))
    hooks.replace(BaseViz, "get_df_payload", __name__, partial(_in_scope, _legacy_chart))


def _in_scope(computed: Callable[..., Any], shipped: Callable[..., Any]) -> Callable[..., Any]:
    def get_df_payload(self: Any, *args: Any, **kwargs: Any) -> Any:
        return computed(shipped, self, *args, **kwargs)

    return get_df_payload


def _chart(
    shipped: Callable[..., Any], processor: QueryContextProcessor, query_obj: QueryObject, force_cached: bool | None = False
) -> Any:
    """QueryContextProcessor.get_df_payload: a failure is in its payload's `error`."""
    with single_flight.scope(probe=bool(force_cached), may_refresh=_may_refresh()) as scope:
        try:
            payload = _run(scope, lambda: shipped(processor, query_obj, force_cached))
        except single_flight.FailedError as error:
            # Superset's own exception for a payload with an error, worded as it words it.
            raise _query_failed(str(error)) from error
        finally:
            if scope.probe and scope.missed:
                _remember(_missed_keys(processor))
        if scope.refused and (scope.too_large or _must_be_stored()):
            payload["error"], payload["status"] = scope.refused, "failed"
        _finish(scope, payload["error"])
        return payload


def _legacy_chart(shipped: Callable[..., Any], viz: BaseViz, *args: Any, **kwargs: Any) -> Any:
    """BaseViz.get_df_payload: failures are in its `errors`."""
    with single_flight.scope(probe=bool(viz.force_cached), may_refresh=_may_refresh()) as scope:
        try:
            payload = _run(scope, lambda: shipped(viz, *args, **kwargs))
        except single_flight.FailedError as error:
            from superset.exceptions import SupersetException

            raise SupersetException(str(error)) from error
        if scope.refused and (scope.too_large or _must_be_stored()):
            viz.errors.append({"message": scope.refused, "error_type": "VIZ_GET_DF_ERROR", "level": "error", "extra": {}})
            viz.status = payload["status"] = "failed"
        _finish(scope, "; ".join(_message(error) for error in viz.errors) if viz.errors else None)
        return payload


def _run(scope: single_flight.Scope, compute: Callable[[], Any]) -> Any:
    try:
        return compute()
    except single_flight.BusyError as error:
        from superset.exceptions import SupersetGenericErrorException

        raise SupersetGenericErrorException(str(error), status=503) from error
    except Exception as error:
        # The next one who tried would wait as long. Other exceptions come at once, and may be this user's own (a log-in to
        # the database that is missing), so that the next one tries.
        if type(error).__name__ == "SoftTimeLimitExceeded":
            scope.end(single_flight.FAILED + TIME_LIMIT_MESSAGE.encode())
        raise


def _finish(scope: single_flight.Scope, error: str | None) -> None:
    if error and (refusals.is_refused() or abandoned_charts.is_abandoned()):
        # This request's own, or its page's that is closed: the next one tries.
        scope.end(single_flight.ALONE)
    elif error:
        scope.end(single_flight.FAILED + str(error).encode())
    elif scope.flight:
        # It has a result and did not store it: it was not to be stored, or could not be.
        scope.end(single_flight.ALONE)


def _may_refresh() -> bool:
    """Whether it leads to a computation where this request finds nothing."""
    return has_request_context() and request.endpoint not in _FETCHING


def _must_be_stored() -> bool:
    """Whether what was computed is fetched from the cache, as an asynchronous chart is."""
    return os.environ.get(ROLE_ENV) == "worker"


def _query_failed(message: str) -> Exception:
    from superset.commands.chart.exceptions import ChartDataQueryFailedError

    return ChartDataQueryFailedError(gettext("Error: %(error)s", error=message))


def _message(error: object) -> str:
    return str(cast("dict[str, Any]", error).get("message", error)) if isinstance(error, dict) else str(error)


def _missed_keys(processor: QueryContextProcessor) -> list[str] | None:
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
    setattr(g, _MISSED, keys)


def missed() -> list[str] | None:
    """The cache keys of the chart that this request did not find last, once; None where it did not ask."""
    return cast("list[str] | None", g.pop(_MISSED, None))


def keep_form(form: Mapping[str, Any]) -> str:
    """Store a chart's request as a job does when it is done; the URL at which its result is then fetched."""
    from superset.extensions import cache_manager

    key = f"qc-{digest(form)}"
    cache_manager.cache.set(key, {"data": dict(form)})
    return f"/api/v1/chart/data/{key}"
