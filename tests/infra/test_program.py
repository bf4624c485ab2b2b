"""The whole program, from the engine's configuration to the graph of resources."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pulumi
import pytest

from infra import program, recording
from infra.recording import Recording
from tests.components.stacks import GIVEN_SECRETS, SECRET_KEYS, STACKS, config_of, recorded
from tests.parameters import name_of
from topology.problems import StackError

SECRET = "S3CRET"
PROVIDER = "pulumi:providers:kubernetes"
#: Secrets that stacks name and do not make.
SOMEBODY_ELSES = ("cache-login", "acme-billing", "ldap-account")
PREVIEW_ENCRYPTED = frozenset({f"superset-async:{key}" for key in SECRET_KEYS})

#: A database's network and port.
LAKE: dict[str, Any] = {"cidrs": ["10.21.0.0/16"], "ports": [5432]}


def read(config: dict[str, Any], encrypted: frozenset[str] = PREVIEW_ENCRYPTED) -> program.GivenSecrets:
    return program.read("test", recording.as_engine_config(config), encrypted.__contains__)[1]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("topology", "minimal", "minimal"),
        ("metrics", "true", True),
        ("row_limit", "90", 90),
        ("urgent", "null", None),
        ("labels", '{"a":{"b":[1,"x"]}}', {"a": {"b": [1, "x"]}}),
        ("misspelt", "no", "no"),
        ("misspelt", "", ""),
        # What is text stays text, whatever it looks like.
        ("postgres_password", "8472910384", "8472910384"),
        ("postgres_password", "null", "null"),
        ("postgres_password", '{"a":1}', '{"a":1}'),
        ("admin_username", "1e3", "1e3"),
        ("namespace", "2024", "2024"),
        ("environment", "true", "true"),
    ],
)
def test_values_come_as_text_and_are_what_the_stack_file_says(key: str, text: str, value: object) -> None:
    assert program.parse(key, text) == value


@pytest.mark.parametrize("secret", ["8472910384", "007", "true", "null", "1e3", '"quoted"', "[1]"])
def test_a_secret_that_looks_like_something_else_reaches_its_secret_letter_by_letter(secret: str) -> None:
    """Of each key that holds one: what the engine decrypts is text."""
    config: dict[str, Any] = config_of("existing") | {
        "postgres_password": secret,
        "database_uris": {"warehouse": f"postgresql://reader:{secret}@warehouse.example.com/dwh"},
    }
    others = config_of("existing-redis") | {"redis_passwords": {"broker": secret}}

    def values(stack: str, config: dict[str, Any]) -> list[str]:
        found = recording.record(stack, config, secret_keys=SECRET_KEYS)
        return [value for each in found.of_kind("Secret").values() for value in each["stringData"].values()]

    assert secret in values("existing", config)
    assert config["database_uris"]["warehouse"] in values("existing", config)
    assert secret in values("existing-redis", others)


def test_settings_arrive_in_the_topology_whatever_their_type() -> None:
    config = {
        "topology": "minimal",
        "row_limit": 5000,
        "web": {"secure_cookies": False, "cpu_target": 50},
        "labels": {"team": "data"},
    }
    planned, _ = program.read("test", recording.as_engine_config(config), lambda key: False)
    assert (planned.row_limit, planned.web.secure_cookies, planned.labels) == (5000, False, {"team": "data"})


def test_keys_of_other_projects_and_providers_are_not_ours() -> None:
    config = {**recording.as_engine_config({"topology": "minimal"}), "kubernetes:context": "prod", "aws:region": "eu-west-1"}
    planned, _ = program.read("test", config, lambda key: False)
    assert planned == program.read("test", recording.as_engine_config({"topology": "minimal"}), lambda key: False)[0]


def test_a_key_whose_prefix_is_misspelt_is_told_and_not_passed_over() -> None:
    config = {**recording.as_engine_config({"topology": "minimal"}), "superset-asnyc:row_limit": "7"}
    with pytest.raises(StackError, match="Write it as superset-async:row_limit"):
        program.read("test", config, lambda key: False)


def problems_of(config: dict[str, Any], encrypted: frozenset[str] = PREVIEW_ENCRYPTED) -> set[str]:
    with pytest.raises(StackError) as caught:
        read(config, encrypted)
    return {problem.key for problem in caught.value.problems}


def test_every_mistake_is_named_in_one_run() -> None:
    config = {
        "topology": "minimal",
        "row_limt": 10,
        "celery": {"soft_time_limit": 700},
        "labels": {"team": "a b", "app.kubernetes.io/name": "x"},
        "postgres": {"user": "postgres"},
        "databases": {"lake": LAKE},
        "database_uris": {"lak": "postgresql://x/y"},
        "postgres_password": "x",
    }
    assert problems_of(config) == {
        "row_limt",
        "celery.soft_time_limit",
        "workers.grace_period",
        "labels.team",
        "labels.app.kubernetes.io/name",
        "postgres.user",
        "database_uris.lake",
        "database_uris.lak",
        "postgres_password",
    }


EXISTING: dict[str, Any] = {
    "topology": "minimal",
    "postgres": {"kind": "existing", "host": "db.example.com", "cidrs": ["10.8.0.0/24"], "max_connections": 200},
}


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"topology": "minimal", "platform": "local"}, {"platform"}),
        ({"topology": "minimal", "platform": "locl"}, {"platform"}),
        ({"topology": "minimal", "databases": {"lake": LAKE}}, {"database_uris.lake"}),
        ({"topology": "minimal", "databases": {"lake": LAKE}, "database_uris": {"lake": "no uri"}}, {"database_uris.lake"}),
        ({"topology": "minimal", "databases": {"lake": LAKE}, "database_uris": {"lake": 3}}, {"database_uris.lake"}),
        (
            {"topology": "minimal", "databases": {"lake": LAKE}, "database_uris": {"lake": "a://h:x/d"}},
            {"database_uris.lake"},
        ),
        ({"topology": "minimal", "database_uris": "postgresql://x/y"}, {"database_uris"}),
        (EXISTING, {"postgres_password"}),
        (EXISTING | {"postgres_password": ""}, {"postgres_password"}),
        # A database that is wrong itself is not also said to lack its URI.
        ({"topology": "minimal", "databases": {"lake": {"uri": "trino://u:p@lake/hive", **LAKE}}}, {"databases.lake.uri"}),
        ({"topology": "minimal", "postgres": {"kind": "cloudnativepg", "port": 5433}}, {"postgres.port"}),
    ],
    ids=name_of,
)
def test_what_is_refused(config: dict[str, Any], keys: set[str]) -> None:
    assert problems_of(config) == keys


def test_a_secret_that_stands_in_clear_is_refused_and_not_repeated() -> None:
    config = EXISTING | {"postgres_password": f"{SECRET}1"}
    with pytest.raises(StackError) as caught:
        read(config, frozenset())
    assert "stands unencrypted" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_given_secrets_are_taken_and_not_printed() -> None:
    given = read(config_of("existing"))
    assert given.postgres_password == GIVEN_SECRETS[0]
    assert not any(secret in repr(given) for secret in GIVEN_SECRETS)


BROKER: dict[str, Any] = {"redis": {"broker": {"existing": {"host": "redis.example.com", "cidrs": ["10.10.0.0/24"]}}}}


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (BROKER, {"redis_passwords.broker"}),
        (BROKER | {"redis_passwords": {"broker": ""}}, {"redis_passwords.broker"}),
        (BROKER | {"redis_passwords": {"broker": 7}}, {"redis_passwords.broker"}),
        (BROKER | {"redis_passwords": {"broker": "p", "cache": "q"}}, {"redis_passwords.cache"}),
        (BROKER | {"redis_passwords": "p"}, {"redis_passwords"}),
        ({"redis_passwords": {"broker": "p"}}, {"redis_passwords.broker"}),
        (
            {
                "redis": {"broker": {"existing": {"host": "r", "cidrs": ["10.10.0.0/24"], "password_secret": "login"}}},
                "redis_passwords": {"broker": "p"},
            },
            {"redis_passwords.broker"},
        ),
        # A server that is wrong itself is not also said to lack its password.
        ({"redis": {"broker": {"existing": {"host": "redis://u:p@r:6379"}}}}, {"redis.broker.existing.host"}),
    ],
    ids=name_of,
)
def test_passwords_are_given_of_the_servers_that_exist_and_of_no_other(config: dict[str, Any], keys: set[str]) -> None:
    assert problems_of({"topology": "minimal"} | config) == keys


def test_the_engine_sees_one_error_without_a_traceback() -> None:
    with pytest.raises(pulumi.RunError, match="platform = local"):
        recording.record("local", {"topology": "minimal", "platform": "local"})


# The graph.


def components_of(recorded_: Recording) -> list[recording.Resource]:
    return [resource for resource in recorded_.resources if not resource.custom]


@pytest.mark.parametrize("stack", STACKS)
def test_components_are_what_the_design_says(stack: str) -> None:
    """Types are named after module and class; children hang under a component, are named from it, and it says its outputs."""
    found = recorded(stack)
    by_urn = {resource.urn: resource for resource in found.resources}
    assert len(by_urn) == len(found.resources)
    for component in components_of(found):
        project, module, class_name = component.type.split(":")
        assert project == "superset-async"
        assert isinstance(getattr(importlib.import_module(f"components.{module}"), class_name), type)
        assert component.urn in found.component_outputs
        above = by_urn.get(component.parent)
        if above is None:
            assert component.parent.endswith(f"pulumi:pulumi:Stack::superset-async-{stack}")
        else:
            assert not above.custom
            assert component.name.startswith(f"{above.name}-")
    for resource in found.resources:
        if resource.custom and resource.type != PROVIDER:
            parent = by_urn[resource.parent]
            assert not parent.custom
            assert resource.name == parent.name or resource.name.startswith(f"{parent.name}-")


@pytest.mark.parametrize("stack", STACKS)
def test_every_object_is_made_by_the_provider_that_changes_configuration_in_place(stack: str) -> None:
    """With another one a changed ConfigMap would be deleted first, and every Deployment that mounts it with it."""
    (cluster,) = [each for each in recorded(stack).resources if each.type == PROVIDER]
    # Provider settings travel as JSON.
    assert {key: json.loads(value) for key, value in cluster.inputs.items()} == {
        "enableConfigMapMutable": True,
        "enableSecretMutable": True,
    }
    objects = [each for each in recorded(stack).resources if each.type.startswith("kubernetes:")]
    assert {each.provider for each in objects} == {cluster.urn}


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_is_left_undecided(stack: str) -> None:
    """Every input of every resource was awaited, and is a value."""

    def missing(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from missing(inner, f"{path}.{key}")
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                yield from missing(inner, f"{path}.{index}")
        elif value is None or value == "":
            yield path

    found = recorded(stack)
    assert len(found.manifests()) >= 20
    assert [
        path
        for resource in found.resources
        for path in missing(resource.inputs, resource.name)
        # An empty selector means every pod, an empty value of a label is one.
        if not path.endswith("podSelector")
    ] == []


@cache
def needed(stack: str, urn: str) -> frozenset[str]:
    """Everything that has to exist before a resource, directly or not: a child is registered after its component."""
    before = {each.urn: {*each.dependencies, each.parent} for each in recorded(stack).resources}
    seen: set[str] = set()
    open_ = [urn]
    while open_:
        for dependency in before.get(open_.pop(), ()):
            if dependency not in seen:
                seen.add(dependency)
                open_.append(dependency)
    return frozenset(seen)


def of_kind(stack: str, *kinds: str) -> list[recording.Resource]:
    return [each for each in recorded(stack).resources if each.custom and each.type.rpartition(":")[2] in kinds]


@pytest.mark.parametrize("stack", STACKS)
def test_the_metadata_database_is_prepared_before_anything_starts(stack: str) -> None:
    (job,) = of_kind(stack, "Job")
    servers = of_kind(stack, "StatefulSet", "Cluster")
    assert servers
    assert {server.urn for server in servers} <= needed(stack, job.urn)
    users = [each for each in of_kind(stack, "Deployment") if "POSTGRES_PASSWORD" in json.dumps(each.inputs)]
    assert len(users) >= 3
    for deployment in users:
        assert job.urn in needed(stack, deployment.urn)


@pytest.mark.parametrize("stack", STACKS)
def test_what_is_used_exists_first_and_nothing_waits_for_itself(stack: str) -> None:
    """Namespace, Secrets and ConfigMaps come before pods; the engine waits for a Service's pods, so no pod waits for it."""
    (namespace,) = of_kind(stack, "Namespace")
    for resource in recorded(stack).resources:
        if resource.type.startswith("kubernetes:") and resource.urn != namespace.urn:
            assert namespace.urn in needed(stack, resource.urn), resource.name
    by_name = {
        (each.type.rpartition(":")[2], each.inputs["metadata"]["name"]): each.urn
        for each in of_kind(stack, "Secret", "ConfigMap")
    }
    for workload in of_kind(stack, "Deployment", "StatefulSet", "Job"):
        template = workload.inputs["spec"]["template"]
        before = needed(stack, workload.urn)
        for volume in template["spec"].get("volumes", []):
            if "configMap" in volume:
                assert by_name["ConfigMap", volume["configMap"]["name"]] in before
        for container in template["spec"]["containers"]:
            for variable in container.get("env", []):
                secret = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
                if secret and secret not in SOMEBODY_ELSES:
                    assert by_name["Secret", secret] in before
        for service in of_kind(stack, "Service"):
            selector = service.inputs["spec"]["selector"]
            if selector.items() <= template["metadata"]["labels"].items():
                assert service.urn not in before, f"{workload.name} waits for {service.name}, which waits for its pods"


