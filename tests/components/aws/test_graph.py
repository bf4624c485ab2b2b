"""What every stack on AWS is: nothing public, everything encrypted, only the ports that are needed, and hard to lose."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from components.aws.common import KEY_DELETION_DAYS
from infra import recording
from infra.recording import Resource
from ops import estimate
from policies.evaluation import evaluate
from policies.graph import from_recording
from tests.components.aws.calls import documents
from tests.components.aws.stacks import STACKS, config_of, of_kind, on_aws, recorded, topology_of
from topology.platforms.aws.network import NEEDED_ENDPOINTS

pytestmark = pytest.mark.thorough

each_stack = pytest.mark.parametrize("stack", STACKS)


def dependencies(stack: str, resource: Resource) -> set[str]:
    """The URNs of all that a resource waits for, however far off: a child waits for its parent and what that waits for."""
    by_urn = {each.urn: each for each in recorded(stack).resources}
    found: set[str] = set()
    left = [*resource.dependencies, resource.parent]
    while left:
        urn = left.pop()
        if urn not in found and urn in by_urn:
            found.add(urn)
            left += [*by_urn[urn].dependencies, by_urn[urn].parent]
    return found


@each_stack
def test_nothing_is_public(stack: str) -> None:
    assert all(not each.inputs["publiclyAccessible"] for each in of_kind(stack, "Instance"))
    assert all(not each.inputs["mapPublicIpOnLaunch"] for each in of_kind(stack, "Subnet"))
    for rule in of_kind(stack, "SecurityGroupIngressRule"):
        assert rule.inputs.get("cidrIpv4") in (None, topology_of(stack).on_aws().network.cidr)
    for block in of_kind(stack, "BucketPublicAccessBlock"):
        assert all(value for key, value in block.inputs.items() if key.startswith(("block", "ignore", "restrict")))
    for cluster in of_kind(stack, "Cluster"):
        vpc = cluster.inputs["vpcConfig"]
        assert vpc["endpointPrivateAccess"]
        assert vpc["endpointPublicAccess"] == bool(vpc.get("publicAccessCidrs"))
        assert "0.0.0.0/0" not in vpc.get("publicAccessCidrs", [])
    for group in of_kind(stack, "DefaultSecurityGroup"):
        assert (group.inputs["ingress"], group.inputs["egress"]) == ([], [])


@each_stack
def test_servers_are_in_private_subnets(stack: str) -> None:
    private = {
        f"Subnet.{each.name}"
        for each in of_kind(stack, "Subnet")
        if "kubernetes.io/role/internal-elb" in each.inputs["tags"]
    }
    existing = topology_of(stack).on_aws().network.existing
    expected = set(existing.subnet_ids) if existing else private
    assert len(expected) >= 2
    for group in of_kind(stack, "SubnetGroup"):
        assert set(group.inputs["subnetIds"]) == expected
    for cluster in of_kind(stack, "Cluster"):
        assert set(cluster.inputs["vpcConfig"]["subnetIds"]) == expected


@each_stack
def test_everything_is_encrypted_by_a_key_of_the_stacks_own(stack: str) -> None:
    keys = {f"arn:aws:kms:replace-me:000000000000:{each.name}" for each in of_kind(stack, "Key")}
    used = [
        *(each.inputs["kmsKeyId"] for each in of_kind(stack, "ReplicationGroup")),
        *(each.inputs["kmsKeyId"] for each in of_kind(stack, "Instance")),
        *(each.inputs["performanceInsightsKmsKeyId"] for each in of_kind(stack, "Instance")),
        *(each.inputs["kmsKeyId"] for each in of_kind(stack, "LogGroup")),
        *(each.inputs["kmsMasterKeyId"] for each in of_kind(stack, "Topic")),
        *(each.inputs["encryptionConfig"]["provider"]["keyArn"] for each in of_kind(stack, "Cluster")),
        *(each.inputs["encryptionConfigurations"][0]["kmsKey"] for each in of_kind(stack, "Repository")),
        *(
            each.inputs["rules"][0]["applyServerSideEncryptionByDefault"]["kmsMasterKeyId"]
            for each in of_kind(stack, "BucketServerSideEncryptionConfiguration")
        ),
    ]
    assert set(used) == keys, "a key that is not used, or something that is not encrypted by one"
    for key in of_kind(stack, "Key"):
        assert key.inputs["enableKeyRotation"]
        assert key.inputs["deletionWindowInDays"] == KEY_DELETION_DAYS
        assert key.protect
    for group in of_kind(stack, "ReplicationGroup"):
        assert group.inputs["transitEncryptionEnabled"]
        assert group.inputs["transitEncryptionMode"] == "required"
        assert group.inputs["atRestEncryptionEnabled"]
    for template in of_kind(stack, "LaunchTemplate"):
        assert all(each["ebs"]["encrypted"] == "true" for each in template.inputs["blockDeviceMappings"])
        assert template.inputs["metadataOptions"]["httpTokens"] == "required"


@each_stack
def test_each_store_opens_one_port_to_the_cluster_alone(stack: str) -> None:
    rules = {
        (rule.inputs["securityGroupId"], rule.inputs["fromPort"], rule.inputs["toPort"])
        for rule in of_kind(stack, "SecurityGroupIngressRule")
        if "referencedSecurityGroupId" in rule.inputs
    }
    topology = topology_of(stack)
    stores = {instance.name: instance.port for instance in topology.redis} | {"postgres": topology.postgres.port}
    assert rules == {(f"SecurityGroup.{name}", port, port) for name, port in stores.items()}
    for rule in of_kind(stack, "SecurityGroupIngressRule"):
        assert rule.inputs["ipProtocol"] == "tcp"
        assert rule.inputs["description"]
    assert not of_kind(stack, "SecurityGroupEgressRule")
    for resource in (*of_kind(stack, "ReplicationGroup"), *of_kind(stack, "Instance")):
        groups = resource.inputs.get("securityGroupIds") or resource.inputs["vpcSecurityGroupIds"]
        assert groups == [f"SecurityGroup.{resource.name}"]


@each_stack
def test_what_cannot_be_made_again_is_protected(stack: str) -> None:
    protected = {(each.type.rpartition(":")[2], each.name) for each in on_aws(stack) if each.protect}
    broker = next(instance.name for instance in topology_of(stack).redis if instance.carries_broker)
    assert {("ReplicationGroup", broker), ("Instance", "postgres")} <= protected
    for instance in of_kind(stack, "Instance"):
        assert instance.inputs["deletionProtection"]
        assert not instance.inputs["skipFinalSnapshot"]
        assert instance.inputs["backupRetentionPeriod"] >= 7
        assert instance.inputs["multiAz"]
    for group in of_kind(stack, "ReplicationGroup"):
        assert group.inputs["multiAzEnabled"]
        assert group.inputs["automaticFailoverEnabled"]
        assert group.inputs["clusterMode"] == "disabled"


def parameters(stack: str, name: str) -> dict[str, Any]:
    found = next(each for each in of_kind(stack, "ParameterGroup") if each.name == name)
    return {each["name"]: each["value"] for each in found.inputs["parameters"]}


def test_a_broker_evicts_nothing_and_refuses_what_it_alone_would_hold() -> None:
    broker = parameters("aws-enterprise", "redis-broker")
    assert broker["maxmemory-policy"] == "noeviction"
    assert broker["min-replicas-to-write"] == "1"
    cache = parameters("aws-enterprise", "redis-cache")
    assert cache["maxmemory-policy"] == "volatile-lru"
    assert "min-replicas-to-write" not in cache
    # With one replica its loss would stop every submission until it is replaced.
    assert "min-replicas-to-write" not in parameters("aws-small", "redis")


@each_stack
def test_the_database_takes_tls_alone_and_the_connections_of_the_topology(stack: str) -> None:
    found = parameters(stack, "postgres")
    assert found["rds.force_ssl"] == "1"
    assert found["max_connections"] == str(topology_of(stack).postgres.max_connections)


@each_stack
def test_identities_may_do_what_they_need_with_what_they_need(stack: str) -> None:
    for policy in of_kind(stack, "RolePolicy"):
        for document in documents(policy):
            for statement in document["Statement"]:
                assert not any(action.endswith("*") for action in statement["Action"])
                assert "*" not in statement["Resource"]
    for role in of_kind(stack, "Role"):
        (document,) = documents(role)
        (statement,) = document["Statement"]
        assert list(statement["Principal"]) == ["Service"]
    topology = topology_of(stack)
    associated = {each.inputs["serviceAccount"] for each in of_kind(stack, "PodIdentityAssociation")}
    # Who connects to the metadata database reads its password; the exporter, which does not, has no role.
    assert associated == {"web", "beat", "superset-init", *(f"worker-{pool.name}" for pool in topology.pools)}


@each_stack
def test_processes_get_the_hosts_that_aws_chose(stack: str) -> None:
    manifests = recorded(stack).of_kind("ConfigMap")
    read = json.loads(manifests["superset-topology"]["data"]["topology.json"])
    for instance in read["redis"]:
        group = topology_of(stack).on_aws().group(instance["name"]).identifier
        assert instance["host"] == f"master.{group}.replace-me.cache.amazonaws.com"
        assert instance["tls"] == {"secret_name": None, "ca_file": None, "certificate": None}
    assert read["postgres"]["host"] == f"{stack}-metadata.replace-me.rds.amazonaws.com"
    assert read["postgres"]["tls"]["ca_file"].endswith(".pem")
    assert read["postgres"]["password_secret_arn"].endswith(":secret:rds!postgres")
    bucket = read["caching"]["bucket"]
    assert (bucket and bucket["name"]) == topology_of(stack).on_aws().bucket


@each_stack
def test_nothing_of_superset_starts_before_what_it_needs(stack: str) -> None:
    resources = recorded(stack).resources
    job = next(each for each in resources if each.type == "kubernetes:batch/v1:Job")
    needed = dependencies(stack, job)
    for kind in ("ReplicationGroup", "Instance"):
        for store in of_kind(stack, kind):
            assert store.urn in needed, store.name
    for deployment in (each for each in resources if each.type == "kubernetes:apps/v1:Deployment" and each.name == "web"):
        assert job.urn in dependencies(stack, deployment)


@each_stack
def test_no_secret_is_in_clear_and_passwords_are_marked(stack: str) -> None:
    for resource in on_aws(stack):
        text = json.dumps(resource.inputs)
        for path in resource.secret_paths:
            value: Any = resource.inputs
            for step in path:
                value = value[step]
            assert value
        if "replace-me-superset-" in text:
            assert resource.secret_paths, resource.name
    for instance in of_kind(stack, "Instance"):
        # RDS makes the password, and nobody here ever has it.
        assert instance.inputs["manageMasterUserPassword"]
        assert "password" not in instance.inputs
    assert "POSTGRES_PASSWORD" not in recorded(stack).of_kind("Secret")["superset-app"]["stringData"]


def test_the_policies_find_nothing_in_a_shipped_stack_but_its_placeholders() -> None:
    """Generated keys stand in it as short texts, and an example's image has no digest, which is advice: that alone is said."""
    found = {each.rule for each in evaluate(from_recording(recorded("aws-enterprise"))).findings}
    assert found <= {"secrets-key-length", "pods-image-digest"}


