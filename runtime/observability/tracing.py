"""Traces of a query from the web tier through the broker to the worker and its database, where the stack names a collector.

Who makes the spans are OpenTelemetry's own instrumentations, of Flask, Celery, psycopg2 and redis-py. The context of a trace
goes in the headers of a task's message, which are signed as any other. Each span says which query it is about
(`superset_async.query_id`), which task, whose tenant and user, as far as `runtime.environment.json_logs` knows; log lines and
records of the audit trail have the `trace_id`.

Traces are started after a process was forked: the thread that sends spans would not be in the child. Without a collector nothing
of OpenTelemetry is imported. A collector that does not answer costs spans, and nothing else.

No span has the text of a statement or of an error, or a request's query string, unless the stack asks for it (`tracing.sql`). The
name of a database's span is the first word of its statement, if it is one of SQL's.

Leans on the attributes' names that these instrumentations give (read and tested with OpenTelemetry 1.45 and 0.66b1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from runtime.environment import json_logs
from topology.model import Topology

if TYPE_CHECKING:
    from flask import Flask
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.util.types import AttributeValue

#: Attributes that are a statement, or what somebody asked for or was told.
TEXTS = frozenset(
    {
        "db.statement",
        "db.query.text",
        "db.statement.parameters",
        "exception.message",
        "exception.stacktrace",
        "url.query",
        "url.full",
        "http.url",
    }
)
#: An attribute with path and query string.
TARGET = "http.target"
#: Starts the names of this project's own attributes.
OWN = "superset_async."
#: The system of the database's spans; a statement whose first word is none of SQL's is called so.
POSTGRESQL = "postgresql"
#: What the span of a statement may be called by itself.
SQL_WORD = re.compile(
    r"(?i)(ALTER|BEGIN|CALL|CLOSE|COMMIT|COPY|CREATE|DECLARE|DELETE|DROP|EXPLAIN|FETCH|GRANT|INSERT|LOCK|MERGE|RELEASE|RESET|REVOKE|"
    r"ROLLBACK|SAVEPOINT|SELECT|SET|SHOW|TRUNCATE|UPDATE|VALUES|WITH)"
)


def instrument(topology: Topology, app: Flask) -> None:
    """Have requests of the application make spans in the processes in which traces are started, where the stack has any.

    Flask takes no more functions once it has answered a request, and it has before it is forked.
    """
    if topology.tracing.endpoint is None:
        return
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    FlaskInstrumentor().instrument_app(app)


def start(topology: Topology, role: str) -> Callable[[], None] | None:
    """Trace this process from now on; what ends that, with its last spans sent. None where nothing is traced."""
    settings = topology.tracing
    if settings.endpoint is None:
        return None
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.psycopg2 import Psycopg2Instrumentor
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Span, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    class Processor(BatchSpanProcessor):
        """Says of each span what it is about, as soon as that is known."""

        def on_start(self, span: Span, parent_context: Any = None) -> None:
            span.set_attributes(about(json_logs.known()))
            super().on_start(span, parent_context)

    class Exporter(SpanExporter):
        """Sends what may be told of spans."""

        def __init__(self) -> None:
            self._sender = OTLPSpanExporter(endpoint=f"{(settings.endpoint or '').rstrip('/')}/v1/traces")

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return self._sender.export(spans if settings.sql else [told(span) for span in spans])

        def shutdown(self) -> None:
            self._sender.shutdown()

    names = {"service.name": f"superset-{role}", "service.namespace": topology.stack}
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(settings.ratio)), resource=Resource.create(names))
    provider.add_span_processor(Processor(Exporter()))
    trace.set_tracer_provider(provider)
    json_logs.listeners[:] = [lambda known: trace.get_current_span().set_attributes(about(known))]
    json_logs.trace_ids[:] = [_trace_id]
    CeleryInstrumentor().instrument(tracer_provider=provider)
    RedisInstrumentor().instrument(tracer_provider=provider)
    # It knows the driver by the name of another package.
    Psycopg2Instrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
    return provider.shutdown


def about(known: Mapping[str, object]) -> dict[str, AttributeValue]:
    """What is known, as a span's attributes."""
    return {f"{OWN}{name}": str(value) for name, value in known.items() if name not in {"trace_id", "duration"}}


def told(span: ReadableSpan) -> ReadableSpan:
    """The span without the texts of statements, errors and query strings."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace.status import Status

    attributes = shown(span.attributes or {})
    is_sql = attributes.get("db.system") == POSTGRESQL
    return ReadableSpan(
        name=POSTGRESQL if is_sql and not SQL_WORD.fullmatch(span.name) else span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=[Event(each.name, shown(each.attributes or {}), each.timestamp) for each in span.events],
        links=span.links,
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def shown(attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    """The attributes that may be told."""
    found = {name: value for name, value in attributes.items() if name not in TEXTS}
    if TARGET in found:
        found[TARGET] = str(found[TARGET]).partition("?")[0]
    return found


def _trace_id() -> str:
    from opentelemetry import trace

    context = cast(Any, trace.get_current_span()).get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
