"""The way in: what a proxy before the web tier is told, so that it allows what the stack allows."""

from __future__ import annotations

from typing import Any

from components.route import allowances
from tests.components.stacks import recorded, topology_of


def only(stack: str, kind: str) -> dict[str, Any]:
    (found,) = (each for each in recorded(stack).manifests() if each["kind"] == kind)
    return found


def test_an_ingress_waits_as_long_and_takes_as_much_as_the_web_tier() -> None:
    web = topology_of("existing").web
    told = only("existing", "Ingress")["metadata"]["annotations"]
    assert told.items() >= allowances(web).items()
    assert int(told["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > web.request_timeout_seconds
    assert told["nginx.ingress.kubernetes.io/proxy-body-size"] == "100m"


def test_a_size_between_two_megabytes_is_allowed_whole() -> None:
    web = topology_of("existing").web.model_copy(update={"max_upload_bytes": 2**20 + 1, "request_timeout_seconds": 70})
    told = allowances(web)
    assert told["nginx.ingress.kubernetes.io/proxy-body-size"] == told["nginx.org/client-max-body-size"] == "2m"
    assert told["haproxy.org/timeout-server"] == "80s"


def test_a_gateway_waits_as_long() -> None:
    (rule,) = only("cloudnativepg", "HTTPRoute")["spec"]["rules"]
    seconds = topology_of("cloudnativepg").web.request_timeout_seconds + 10
    assert rule["timeouts"] == {"request": f"{seconds}s", "backendRequest": f"{seconds}s"}
