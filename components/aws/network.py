"""The VPC: private subnets for nodes, pods and data stores, public ones for load balancers and NAT, in stated zones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws import ec2, iam

from components.aws.common import AwsScope, allow, document, log_group, service_role
from components.aws.firewall import Firewall, FirewallArgs
from topology.aws import subnets
from topology.settings.aws import AwsNetwork

HTTPS = 443
#: The whole Internet, as the target of a route: never the source of a rule.
ANYWHERE = "0.0.0.0/0"
#: By these load balancer controllers find the subnets that they may use.
INTERNAL_LOAD_BALANCERS = {"kubernetes.io/role/internal-elb": "1"}
PUBLIC_LOAD_BALANCERS = {"kubernetes.io/role/elb": "1"}


@dataclass(frozen=True)
class NetworkRef:
    """A VPC that other components go to, whoever made it."""

    vpc_id: pulumi.Input[str]
    cidr: str
    #: Private subnets, one a zone.
    subnet_ids: Sequence[pulumi.Input[str]]


@dataclass(frozen=True)
class NetworkArgs:
    """What a VPC of the stack's own needs."""

    scope: AwsScope
    network: AwsNetwork
    #: Key of the flow logs.
    logs_key_arn: pulumi.Input[str]


class Network(pulumi.ComponentResource):
    """A VPC with a private and a public subnet in each zone, its ways out, endpoints of AWS's services, and flow logs.

    Nothing in a private subnet has a public address. The VPC's default security group lets nothing through.
    """

    ref: NetworkRef

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/network:Network", name, None, opts)
        network = args.network
        self._name, self._child = name, pulumi.ResourceOptions(parent=self)
        self._vpc = ec2.Vpc(
            name,
            cidr_block=network.cidr,
            # Endpoints are found by the services' own names.
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags={"Name": name},
            opts=self._child,
        )
        ec2.DefaultSecurityGroup(
            name, vpc_id=self._vpc.id, ingress=[], egress=[], tags={"Name": f"{name}-default-closed"}, opts=self._child
        )
        divided = subnets.divide(network.cidr, network.zones)
        private = {
            each.zone: self._subnet(f"{name}-private-{each.zone}", each.zone, each.private, INTERNAL_LOAD_BALANCERS)
            for each in divided
        }
        public = {
            each.zone: self._subnet(f"{name}-public-{each.zone}", each.zone, each.public, PUBLIC_LOAD_BALANCERS)
            for each in divided
        }
        self._route_public(public)
        tables = self._route_private(private, public, args)
        self._endpoints(args, tables, private)
        self._flow_logs(args)
        self.ref = NetworkRef(self._vpc.id, network.cidr, [subnet.id for subnet in private.values()])
        self.register_outputs({"vpc_id": self._vpc.id})

    def _subnet(self, name: str, zone: str, cidr: str, tags: Mapping[str, str]) -> ec2.Subnet:
        return ec2.Subnet(
            name,
            vpc_id=self._vpc.id,
            availability_zone=zone,
            cidr_block=cidr,
            map_public_ip_on_launch=False,
            tags={"Name": name, **tags},
            opts=self._child,
        )

    def _route_public(self, public: Mapping[str, ec2.Subnet]) -> None:
        gateway = ec2.InternetGateway(self._name, vpc_id=self._vpc.id, tags={"Name": self._name}, opts=self._child)
        table = self._table(f"{self._name}-public")
        ec2.Route(
            f"{self._name}-public-out",
            route_table_id=table.id,
            destination_cidr_block=ANYWHERE,
            gateway_id=gateway.id,
            opts=self._child,
        )
        for zone, subnet in public.items():
            self._associate(f"{self._name}-public-{zone}", table, subnet)

    def _route_private(
        self, private: Mapping[str, ec2.Subnet], public: Mapping[str, ec2.Subnet], args: NetworkArgs
    ) -> list[ec2.RouteTable]:
        """A table for each zone, so that each can go out by a gateway of its own."""
        zones = list(private)
        with_gateway = {"none": [], "one": zones[:1], "zone": zones}[args.network.nat]
        gateways = {zone: self._nat(zone, public[zone]) for zone in with_gateway}
        tables: list[ec2.RouteTable] = []
        for zone, subnet in private.items():
            name = f"{self._name}-private-{zone}"
            table = self._table(name)
            self._associate(name, table, subnet)
            if gateways:
                ec2.Route(
                    f"{name}-out",
                    route_table_id=table.id,
                    destination_cidr_block=ANYWHERE,
                    nat_gateway_id=gateways.get(zone, next(iter(gateways.values()))).id,
                    opts=self._child,
                )
            tables.append(table)
        return tables

    def _nat(self, zone: str, subnet: ec2.Subnet) -> ec2.NatGateway:
        name = f"{self._name}-nat-{zone}"
        address = ec2.Eip(name, domain="vpc", tags={"Name": name}, opts=self._child)
        return ec2.NatGateway(name, allocation_id=address.id, subnet_id=subnet.id, tags={"Name": name}, opts=self._child)

    def _table(self, name: str) -> ec2.RouteTable:
        return ec2.RouteTable(name, vpc_id=self._vpc.id, tags={"Name": name}, opts=self._child)

    def _associate(self, name: str, table: ec2.RouteTable, subnet: ec2.Subnet) -> None:
        ec2.RouteTableAssociation(name, route_table_id=table.id, subnet_id=subnet.id, opts=self._child)

    def _endpoints(self, args: NetworkArgs, tables: Sequence[ec2.RouteTable], private: Mapping[str, ec2.Subnet]) -> None:
        """S3 by a gateway, which costs nothing; the services that the stack names by interfaces, with AWS's names for them."""
        region = args.scope.region
        ec2.VpcEndpoint(
            f"{self._name}-s3",
            vpc_id=self._vpc.id,
            service_name=f"com.amazonaws.{region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in tables],
            tags={"Name": f"{self._name}-s3"},
            opts=self._child,
        )
        if not args.network.endpoints:
            return
        firewall = Firewall(
            f"{self._name}-endpoints",
            FirewallArgs(self._vpc.id, "the endpoints of AWS's services", HTTPS, networks={"vpc": args.network.cidr}),
            self._child,
        )
        for service in args.network.endpoints:
            name = f"{self._name}-{service.replace('.', '-')}"
            ec2.VpcEndpoint(
                name,
                vpc_id=self._vpc.id,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Interface",
                subnet_ids=[subnet.id for subnet in private.values()],
                security_group_ids=[firewall.group_id],
                private_dns_enabled=True,
                tags={"Name": name},
                opts=self._child,
            )

    def _flow_logs(self, args: NetworkArgs) -> None:
        name = f"{self._name}-flows"
        group = log_group(name, f"/aws/vpc/{args.scope.stack}", args.network.flow_log_days, args.logs_key_arn, self._child)
        role = service_role(
            name,
            "vpc-flow-logs.amazonaws.com",
            "Writes the VPC's flow logs",
            self._child,
            condition={"StringEquals": {"aws:SourceAccount": args.scope.account}},
        )
        iam.RolePolicy(
            name,
            role=role.name,
            policy=document(
                allow(
                    ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
                    [pulumi.Output.concat(group.arn, ":*")],
                )
            ),
            opts=self._child,
        )
        ec2.FlowLog(
            name,
            vpc_id=self._vpc.id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            max_aggregation_interval=60,
            tags={"Name": name},
            opts=self._child,
        )
