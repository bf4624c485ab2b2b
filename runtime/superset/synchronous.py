"""What a request waits for an analytic database for: bounded, limited and recorded; and SQL Lab's queries go to workers.

As shipped (Superset 6.1) a web thread executes whatever is not asynchronous, as many at once as there are threads: queries with
`runAsync: false`, samples, filter values, a chart's CSV, names of tables. Here

- a query of SQL Lab is always executed by a worker, admitted like any other; a synchronous request waits for its end;
- all else is executed in the request, for `SQLLAB_TIMEOUT` seconds at most, which the database enforces, and is written into the
  table of executions when it has ended, with the queue `web`;
- both take a slot of their process (`runtime.queries.web_slots`), and the second counts among the principal's queries in flight,
  but for the names of schemas and tables, which have slots of their own: who waits for a query may look at what there is, and
  whoever executes one is not refused because others look.

Replaces `get_inspector` and `_get_sqla_engine` of `superset.models.core.Database`, whose engines make a connection for each use,
and `SynchronousSqlJsonExecutor` in `superset.sqllab.api` through `runtime.superset.submission`; listens to SQLAlchemy's events
do_connect and close (read and tested with Superset 6.1.0 and SQLAlchemy 1.4.54; no upstream issue known).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from flask import current_app, g, has_request_context, request

from runtime.environment import counters, hooks, metadata_database, process_topology, versions
from runtime.queries import admission, chart_jobs, executions, web_slots
from runtime.queries.admission import Refusal
from runtime.queries.interfaces import OPEN_STATES
from runtime.queries.web_slots import Slots
from runtime.superset import principals, refusals, stops
from runtime.tenants.identity import current_tenant_id
from topology import metric_names
from topology.commands import ROLE_ENV

if TYPE_CHECKING:
    from superset.models.sql_lab import Query

logger = logging.getLogger(__name__)

#: What executions of the web tier have for the name of a queue.
QUEUE = "web"
#: Between two looks at a query that a request waits for.
LOOK_SECONDS = 0.1
#: A request counts for so long beyond its limit where its process has ended without saying so.
LATE_SECONDS = 30
#: Attribute of flask.g: this request has its slot.
_HAS_SLOT = "superset_async_slot"
#: Who asks for names waits for one of their slots so long: each chart of a dashboard may ask for its database's default schema.
NAMES_SECONDS = 10.0
_inspects: ContextVar[bool] = ContextVar("inspects", default=False)
#: Starts the endpoints that list what is in a database: Flask-AppBuilder calls them by the name of Superset's class.
_NAMES = "DatabaseRestApi."
#: Where a connection's record in the pool has what ends with it.
_ENDS = "superset_async_ends"


def install() -> None:
    """Have this web process wait so; UntestedVersionError for a Superset of another version."""
    from superset.models.core import Database

    versions.require(__name__, "apache-superset", "sqlalchemy")
    hooks.replace(Database, "_get_sqla_engine", __name__, _gated)
    hooks.replace(Database, "get_inspector", __name__, _inspected)


def seconds() -> int | None:
    """How long a statement of this process may take where it is executed in a request of the web tier, else None."""
    if os.environ.get(ROLE_ENV) != "web" or not has_request_context():
        return None
    return int(current_app.config["SQLLAB_TIMEOUT"])


@cache
def _slots(*, names: bool) -> Slots:
    threads = process_topology.started().web.threads
    return Slots(web_slots.most_for_names(threads) if names else web_slots.most(threads))


@contextmanager
def slot(*, names: bool = False) -> Generator[str]:
    """A slot of this process for the principal of this request, who is given; a Refusal, as Superset's, where there is none.

    Those for names are others, and come with patience.
    """
    principal, slots = principals.current(), _slots(names=names)
    if not slots.take(principal, NAMES_SECONDS if names else 0.0):
        raise _refused(admission.no_thread(slots.most))
    # Its own object: a connection that nobody closes is given back by the collector, in whatever request that is.
    context: Any = cast(Any, g)._get_current_object()
    setattr(context, _HAS_SLOT, True)
    try:
        yield principal
    finally:
        setattr(context, _HAS_SLOT, False)
        slots.give_back(principal)


def _refused(refusal: Refusal) -> Exception:
    counters.count(metric_names.REFUSED, reason=refusal.reason, queue=QUEUE)
    return refusals.superset_error(refusal)


def _gated(shipped: Callable[..., Any]) -> Callable[..., Any]:
    """Engines whose connections are bounded, from before they are made until they are closed; a request's first one counts."""
    from sqlalchemy import event

    def _get_sqla_engine(self: Any, *args: Any, **kwargs: Any) -> Any:
        engine, name = shipped(self, *args, **kwargs), str(self.database_name)

        def connect(dialect: Any, record: Any, arguments: Any, parameters: Any) -> Any:
            if not has_request_context() or getattr(g, _HAS_SLOT, False):
                return None
            with ExitStack() as stack:
                names = _lists_names()
                principal = stack.enter_context(slot(names=names))
                if not names:
                    stack.enter_context(_counted(principal))
                stack.enter_context(_recorded(name))
                connection = dialect.connect(*arguments, **parameters)
                record.info[_ENDS] = stack.pop_all()
                return connection

        def close(_: object, record: Any) -> None:
            ends = cast("ExitStack | None", record.info.pop(_ENDS, None))
            if ends is not None:
                # Told what the block in which it is closed ends with.
                ends.__exit__(*sys.exc_info())

        event.listen(engine, "do_connect", connect)
        event.listen(engine, "close", close)
        return engine

    return _get_sqla_engine