@pytest.mark.parametrize(
    ("stack", "url", "workers"),
    [
        ("minimal", "http://web.superset.svc:8088", ["1"]),
        ("enterprise", "http://web.superset.svc:8088", ["2..20"]),
        ("existing", "https://superset.example.com", ["2..20"]),
        ("cloudnativepg", "https://superset.example.com", ["1..10", "1..10", "1..10"]),
    ],
)
def test_outputs_are_what_a_person_needs(stack: str, url: str, workers: list[str]) -> None:
    outputs = recorded(stack).outputs
    assert outputs["url"] == url
    assert outputs["port_forward"] == "kubectl --namespace superset port-forward service/web 8088:8088"
    assert outputs["admin_secret"] in recorded(stack).of_kind("Secret")
    assert [pool["workers"] for pool in outputs["pools"]] == workers
    assert not recorded(stack).secret_outputs


def test_a_stack_with_tls_says_which_names_its_certificate_needs() -> None:
    """Those that clients connect to: of the Services, and of each server and Sentinel; and a stack without says nothing."""
    names = set(recorded("tls").outputs["redis_certificate_names"])
    services = set(recorded("tls").of_kind("Service"))
    asked = {"redis-broker-sentinel", "redis-cache-sentinel"}
    nodes = {f"{name}-nodes" for name in (*asked, "redis-broker", "redis-cache")}
    assert asked | nodes <= services
    assert names >= {*asked, *(f"{name}.superset.svc" for name in asked), *(f"*.{name}.superset.svc" for name in nodes)}
    config = {**config_of("tls"), "postgres": {"tls": {"kind": "secret", "secret": "postgres-certificate"}}}
    given = recording.record("tls", config)
    assert given.outputs["postgres_certificate_names"] == ["postgres", "postgres.superset.svc"]
    for stack in STACKS:
        said = {key for key in recorded(stack).outputs if key.endswith("_certificate_names")}
        assert said == ({"redis_certificate_names"} if stack == "tls" else set())


