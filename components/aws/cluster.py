"""EKS: a cluster with its keys, logs, nodes, add-ons and administrators, and how a Kubernetes provider reaches it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws import ec2, eks, iam

from components.aws.common import AwsScope, CustomerKey, CustomerKeyArgs, allow, document, log_group, service_role
from components.aws.network import NetworkRef
from topology.aws import catalogue
from topology.settings.aws import AwsCluster

#: Logs of the control plane: all that there are.
LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")
#: Addresses of Services; the cluster's DNS is the tenth of them.
SERVICE_CIDR = "172.20.0.0/16"
DNS_ADDRESS = "172.20.0.10/32"
CLUSTER_ADMIN = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
#: What EKS itself needs to make nodes, volumes, load balancers and addresses, with Auto Mode and without.
AUTO_CLUSTER_POLICIES = (
    "AmazonEKSClusterPolicy",
    "AmazonEKSComputePolicy",
    "AmazonEKSBlockStoragePolicy",
    "AmazonEKSLoadBalancingPolicy",
    "AmazonEKSNetworkingPolicy",
)
MANAGED_CLUSTER_POLICIES = ("AmazonEKSClusterPolicy",)
AUTO_NODE_POLICIES = ("AmazonEKSWorkerNodeMinimalPolicy", "AmazonEC2ContainerRegistryPullOnly")
MANAGED_NODE_POLICIES = (*AUTO_NODE_POLICIES, "AmazonEKS_CNI_Policy")
#: Node pools of Auto Mode: one for the cluster's own pods, one for all others.
AUTO_NODE_POOLS = ("system", "general-purpose")
#: Add-ons that nodes need before they are ready, and those that run on nodes. Auto Mode has all but the last built in.
NODE_ADDONS = ("vpc-cni", "kube-proxy", "eks-pod-identity-agent")
POD_ADDONS = ("coredns",)
#: Gives the scalers the CPU that pods use.
METRICS_ADDON = "metrics-server"
#: NetworkPolicies are stored, and enforced only where this is said.
ADDON_CONFIGURATION = {"vpc-cni": {"enableNetworkPolicy": "true"}}
NODE_DISK_GIB = 50
AMI_TYPES = {"x86_64": "AL2023_x86_64_STANDARD", "arm64": "AL2023_ARM_64_STANDARD"}


@dataclass(frozen=True)
class ClusterRef:
    """A cluster that other components belong to, whoever made it."""

    name: pulumi.Input[str]
    #: The security group of its nodes and pods.
    security_group_id: pulumi.Input[str]
    #: How a client reaches its API server; None where the environment says it.
    kubeconfig: pulumi.Output[str] | None


@dataclass(frozen=True)
class ClusterArgs:
    """What a cluster of the stack's own needs."""

    scope: AwsScope
    cluster: AwsCluster
    network: NetworkRef
    logs_key_arn: pulumi.Input[str]


