"""A stand-in for the metrics adapter: it serves the metrics of queues in `external.metrics.k8s.io` from numbers in a test."""

from __future__ import annotations

import json
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from components.autoscaler import QUEUE_METRICS
from tests.cluster.control_plane import ControlPlane

_BASE = "/apis/external.metrics.k8s.io/v1beta1"


class QueueDepths:
    """Serves `depths`, messages by queue (0 where it has none), to the API server of `cluster`."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.depths: dict[str, int] = {}
        self._cluster = cluster
        depths = self.depths

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path == _BASE:
                    kind = {"namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
                    resources = [{"name": metric, **kind} for metric in QUEUE_METRICS]
                    self._answer({"kind": "APIResourceList", "groupVersion": _BASE[6:], "resources": resources})
                elif (metric := url.path.rpartition("/")[2]) in QUEUE_METRICS:
                    selector = parse_qs(url.query).get("labelSelector", [""])[0]
                    queues = re.fullmatch(r"queue_name in \(([^)]+)\)", selector) or re.fullmatch(
                        r"queue_name=(.+)", selector
                    )
                    assert queues, f"unexpected selector {selector!r}"
                    items = [
                        {
                            "metricName": metric,
                            "metricLabels": {"queue_name": queue},
                            "timestamp": "2026-01-01T00:00:00Z",
                            "value": str(depths.get(queue, 0)),
                        }
                        for queue in queues[1].split(",")
                    ]
                    self._answer({"kind": "ExternalMetricValueList", "metadata": {}, "items": items})
                else:
                    self.send_error(404)

            def _answer(self, body: dict[str, object]) -> None:
                text = json.dumps({"apiVersion": "external.metrics.k8s.io/v1beta1" if "items" in body else "v1", **body})
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the API server asks all the time."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cluster.key("server.crt"), cluster.key("server.key"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        cluster.aggregate("external.metrics.k8s.io", "v1beta1", "queue-depths", self._server.server_port)

    def stop(self) -> None:
        self._cluster.forget("external.metrics.k8s.io", "v1beta1", "queue-depths")
        self._server.shutdown()
        self._server.server_close()