# Secrets.


def walk(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text in plain data, with where it is."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, (*path, index))
    elif isinstance(value, str):
        yield path, value


@pytest.mark.parametrize("stack", STACKS)
def test_secret_values_are_in_secrets_only_and_marked_as_such(stack: str) -> None:
    made: list[str] = []

    def generate(name: str, length: int) -> str:
        made.append(f"{SECRET}-{name}")
        return made[-1]

    found = recording.record(stack, config_of(stack), secret_keys=SECRET_KEYS, generate=generate)
    assert len(made) >= 4
    values = [*made, *GIVEN_SECRETS]
    seen: set[str] = set()
    for resource in found.resources:
        for path, text in walk(resource.inputs):
            inside = {value for value in values if value in text}
            if inside:
                seen |= inside
                # The stack's own authorities and keys stay in its state.
                assert resource.type == "kubernetes:core/v1:Secret" or resource.type.startswith("tls:"), (
                    f"{resource.name}: {path}"
                )
                assert any(path[: len(secret)] == secret for secret in resource.secret_paths), f"{resource.name}: {path}"
    assert set(made) <= seen
    told = json.dumps([found.outputs, found.component_outputs])
    assert not [value for value in values if value in told]


def test_a_container_gets_only_the_secrets_that_it_needs() -> None:
    """The administrator's password and database URIs reach the job alone; no server knows another's password."""
    seen: dict[str, set[str]] = {}
    for resource in of_kind("existing", "Deployment", "StatefulSet", "Job"):
        spec = resource.inputs["spec"]["template"]["spec"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    seen.setdefault(resource.name, set()).add(variable["name"])
    common = {
        "SUPERSET_SECRET_KEY",
        "ASYNC_QUERIES_JWT_SECRET",
        "POSTGRES_PASSWORD",
        "REDIS_BROKER_PASSWORD",
        "REDIS_CACHE_PASSWORD",
        "MESSAGE_KEY_1",
        "MESSAGE_KEY_2",
    }
    assert seen["exporter"] == {"REDIS_READER_PASSWORD"}
    assert seen["web"] == seen["worker-default"] == seen["beat"] == common
    assert seen["superset-init"] == common | {"ADMIN_PASSWORD", "DATABASE_URI_WAREHOUSE"}
    for name in ("redis-broker", "redis-cache", "redis-broker-sentinel"):
        assert seen[name] == {"REDISCLI_AUTH"}


# Changes.

CONFIG = "ConfigMap/superset-topology"
JOB = "Job/superset-init"
NETWORK = "NetworkPolicy/allow-from-superset"
EXPORTER = "Deployment/exporter"
SUPERSET = {JOB, "Deployment/web", "Deployment/worker-default", "Deployment/beat"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # The reaper, in beat, gives a request as long to send its query; and a query as long as its database does.
        ({"web": {"request_timeout": 99}}, {CONFIG, "Deployment/web", "Deployment/beat"}),
        ({"web": {"connections": {"size": 4}}}, {CONFIG, "Deployment/web"}),
        ({"web": {"min_replicas": 2, "max_replicas": 2}}, {CONFIG, "Deployment/web", "PodDisruptionBudget/web"}),
        ({"workers": {"max_tasks_per_child": 7}}, {CONFIG, "Deployment/worker-default"}),
        ({"workers": {"grace_period": 900}}, {CONFIG, "Deployment/worker-default"}),
        ({"caching": {"chart_data_ttl": 60}}, {CONFIG, *SUPERSET}),
        ({"celery": {"result_expires": 60}}, {CONFIG, *SUPERSET}),
        ({"redis": {"broker": {"maxmemory": "256Mi"}}}, {CONFIG, "ConfigMap/redis-config", "StatefulSet/redis"}),
        ({"images": {"redis": "valkey/valkey:9.0.1"}}, {CONFIG, "StatefulSet/redis"}),
        ({"images": {"superset": "superset-async:2"}}, {CONFIG, *SUPERSET, EXPORTER}),
        ({"postgres": {"max_connections": 222}}, {CONFIG, "StatefulSet/postgres"}),
        (
            {"databases": {"lake": {"uri": "postgresql://10.21.0.9/hive"}}},
            {CONFIG, JOB, "Deployment/beat", NETWORK},
        ),
        ({"resilience": {"max_queued": 7}}, {CONFIG, "Deployment/beat"}),
        ({"admin_username": "root"}, {CONFIG, JOB}),
        ({"network": {"egress": {"mail": {"cidrs": ["10.1.0.0/24"], "ports": [587]}}}}, {CONFIG, NETWORK}),
        ({"beat_resources": {"memory_limit": "1Gi"}}, {CONFIG, "Deployment/beat"}),
    ],
    ids=name_of,
)
def test_a_changed_setting_changes_only_what_it_concerns(change: dict[str, Any], expected: set[str]) -> None:
    changed = recording.record("minimal", {**config_of("minimal"), **change})
    assert differences(recorded("minimal"), changed) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"team": "data"}},
        {"images": {"pull_policy": "Always"}},
        {"images": {"superset": "superset-async:2"}},
        {"admin_username": "root"},
    ],
    ids=name_of,
)
def test_a_job_whose_template_changes_is_another_job(change: dict[str, Any]) -> None:
    """Its template cannot be changed: the API server refuses that for the same name."""
    (before,) = of_kind("minimal", "Job")
    found = recording.record("minimal", {**config_of("minimal"), **change})
    (after,) = [each for each in found.resources if each.type.endswith(":Job")]
    assert after.inputs["spec"] != before.inputs["spec"]
    assert after.inputs["metadata"]["name"] != before.inputs["metadata"]["name"]