class Cluster(pulumi.ComponentResource):
    """An EKS cluster whose Secrets are encrypted by a key of its own, and whose every control-plane log is kept.

    Whoever deploys it first administers it, and so do the roles that the stack names; access entries, and no ConfigMap, say so.
    """

    ref: ClusterRef

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("superset-async:aws/cluster:Cluster", name, None, opts)
        self._name, self._args, self._child = name, args, pulumi.ResourceOptions(parent=self)
        auto = args.cluster.compute == "auto"
        key = CustomerKey(f"{name}-secrets", CustomerKeyArgs(args.scope, "Secrets of the cluster"), self._child)
        role = service_role(
            f"{name}-control-plane",
            "eks.amazonaws.com",
            "The cluster's control plane",
            self._child,
            managed_policies=self._managed(AUTO_CLUSTER_POLICIES if auto else MANAGED_CLUSTER_POLICIES),
            tag_session=auto,
        )
        may_encrypt = iam.RolePolicy(
            f"{name}-control-plane-key",
            role=role.name,
            policy=document(allow(["kms:Encrypt", "kms:Decrypt", "kms:ListGrants", "kms:DescribeKey"], [key.arn])),
            opts=self._child,
        )
        nodes = service_role(
            f"{name}-nodes",
            "ec2.amazonaws.com",
            "The cluster's nodes",
            self._child,
            managed_policies=self._managed(AUTO_NODE_POLICIES if auto else MANAGED_NODE_POLICIES),
        )
        # EKS writes to the group of this name, and would make one that keeps events for ever.
        logs = log_group(
            f"{name}-logs", f"/aws/eks/{args.scope.stack}/cluster", args.cluster.log_days, args.logs_key_arn, self._child
        )
        public = list(args.cluster.public_cidrs)
        cluster = eks.Cluster(
            name,
            name=args.scope.stack,
            version=args.cluster.version,
            role_arn=role.arn,
            vpc_config=eks.ClusterVpcConfigArgs(
                subnet_ids=list(args.network.subnet_ids),
                endpoint_private_access=True,
                endpoint_public_access=bool(public),
                public_access_cidrs=public or None,
            ),
            access_config=eks.ClusterAccessConfigArgs(
                authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True
            ),
            encryption_config=eks.ClusterEncryptionConfigArgs(
                provider=eks.ClusterEncryptionConfigProviderArgs(key_arn=key.arn), resources=["secrets"]
            ),
            enabled_cluster_log_types=list(LOG_TYPES),
            kubernetes_network_config=eks.ClusterKubernetesNetworkConfigArgs(
                service_ipv4_cidr=SERVICE_CIDR,
                elastic_load_balancing=eks.ClusterKubernetesNetworkConfigElasticLoadBalancingArgs(enabled=True)
                if auto
                else None,
            ),
            compute_config=eks.ClusterComputeConfigArgs(
                enabled=True, node_pools=list(AUTO_NODE_POOLS), node_role_arn=nodes.arn
            )
            if auto
            else None,
            storage_config=eks.ClusterStorageConfigArgs(block_storage=eks.ClusterStorageConfigBlockStorageArgs(enabled=True))
            if auto
            else None,
            # Add-ons are stated here, none is there by default.
            bootstrap_self_managed_addons=False,
            deletion_protection=True,
            # Not later, at a price, than the version's standard support.
            upgrade_policy=eks.ClusterUpgradePolicyArgs(support_type="STANDARD"),
            zonal_shift_config=eks.ClusterZonalShiftConfigArgs(enabled=True),
            tags={"Name": name},
            opts=pulumi.ResourceOptions.merge(
                self._child, pulumi.ResourceOptions(depends_on=[logs, may_encrypt], protect=True)
            ),
        )
        self._administrators(cluster)
        ready = self._managed_nodes(cluster, nodes) if args.cluster.compute == "managed" else [cluster]
        self._addon(cluster, METRICS_ADDON, ready)
        self.ref = ClusterRef(
            cluster.name,
            cluster.vpc_config.apply(lambda found: found.cluster_security_group_id or ""),
            pulumi.Output.all(
                name=cluster.name,
                endpoint=cluster.endpoint,
                authority=cluster.certificate_authority.apply(lambda found: found.data or ""),
            ).apply(lambda known: kubeconfig(args.scope.region, known["name"], known["endpoint"], known["authority"])),
        )
        self.register_outputs({"name": cluster.name})

    def _managed(self, policies: Sequence[str]) -> list[str]:
        return [self._args.scope.managed_policy(policy) for policy in policies]

    def _administrators(self, cluster: eks.Cluster) -> None:
        for principal in self._args.cluster.administrators:
            name = f"{self._name}-admin-{principal.rpartition('/')[2].lower()}"
            entry = eks.AccessEntry(
                name, cluster_name=cluster.name, principal_arn=principal, type="STANDARD", opts=self._child
            )
            eks.AccessPolicyAssociation(
                name,
                cluster_name=cluster.name,
                principal_arn=entry.principal_arn,
                policy_arn=CLUSTER_ADMIN,
                access_scope=eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
                opts=self._child,
            )

    def _managed_nodes(self, cluster: eks.Cluster, role: iam.Role) -> Sequence[pulumi.Resource]:
        """One group of nodes over all zones, with encrypted disks, whose pods cannot take the node's own credentials."""
        wanted = self._args.cluster
        name = f"{self._name}-nodes"
        needed = [self._addon(cluster, addon, [cluster]) for addon in NODE_ADDONS]
        template = ec2.LaunchTemplate(
            name,
            update_default_version=True,
            metadata_options=ec2.LaunchTemplateMetadataOptionsArgs(
                # One hop is as far as the node itself.
                http_endpoint="enabled",
                http_tokens="required",
                http_put_response_hop_limit=1,
            ),
            block_device_mappings=[
                ec2.LaunchTemplateBlockDeviceMappingArgs(
                    device_name="/dev/xvda",
                    ebs=ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                        encrypted="true", volume_type="gp3", volume_size=NODE_DISK_GIB, delete_on_termination="true"
                    ),
                )
            ],
            tag_specifications=[ec2.LaunchTemplateTagSpecificationArgs(resource_type="instance", tags={"Name": name})],
            tags={"Name": name},
            opts=self._child,
        )
        group = eks.NodeGroup(
            name,
            cluster_name=cluster.name,
            node_role_arn=role.arn,
            subnet_ids=list(self._args.network.subnet_ids),
            ami_type=AMI_TYPES[catalogue.architecture(wanted.instance_types[0])],
            instance_types=list(wanted.instance_types),
            scaling_config=eks.NodeGroupScalingConfigArgs(
                min_size=wanted.min_nodes, max_size=wanted.max_nodes, desired_size=wanted.min_nodes
            ),
            update_config=eks.NodeGroupUpdateConfigArgs(max_unavailable=1),
            node_repair_config=eks.NodeGroupNodeRepairConfigArgs(enabled=True),
            launch_template=eks.NodeGroupLaunchTemplateArgs(id=template.id, version=template.latest_version.apply(str)),
            tags={"Name": name},
            opts=pulumi.ResourceOptions.merge(
                self._child,
                # How many there are is changed by whoever scales them.
                pulumi.ResourceOptions(depends_on=needed, ignore_changes=["scalingConfig.desiredSize"]),
            ),
        )
        return [group, *(self._addon(cluster, addon, [group]) for addon in POD_ADDONS)]

    def _addon(self, cluster: eks.Cluster, addon: str, after: Sequence[pulumi.Resource]) -> eks.Addon:
        configuration = ADDON_CONFIGURATION.get(addon)
        return eks.Addon(
            f"{self._name}-{addon}",
            cluster_name=cluster.name,
            addon_name=addon,
            configuration_values=json.dumps(configuration) if configuration else None,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            opts=pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=list(after))),
        )


def kubeconfig(region: str, name: str, endpoint: str, authority: str) -> str:
    """How kubectl and the Kubernetes provider reach the cluster: with a token that `aws eks get-token` makes when it is needed.

    It holds no secret.
    """
    user = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "aws",
        "args": ["eks", "get-token", "--cluster-name", name, "--region", region, "--output", "json"],
        "interactiveMode": "Never",
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": endpoint, "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"exec": user}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )
