"""Run in Superset's environment: prints the spans that a collector was sent, read by OpenTelemetry's own protocol definitions."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def main() -> None:
    """Print them as one line of JSON: service, name, kind, ids, attributes and what they have of events."""
    spans: list[dict[str, Any]] = []
    for path in sorted(Path(sys.argv[1]).glob("*.otlp")):
        body = path.read_bytes()
        request = ExportTraceServiceRequest.FromString(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        for of_process in request.resource_spans:
            service = _attributes(of_process.resource.attributes)["service.name"]
            for scope in of_process.scope_spans:
                spans += [
                    {
                        "service": service,
                        "scope": scope.scope.name,
                        "name": span.name,
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "attributes": _attributes(span.attributes),
                        "events": [_attributes(event.attributes) for event in span.events],
                        "status": span.status.message,
                    }
                    for span in scope.spans
                ]
    print(json.dumps(spans))


def _attributes(pairs: Any) -> dict[str, Any]:
    found = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
    return {name: value if isinstance(value, str | int | float | bool) else str(value) for name, value in found.items()}


if __name__ == "__main__":
    main()
