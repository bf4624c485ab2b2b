"""The way in on AWS: an Ingress that the cluster's controller makes an application load balancer of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.meta import v1 as meta
from pulumi_kubernetes.networking import v1 as networking

from components.common import SUPERSET, Scope, labels, metadata
from topology.settings.aws import LoadBalancer

#: The controllers, as an IngressClass names them, and the API group of their parameters.
CONTROLLERS = {
    "auto": ("eks.amazonaws.com/alb", "eks.amazonaws.com"),
    "controller": ("ingress.k8s.aws/alb", "elbv2.k8s.aws"),
}
#: TLS 1.2 and 1.3 with forward secrecy alone.
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
HTTPS = 443


@dataclass(frozen=True)
class WebLoadBalancerArgs:
    """What the load balancer needs."""

    scope: Scope
    load_balancer: LoadBalancer
    controller: Literal["auto", "controller"]
    #: The web tier's Service and its port.
    service: pulumi.Output[str]
    port: int
    #: Where it asks whether a pod lives.
    health_path: str
    #: Seconds that it waits for an answer: longer than the web tier itself.
    idle_seconds: int


class WebLoadBalancer(pulumi.ComponentResource):
    """One host name, over HTTPS alone, to the pods of the web tier; from the networks that the stack names, and no other.

    The class and its parameters are the stack's own, so that nobody else's Ingress shares the load balancer.
    """

    #: Where users find Superset.
    url: str

    def __init__(self, name: str, args: WebLoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/load_balancer:WebLoadBalancer", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        wanted, scope = args.load_balancer, args.scope
        object_labels = labels(scope, SUPERSET, name)
        controller, group = CONTROLLERS[args.controller]
        # Neither a class nor its parameters have a namespace, so that their name must have the stack's.
        class_name = f"{scope.stack}-alb"
        parameters = CustomResource(
            f"{name}-parameters",
            api_version=f"{group}/{'v1' if args.controller == 'auto' else 'v1beta1'}",
            kind="IngressClassParams",
            metadata=meta.ObjectMetaArgs(name=class_name, labels=object_labels),
            spec={"scheme": wanted.scheme},
            opts=child,
        )
        ingress_class = networking.IngressClass(
            f"{name}-class",
            metadata=meta.ObjectMetaArgs(name=class_name, labels=object_labels),
            spec=networking.IngressClassSpecArgs(
                controller=controller,
                parameters=networking.IngressClassParametersReferenceArgs(
                    api_group=group, kind="IngressClassParams", name=class_name, scope="Cluster"
                ),
            ),
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[parameters])),
        )
        backend = networking.IngressBackendArgs(
            service=networking.IngressServiceBackendArgs(
                name=args.service, port=networking.ServiceBackendPortArgs(number=args.port)
            )
        )
        networking.Ingress(
            name,
            metadata=metadata(scope, name, object_labels, _annotations(args)),
            spec=networking.IngressSpecArgs(
                ingress_class_name=class_name,
                rules=[
                    networking.IngressRuleArgs(
                        host=wanted.host,
                        http=networking.HTTPIngressRuleValueArgs(
                            paths=[networking.HTTPIngressPathArgs(path="/", path_type="Prefix", backend=backend)]
                        ),
                    )
                ],
                # The certificate is ACM's, not a Secret's.
                tls=[networking.IngressTLSArgs(hosts=[wanted.host])],
            ),
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[ingress_class])),
        )
        self.url = f"https://{wanted.host}"
        self.register_outputs({"url": self.url})


def _annotations(args: WebLoadBalancerArgs) -> dict[str, pulumi.Input[str]]:
    wanted = args.load_balancer
    prefix = "alb.ingress.kubernetes.io"
    return {
        # Its controller fills in the address some time later, or never where there is none: not a reason to wait here.
        "pulumi.com/skipAwait": "true",
        f"{prefix}/scheme": wanted.scheme,
        f"{prefix}/target-type": "ip",
        f"{prefix}/listen-ports": f'[{{"HTTPS": {HTTPS}}}]',
        f"{prefix}/certificate-arn": wanted.certificate_arn,
        f"{prefix}/ssl-policy": TLS_POLICY,
        f"{prefix}/inbound-cidrs": ",".join(wanted.cidrs),
        f"{prefix}/healthcheck-path": args.health_path,
        f"{prefix}/load-balancer-attributes": (
            f"idle_timeout.timeout_seconds={args.idle_seconds},"
            "routing.http.drop_invalid_header_fields.enabled=true,deletion_protection.enabled=true"
        ),
    }