def _lists_names() -> bool:
    """Whether it is asked what there is in a database (schemas, tables, columns), and nothing of the user's is executed."""
    return _inspects.get() or (request.endpoint or "").startswith(_NAMES)


def _inspected(shipped: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def get_inspector(self: Any, *args: Any, **kwargs: Any) -> Generator[Any]:
        token = _inspects.set(True)
        try:
            with shipped(self, *args, **kwargs) as inspector:
                yield inspector
        finally:
            _inspects.reset(token)

    return get_inspector


@contextmanager
def _counted(principal: str) -> Generator[None]:
    """Count this request among the principal's queries in flight; refused beyond the bound, and never without Redis."""
    name = uuid.uuid4().hex
    try:
        with metadata_database.transaction() as connection:
            in_flight = principals.in_flight(connection, principal, QUEUE)
            bounds = process_topology.current().resilience
            refusal = admission.beyond(bounds, QUEUE, 0, in_flight)
            if refusal is None:
                chart_jobs.begin_request(principal, name, (seconds() or 0) + LATE_SECONDS)
    except Refusal as full:
        refusal = full
    except Exception:
        logger.warning("a request could not be counted", exc_info=True)
        refusal = None
    if refusal is not None:
        raise _refused(refusal)
    try:
        yield
    finally:
        try:
            chart_jobs.end_request(principal, name)
        except Exception:
            logger.warning("a request counts for %s s more", LATE_SECONDS, exc_info=True)


@contextmanager
def _recorded(database_name: str) -> Generator[None]:
    """Write what was executed, and for whom, once it has ended: a process that is gone leaves nothing that runs for ever."""
    execution = executions.Execution(
        kind="request",
        subject=uuid.uuid4().hex,
        task_id="",
        tenant=current_tenant_id(),
        queue=QUEUE,
        username=principals.username(),
        database_name=database_name,
        writes=False,
        worker=socket.gethostname(),
        submitted_at=time.time(),
    )
    outcome: executions.Outcome = "success"
    try:
        yield
    except Exception:
        outcome = "failed"
        raise
    finally:
        try:
            with metadata_database.transaction() as connection:
                executions.write_ended(connection, execution, outcome)
        except Exception:
            logger.warning("an execution of the web tier was not recorded", exc_info=True)


def wait(query: Query) -> dict[str, Any]:
    """What a worker has made of a submitted query: Superset's payload of its rows.

    Raises Superset's exceptions: the query's own errors; and a timeout after `SQLLAB_TIMEOUT` seconds, when it is stopped.
    """
    from superset.commands.sql_lab.results import SqlExecutionResultsCommand
    from superset.exceptions import SupersetCancelQueryException
    from superset.extensions import db

    until = time.monotonic() + (seconds() or 0)
    query_id, client_id = query.id, str(query.client_id)
    while _state(query_id) in OPEN_STATES:
        if time.monotonic() > until:
            try:
                stops.stop_query(client_id)
            except SupersetCancelQueryException:
                # It has ended in this moment.
                break
            raise _too_long(query)
        time.sleep(LOOK_SECONDS)
    db.session.refresh(query)
    if query.status != "success":
        raise _failed(query)
    if not query.results_key:
        # CREATE TABLE AS has no rows.
        nothing = dict.fromkeys(("data", "columns", "selected_columns", "expanded_columns"), cast("list[Any]", []))
        return {"status": query.status, "query_id": query_id, "query": query.to_dict(), **nothing}
    return SqlExecutionResultsCommand(str(query.results_key)).run()


def _state(query_id: int) -> str:
    """A query's state, without a transaction that is kept while a request waits."""
    from superset.extensions import db

    session = db.session
    state = session.connection().exec_driver_sql("SELECT status FROM query WHERE id = %s", cast(Any, (query_id,))).scalar()
    session.commit()
    return str(state)


def _too_long(query: Query) -> Exception:
    from superset.errors import ErrorLevel, SupersetErrorType
    from superset.exceptions import SupersetTimeoutException

    message = (
        f"This query was stopped: a request waits {seconds()} seconds for one at most. Run it asynchronously (runAsync: true). "
        "If it writes, look first at what it has written."
    )
    return SupersetTimeoutException(SupersetErrorType.SQLLAB_TIMEOUT_ERROR, message, ErrorLevel.ERROR)


def _failed(query: Query) -> Exception:
    from superset.errors import SupersetError
    from superset.exceptions import SupersetErrorsException, SupersetGenericDBErrorException

    errors = cast("list[dict[str, Any]]", query.extra.get("errors") or [])
    if errors:
        return SupersetErrorsException([SupersetError(**error) for error in errors])
    return SupersetGenericDBErrorException(query.error_message or f"The query has ended: {query.status}.")


def again(query: Query) -> Query:
    """Have a worker execute a read anew, as a query of the user of this request; that query, which has ended with rows.

    Raises Superset's exceptions.
    """
    from superset.sqllab import api
    from superset.sqllab.sqllab_execution_context import SqlJsonExecutionContext

    # What a template was filled with is not kept; what it became is.
    templated = "{{" in (query.sql or "") or "{%" in (query.sql or "")
    asked = {
        "database_id": query.database_id,
        "catalog": query.catalog,
        "schema": query.schema,
        "sql": query.executed_sql if templated else query.sql,
        "queryLimit": query.limit,
        "runAsync": False,
        "client_id": uuid.uuid4().hex[:11],
        "sql_editor_id": query.sql_editor_id,
        "tab": query.tab_name,
    }
    context = SqlJsonExecutionContext(asked)
    cast(Any, api.SqlLabRestApi)._create_sql_json_command(context, None).run()
    return context.query