def test_the_engine_waits_for_the_job_as_long_as_it_may_run_and_makes_a_failed_one_anew() -> None:
    (job,) = of_kind("minimal", "Job")
    assert int(job.create_timeout.removesuffix("s")) > job.inputs["spec"]["activeDeadlineSeconds"]
    assert job.inputs["metadata"]["annotations"] == {"pulumi.com/replaceUnready": "true"}


TENANTS: dict[str, Any] = {"a": {"users": ["ann"]}, "b": {"users": ["bob"]}, "c": {"users": ["eve"], "pool": "shared"}}
#: What hears of a new or a removed queue: the file, the job that empties those that are gone, and what looks for lost queries.
QUEUES = {CONFIG, JOB, "Deployment/beat"}


def of_tenant(tenant: str) -> set[str]:
    return {
        f"Deployment/worker-{tenant}",
        f"ServiceAccount/worker-{tenant}",
        f"PodDisruptionBudget/worker-{tenant}",
        f"PriorityClass/worker-{tenant}-share",
        f"TriggerAuthentication/worker-{tenant}-scaler",
        f"ScaledObject/worker-{tenant}-scaler-scaled",
    }


@pytest.mark.parametrize(
    ("tenants", "expected"),
    [
        (TENANTS | {"d": {"users": ["dan"]}}, QUEUES | of_tenant("d")),
        ({name: TENANTS[name] for name in "bc"}, QUEUES | of_tenant("a")),
        (
            TENANTS | {"a": {"users": ["ann"], "quota": {"cpu": "9", "memory": "20Gi"}}},
            {CONFIG, "ResourceQuota/worker-a-share"},
        ),
        (TENANTS | {"a": {"users": ["ann"], "max_workers": 3}}, {CONFIG, "ScaledObject/worker-a-scaler-scaled"}),
        (
            TENANTS | {"a": {"users": ["ann"], "priority": "high"}},
            {CONFIG, "PriorityClass/worker-a-share", "Deployment/worker-a"},
        ),
        (TENANTS | {"a": {"users": ["ann", "amy"], "statement_timeout": 9}}, {CONFIG, "Deployment/worker-a"}),
        (
            {name: TENANTS[name] for name in "ab"},
            QUEUES | {"Deployment/worker-default", "ScaledObject/worker-default-scaler-scaled"},
        ),
    ],
    ids=name_of,
)
def test_a_tenant_that_comes_changes_or_goes_concerns_no_other(tenants: dict[str, Any], expected: set[str]) -> None:
    """Web and the other tenants' workers go on; the limit of the metadata database has room for more."""
    before, after = ({"topology": "multi-tenant", "tenants": each} for each in (TENANTS, tenants))
    assert differences(recording.record("before", before), recording.record("before", after)) == expected


