"""Names that no model, schema or server at hand knows: from AWS's documentation and code, read on the day that `AS_OF` says.

`test_names.py` compares each kind with what the stacks name, both ways, so that a typo, or a name that is new, fails there. What
is checked by something better (botocore, CloudFormation's schemas, moto, a real server) is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

AS_OF: Final = "2026-11-27"

_CDK = "aws-cdk-lib 2.275.0"
_CONTROLLER = "kubernetes-sigs/aws-load-balancer-controller, pkg/annotations/constants.go at 00c019c"
_CACHE_METRICS = "ElastiCache User Guide, Metrics for Valkey and Redis OSS"
_RDS_METRICS = "RDS User Guide, CloudWatch instance-level metrics"
_NET_POLICY = "EKS User Guide, Use Network Policies with EKS Auto Mode"
_AUTO_ALB = "EKS User Guide, Create an IngressClass to configure an Application Load Balancer"

#: By kind: each name, and where it was read.
NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "parameter of ElastiCache": {
        "reserved-memory-percent": "ElastiCache User Guide, Engine specific parameters",
    },
    "parameter of RDS": {
        "rds.force_ssl": "RDS User Guide, Using SSL with a PostgreSQL DB instance; checkov's CKV2_AWS_69 names it too",
        "rds.accepted_password_auth_method": "RDS User Guide, Using SCRAM for PostgreSQL password encryption",
    },
    "family of parameters": {
        "valkey8": "ElastiCache User Guide, Engine specific parameters: of Valkey 8.0, 8.1 and 8.2",
        **dict.fromkeys(("postgres17", "postgres18"), "RDS User Guide: the engine and its major version"),
    },
    "add-on of EKS": {
        **dict.fromkeys(("vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent"), f"{_CDK}, aws-eks"),
        "metrics-server": "EKS User Guide, Community add-ons",
    },
    "setting of the VPC CNI": {"enableNetworkPolicy": "EKS User Guide, Restrict Pod network traffic with network policies"},
    "ConfigMap of Auto Mode": {"kube-system/amazon-vpc-cni: enable-network-policy-controller": _NET_POLICY},
    "node pool of Auto Mode": dict.fromkeys(("system", "general-purpose"), f"{_CDK}, aws-eks-v2"),
    "access policy of EKS": {"AmazonEKSClusterAdminPolicy": f"{_CDK}, aws-eks"},
    "version of Kubernetes": dict.fromkeys(("1.35", "1.36"), f"{_CDK}, aws-eks: KubernetesVersion"),
    "endpoint of a VPC": dict.fromkeys(
        (
            *("ecr.api", "ecr.dkr", "sts", "logs", "eks-auth", "ec2", "eks", "elasticloadbalancing", "kms"),
            *("secretsmanager", "s3"),
        ),
        f"{_CDK}, aws-ec2: InterfaceVpcEndpointAwsService, GatewayVpcEndpointAwsService",
    ),
    "service that assumes a role or uses a key": {
        "ec2": "EKS User Guide, Amazon EKS node IAM role",
        "logs.REGION": "CloudWatch Logs User Guide, Encrypt log data",
        **dict.fromkeys(("eks", "pods.eks", "monitoring.rds", "vpc-flow-logs", "cloudwatch"), _CDK),
    },
    "metric": {
        **dict.fromkeys(
            (
                *("AWS/ElastiCache EngineCPUUtilization CacheClusterId", "AWS/ElastiCache ReplicationLag CacheClusterId"),
                "AWS/ElastiCache DatabaseMemoryUsagePercentage CacheClusterId",
                *("AWS/ElastiCache CurrConnections CacheClusterId", "AWS/ElastiCache Evictions CacheClusterId"),
            ),
            _CACHE_METRICS,
        ),
        **dict.fromkeys(
            (
                *("AWS/RDS FreeStorageSpace DBInstanceIdentifier", "AWS/RDS DatabaseConnections DBInstanceIdentifier"),
                *("AWS/RDS CPUUtilization DBInstanceIdentifier", "AWS/RDS FreeableMemory DBInstanceIdentifier"),
                *("AWS/RDS MaximumUsedTransactionIDs DBInstanceIdentifier", "AWS/RDS CPUCreditBalance DBInstanceIdentifier"),
            ),
            _RDS_METRICS,
        ),
    },
    "path of a log group that a service writes to": {
        "/aws/eks/STACK/cluster": "EKS User Guide, Send control plane logs to CloudWatch Logs",
        **dict.fromkeys(
            ("/aws/rds/instance/STACK-metadata/postgresql", "/aws/rds/instance/STACK-metadata/upgrade"),
            "RDS User Guide, Publishing PostgreSQL logs to Amazon CloudWatch Logs",
        ),
    },
    "annotation of an Ingress": {
        **{
            f"alb.ingress.kubernetes.io/{name}": _CONTROLLER
            for name in (
                *("scheme", "target-type", "listen-ports", "certificate-arn", "ssl-policy", "inbound-cidrs"),
                *("healthcheck-path", "load-balancer-attributes"),
            )
        },
    },
    "attribute of a load balancer": dict.fromkeys(
        (
            *("idle_timeout.timeout_seconds", "routing.http.drop_invalid_header_fields.enabled"),
            "deletion_protection.enabled",
        ),
        f"{_CDK}, aws-elasticloadbalancingv2",
    ),
    "policy of TLS": {"ELBSecurityPolicy-TLS13-1-2-2021-06": f"{_CDK}, aws-elasticloadbalancingv2: SslPolicy"},
    "controller of an IngressClass": {
        "eks.amazonaws.com/alb, IngressClassParams of eks.amazonaws.com/v1": _AUTO_ALB,
        "ingress.k8s.aws/alb, IngressClassParams of elbv2.k8s.aws/v1beta1": "the same page, and the controller's apis/elbv2",
    },
    "tag of a subnet": dict.fromkeys(
        ("kubernetes.io/role/internal-elb", "kubernetes.io/role/elb"), "EKS User Guide, Tag subnets for EKS Auto Mode"
    ),
    "storage of RDS": {"gp3": f"{_CDK}, aws-rds: StorageType"},
    "authority of RDS's certificates": {"rds-ca-rsa2048-g1": f"{_CDK}, aws-rds: CaCertificate"},
}
#: Commands that ElastiCache has none of (Valkey and Redis OSS alike), and so takes in no access string.
RESTRICTED_COMMANDS: Final = (
    *("bgrewriteaof", "bgsave", "config", "debug", "migrate", "replicaof", "save", "slaveof", "shutdown", "sync"),
)
#: Words of an access list that ElastiCache takes in no access string: passwords and their absence are apart.
RESTRICTED_WORDS: Final = ("reset", "nopass", "resetpass")