@each_stack
def test_what_neither_a_policy_nor_a_scanner_looks_at(stack: str) -> None:
    """Each was planted once, and noticed by nothing else."""
    for policy in of_kind(stack, "BucketPolicy"):
        ((statement,),) = [document["Statement"] for document in documents(policy)]
        assert (statement["Effect"], statement["Action"]) == ("Deny", "s3:*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert all(each.inputs["alarmActions"] for each in of_kind(stack, "MetricAlarm"))
    assert all(each.inputs["trafficType"] == "ALL" for each in of_kind(stack, "FlowLog"))
    for route in of_kind(stack, "Route"):
        way, other = ("natGatewayId", "gatewayId") if "-private-" in route.name else ("gatewayId", "natGatewayId")
        assert way in route.inputs
        assert other not in route.inputs
    for group in of_kind(stack, "ReplicationGroup"):
        assert group.inputs["subnetGroupName"] == group.name
        assert group.inputs["userGroupIds"]
        assert group.inputs["autoMinorVersionUpgrade"]
    for user in of_kind(stack, "User"):
        assert user.inputs["authenticationMode"]["type"] == "password"
        assert "-@admin -@dangerous" in user.inputs["accessString"] or "+@all" not in user.inputs["accessString"]
    for instance in of_kind(stack, "Instance"):
        assert set(instance.inputs["enabledCloudwatchLogsExports"]) == {"postgresql", "upgrade"}
        assert instance.inputs["username"] != "postgres"


@each_stack
def test_every_zone_has_its_own_way_out_and_reaches_the_endpoints(stack: str) -> None:
    tables = {each.name: f"RouteTable.{each.name}" for each in of_kind(stack, "RouteTable")}
    public = next((table for name, table in tables.items() if name.endswith("-public")), None)
    private = set(tables.values()) - {public}
    for each in of_kind(stack, "RouteTableAssociation"):
        assert each.inputs["subnetId"] == f"Subnet.{each.name}"
        assert each.inputs["routeTableId"] == tables.get(each.name, public)
    subnets = {f"Subnet.{each.name}" for each in of_kind(stack, "Subnet") if "-private-" in each.name}
    for each in of_kind(stack, "VpcEndpoint"):
        if each.inputs["vpcEndpointType"] == "Gateway":
            assert set(each.inputs["routeTableIds"]) == private
        else:
            assert each.inputs["privateDnsEnabled"]
            assert each.inputs["securityGroupIds"] == [f"SecurityGroup.{stack}-endpoints"]
            assert set(each.inputs["subnetIds"]) == subnets


@each_stack
def test_services_of_aws_act_for_this_account_and_namespace_alone(stack: str) -> None:
    planned, namespace = topology_of(stack).on_aws(), topology_of(stack).namespace
    for role in of_kind(stack, "Role"):
        ((statement,),) = [document["Statement"] for document in documents(role)]
        service = statement["Principal"]["Service"]
        if service in ("eks.amazonaws.com", "ec2.amazonaws.com"):
            # What assumes these is named by the cluster and its nodes themselves.
            continue
        equal = statement["Condition"]["StringEquals"]
        assert equal["aws:SourceAccount"] == planned.account, role.name
        if service == "pods.eks.amazonaws.com":
            assert equal["aws:RequestTag/kubernetes-namespace"] == namespace
            assert "aws:SourceArn" in statement["Condition"]["ArnEquals"]
    for key in of_kind(stack, "Key"):
        (document,) = documents(key)
        for statement in document["Statement"]:
            assert "AWS" in statement["Principal"] or statement["Condition"], key.name
    for topic in of_kind(stack, "TopicPolicy"):
        ((statement,),) = [document["Statement"] for document in documents(topic)]
        assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": planned.account}}
    for each in of_kind(stack, "RolePolicyAttachment"):
        # A policy is attached to the role that it is called after.
        assert each.name == f"{each.inputs['role']}-{each.inputs['policyArn'].rpartition('/')[2]}"


@each_stack
def test_a_cluster_keeps_its_secrets_its_nodes_and_its_policies(stack: str) -> None:
    for cluster in of_kind(stack, "Cluster"):
        assert cluster.inputs["encryptionConfig"]["resources"] == ["secrets"]
        assert cluster.inputs["deletionProtection"]
        assert cluster.protect
        assert cluster.inputs["upgradePolicy"] == {"supportType": "STANDARD"}
        assert cluster.inputs["accessConfig"]["authenticationMode"] == "API"
    addons = {each.inputs["addonName"]: each for each in of_kind(stack, "Addon")}
    for nodes in of_kind(stack, "NodeGroup"):
        needed = dependencies(stack, nodes)
        assert {addons[name].urn for name in ("vpc-cni", "kube-proxy", "eks-pod-identity-agent")} <= needed
        for name in ("coredns", "metrics-server"):
            assert nodes.urn in dependencies(stack, addons[name]), name
        assert json.loads(addons["vpc-cni"].inputs["configurationValues"]) == {"enableNetworkPolicy": "true"}
    for template in of_kind(stack, "LaunchTemplate"):
        assert template.inputs["metadataOptions"]["httpPutResponseHopLimit"] == 1


@each_stack
def test_servers_have_the_parameters_the_logs_and_the_users_that_are_made_for_them(stack: str) -> None:
    groups = {each.inputs["name"]: each for each in of_kind(stack, "LogGroup")}
    for server in (*of_kind(stack, "ReplicationGroup"), *of_kind(stack, "Instance")):
        assert server.inputs["parameterGroupName"] == server.name
        # What restarts a server waits for its window.
        assert server.inputs["applyImmediately"] is False
    for server in of_kind(stack, "Instance"):
        needed = dependencies(stack, server)
        for log in server.inputs["enabledCloudwatchLogsExports"]:
            assert groups[f"/aws/rds/instance/{server.inputs['identifier']}/{log}"].urn in needed
    for server in of_kind(stack, "ReplicationGroup"):
        delivered = {each["destination"] for each in server.inputs["logDeliveryConfigurations"]}
        assert delivered <= set(groups)
        assert {each["logType"] for each in server.inputs["logDeliveryConfigurations"]} == {"slow-log", "engine-log"}
    for group in of_kind(stack, "UserGroup"):
        instance = topology_of(stack).instance(group.name)
        identifier = topology_of(stack).on_aws().group(group.name).identifier
        assert group.inputs["userIds"] == [f"{identifier}-{user.role}" for user in instance.users]


@each_stack
def test_results_end_and_nobody_else_may_own_them(stack: str) -> None:
    for lifecycle in of_kind(stack, "BucketLifecycleConfiguration"):
        (rule,) = lifecycle.inputs["rules"]
        assert (rule["status"], rule["filter"]) == ("Enabled", {"prefix": ""})
        assert rule["expiration"] == {"days": topology_of(stack).on_aws().result_days}
    for control in of_kind(stack, "BucketOwnershipControls"):
        assert control.inputs["rule"] == {"objectOwnership": "BucketOwnerEnforced"}
    for storage in (each for each in of_kind(stack, "MetricAlarm") if each.inputs["metricName"] == "FreeStorageSpace"):
        (server,) = of_kind(stack, "Instance")
        # CloudWatch counts bytes.
        assert storage.inputs["threshold"] >= server.inputs["allocatedStorage"] * 2**30 // 10


@each_stack
def test_users_come_by_https_alone(stack: str) -> None:
    for ingress in (each for each in recorded(stack).resources if each.type.endswith(":Ingress")):
        annotations = ingress.inputs["metadata"]["annotations"]
        assert json.loads(annotations["alb.ingress.kubernetes.io/listen-ports"]) == [{"HTTPS": 443}]
        assert annotations["alb.ingress.kubernetes.io/inbound-cidrs"]


@pytest.mark.parametrize(
    ("kind", "inputs", "rule"),
    [
        ("ReplicationGroup", {"snapshotRetentionLimit": 0}, "redis-broker-not-persistent"),
        ("ParameterGroup", {"parameters": [{"name": "maxmemory-policy", "value": "allkeys-lru"}]}, "redis-broker-evicts"),
    ],
)
def test_the_policies_know_which_server_carries_the_broker(kind: str, inputs: dict[str, Any], rule: str) -> None:
    """By the address in the configuration of what runs Superset."""
    known = recorded("aws-enterprise")
    broken = tuple(
        replace(each, inputs={**each.inputs, **inputs})
        if each.type.endswith(f":{kind}") and each.name == "redis-broker"
        else each
        for each in known.resources
    )
    found = {each.rule for each in evaluate(from_recording(replace(known, resources=broken))).findings}
    assert rule in found
    assert rule not in {each.rule for each in evaluate(from_recording(known)).findings}


@each_stack
def test_every_resource_is_in_the_stacks_account_and_region(stack: str) -> None:
    providers = [each for each in recorded(stack).resources if each.type == "pulumi:providers:aws"]
    (provider,) = providers
    planned = topology_of(stack).on_aws()
    assert provider.inputs["region"] == planned.region
    assert json.loads(provider.inputs["allowedAccountIds"]) == [planned.account]
    assert {"Project", "Stack", "Environment"} <= set(json.loads(provider.inputs["defaultTags"])["tags"])
    assert {each.provider for each in on_aws(stack)} == {provider.urn}


@pytest.mark.parametrize(("nat", "gateways", "leaving"), [("none", 0, 0), ("one", 1, 3), ("zone", 3, 3)])
def test_a_stack_says_how_private_subnets_leave(nat: str, gateways: int, leaving: int) -> None:
    """Not at all, by one gateway, or by one a zone."""
    config = config_of("aws-enterprise")
    config["aws"]["network"] |= {"nat": nat, "endpoints": [*NEEDED_ENDPOINTS, "secretsmanager"]}
    made = [each for each in recording.record("aws-enterprise", config).resources if each.custom]
    nats = {each.name for each in made if each.type.endswith(":NatGateway")}
    out = [each for each in made if each.type.endswith(":Route") and "-private-" in each.name]
    assert (len(nats), len(out)) == (gateways, leaving)
    assert {each.inputs["natGatewayId"] for each in out} == {f"NatGateway.{name}" for name in nats}


@each_stack
def test_the_estimate_counts_what_is_made(stack: str) -> None:
    counts = {line.what: line.count for line in estimate.lines_of(topology_of(stack))}
    assert counts["KMS keys"] == str(len(of_kind(stack, "Key")))
    assert counts["alarms"] == str(len(of_kind(stack, "MetricAlarm")))