def differences(before: Recording, after: Recording) -> set[str]:
    def inputs(found: Recording) -> dict[str, Any]:
        return {
            f"{resource.type.rpartition(':')[2]}/{resource.name}": resource.inputs
            for resource in found.resources
            if resource.custom
        }

    old, new = inputs(before), inputs(after)
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def test_a_new_secret_rolls_the_pods_that_use_it() -> None:
    def rotated(name: str, length: int) -> str:
        return recording.placeholder(name, length) + ("-new" if name == "superset-redis-broker" else "")

    changed = recording.record("minimal", config_of("minimal"), generate=rotated)
    assert differences(recorded("minimal"), changed) == {
        *SUPERSET,
        EXPORTER,
        "Secret/superset-app",
        "Secret/redis-auth",
        "StatefulSet/redis",
    }


def test_new_labels_change_no_selector() -> None:
    def selectors(found: Recording) -> dict[str, Any]:
        return {
            resource.name: resource.inputs["spec"]["selector"]
            for resource in found.resources
            if resource.custom and "selector" in resource.inputs.get("spec", {})
        }

    labelled = recording.record("minimal", {**config_of("minimal"), "labels": {"team": "data"}})
    assert selectors(labelled) == selectors(recorded("minimal"))
    assert differences(recorded("minimal"), labelled) >= {"Deployment/web", "Secret/superset-app", "Namespace/namespace"}


