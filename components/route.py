"""The way in from outside the cluster: an Ingress, or an HTTPRoute of a Gateway that exists."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.networking import v1 as networking

from components.common import SUPERSET, Scope, labels, metadata
from components.web import proxy_seconds
from topology.model import Web
from topology.settings.web import Route


@dataclass(frozen=True)
class WebRouteArgs:
    """What the route needs."""

    scope: Scope
    route: Route
    #: The web tier's Service.
    service: pulumi.Output[str]
    #: Its port, and what it allows: a proxy that allows less answers in its place.
    web: Web


class WebRoute(pulumi.ComponentResource):
    """One host name, over HTTPS, to the web tier."""

    #: Where users find Superset.
    url: str

    def __init__(self, name: str, args: WebRouteArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:route:WebRoute", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        object_labels = labels(args.scope, SUPERSET, name)
        if args.route.kind == "ingress":
            _ingress(name, args, object_labels, child)
        else:
            _http_route(name, args, object_labels, child)
        self.url = f"https://{args.route.host}"
        self.register_outputs({"url": self.url})


def allowances(web: Web) -> dict[str, str]:
    """What controllers of an Ingress must be told to wait as long and take as much as `web`; each heeds its own annotations.

    Without them nginx answers 504 after 60 s and 413 over 1 MB. Names and units: the annotation pages of ingress-nginx, F5's
    NGINX Ingress Controller, HAProxy's and Azure's Application Gateway's.
    """
    seconds, megabytes = proxy_seconds(web), -(-web.max_upload_bytes // 2**20)
    return {
        "nginx.ingress.kubernetes.io/proxy-read-timeout": f"{seconds}",
        "nginx.ingress.kubernetes.io/proxy-send-timeout": f"{seconds}",
        "nginx.ingress.kubernetes.io/proxy-body-size": f"{megabytes}m",
        "nginx.org/proxy-read-timeout": f"{seconds}s",
        "nginx.org/proxy-send-timeout": f"{seconds}s",
        "nginx.org/client-max-body-size": f"{megabytes}m",
        "haproxy.org/timeout-server": f"{seconds}s",
        "appgw.ingress.kubernetes.io/request-timeout": f"{seconds}",
    }


def _ingress(name: str, args: WebRouteArgs, object_labels: dict[str, str], opts: pulumi.ResourceOptions) -> None:
    route = args.route
    backend = networking.IngressBackendArgs(
        service=networking.IngressServiceBackendArgs(
            name=args.service, port=networking.ServiceBackendPortArgs(number=args.web.port)
        )
    )
    networking.Ingress(
        name,
        # Its controller fills in the address some time later, or never where there is none: not a reason to wait here.
        metadata=metadata(args.scope, name, object_labels, {"pulumi.com/skipAwait": "true", **allowances(args.web)}),
        spec=networking.IngressSpecArgs(
            ingress_class_name=route.parent,
            tls=[networking.IngressTLSArgs(hosts=[route.host], secret_name=route.tls_secret_name)],
            rules=[
                networking.IngressRuleArgs(
                    host=route.host,
                    http=networking.HTTPIngressRuleValueArgs(
                        paths=[networking.HTTPIngressPathArgs(path="/", path_type="Prefix", backend=backend)]
                    ),
                )
            ],
        ),
        opts=opts,
    )


def _http_route(name: str, args: WebRouteArgs, object_labels: dict[str, str], opts: pulumi.ResourceOptions) -> None:
    namespace, _, gateway = args.route.parent.partition("/")
    seconds = proxy_seconds(args.web)
    CustomResource(
        name,
        api_version="gateway.networking.k8s.io/v1",
        kind="HTTPRoute",
        metadata=metadata(args.scope, name, object_labels),
        spec={
            "hostnames": [args.route.host],
            "parentRefs": [{"name": gateway, "namespace": namespace}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "timeouts": {"request": f"{seconds}s", "backendRequest": f"{seconds}s"},
                    "backendRefs": [{"name": args.service, "port": args.web.port}],
                }
            ],
        },
        opts=opts,
    )