def test_a_scaler_is_the_one_that_the_stack_asks_for() -> None:
    assert set(recorded("existing").of_kind("HorizontalPodAutoscaler")) == {"web", "worker-default-scaler"}
    assert recorded("existing").of_kind("ScaledObject") == {}
    assert set(recorded("enterprise").of_kind("HorizontalPodAutoscaler")) == {"web"}
    scaled = recorded("enterprise").of_kind("ScaledObject")["worker-default-scaler"]["spec"]
    # What is in flight is in one hash for all pools: where there are several, the exporter tells it apart.
    assert scaled["advanced"]["scalingModifiers"]["formula"] == "queue0 + running"
    shared = recorded("multi-tenant").of_kind("ScaledObject")["worker-priority-scaler"]["spec"]
    assert shared["advanced"]["scalingModifiers"]["formula"] == "queue0 + (inflight0 ?? 0)"
    assert "queue_name" in json.dumps(recorded("existing").of_kind("HorizontalPodAutoscaler")["worker-default-scaler"])


@pytest.mark.parametrize("stack", ["minimal", "cloudnativepg"])
def test_every_pod_pulls_by_the_secrets_that_the_stack_names(stack: str) -> None:
    """By its account, so that no pod template is forgotten; the operator's pods by the operator's own field."""
    found = recording.record(stack, {**config_of(stack), "images": {"pull_secrets": ["registry"]}}).manifests()
    accounts = {each["metadata"]["name"]: each.get("imagePullSecrets") for each in found if each["kind"] == "ServiceAccount"}
    templates = [each["spec"]["template"]["spec"] for each in found if each["kind"] in ("Deployment", "StatefulSet", "Job")]
    assert len(templates) >= 5
    for template in templates:
        assert accounts[template["serviceAccountName"]] == [{"name": "registry"}]
    for operated in (each for each in found if each["kind"] == "Cluster"):
        assert operated["spec"]["imagePullSecrets"] == [{"name": "registry"}]
