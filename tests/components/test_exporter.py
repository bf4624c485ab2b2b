"""The exporter's pod, how it is found, whom it may talk to; and that an HPA's question gets the exporter's own numbers."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from components import exporter
from infra import recording
from infra.recording import Recording
from monitoring import rules
from runtime.observability.exporter import QueueMetrics, Reading
from tests.components.stacks import STACKS, config_of, recorded, topology_of
from topology import commands, metric_names

PROJECT = Path(__file__).resolve().parents[2]
Manifest = dict[str, Any]


@cache
def changed(stack: str, change: str) -> Recording:
    """A stack with `change` (YAML) laid over its keys."""
    return recording.record(stack, {**config_of(stack), **yaml.safe_load(change)})


def pod(found: Recording) -> Manifest:
    return found.of_kind("Deployment")["exporter"]["spec"]["template"]


@pytest.mark.parametrize("stack", STACKS)
def test_one_pod_runs_it_with_the_readers_password_and_no_other_secret(stack: str) -> None:
    topology = topology_of(stack)
    deployment = recorded(stack).of_kind("Deployment")["exporter"]["spec"]
    assert deployment["replicas"] == 1
    container = pod(recorded(stack))["spec"]["containers"][0]
    assert container["command"] == commands.exporter() == ["python", "-m", "runtime.observability.exporter"]
    broker, user = topology.instance(topology.database("broker").instance), topology.redis_users()["reader"]
    taken = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
    (secret,) = taken.values()
    held = recorded(stack).of_kind("Secret")[secret["name"]]["stringData"]
    if broker.existing:
        assert (set(taken), set(held)) == ({user.password_env}, {"password"})
    else:
        assert taken == {user.password_env: {"name": f"{broker.name}-auth", "key": "reader-password"}}
    plain = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert plain[commands.TOPOLOGY_ENV] == f"{mounted['config']}/topology.json"
    assert {each["name"]: each for each in pod(recorded(stack))["spec"]["volumes"]}["config"]["configMap"] == {
        "name": "superset-topology"
    }
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("metrics", topology.exporter.port)
    # The broker's failure must not take away the one that tells of it.
    assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "/health"
    }


@pytest.mark.parametrize(
    ("change", "rolls"),
    [
        ("{row_limit: 500, web: {threads: 3}, workers: {max_workers: 3}}", False),
        ("{celery: {queues: [default, bulk]}, pools: {default: {queues: [default, bulk]}}}", False),
        ("{images: {superset: 'superset-async:2'}}", True),
        ("{metrics: {resources: {memory_limit: 256Mi}}}", True),
        ("{metrics: {from_namespaces: [observability]}}", False),
    ],
)
def test_it_restarts_only_for_what_it_reads(change: str, rolls: bool) -> None:
    assert (pod(changed("minimal", change)) != pod(recorded("minimal"))) is rolls


def test_prometheus_finds_it_by_annotations_or_by_a_service_monitor() -> None:
    service = recorded("enterprise").of_kind("Service")["exporter"]
    annotations = {
        f"prometheus.io/{key}": value for key, value in (("scrape", "true"), ("port", "9808"), ("path", "/metrics"))
    }
    assert service["metadata"]["annotations"].items() >= annotations.items()
    assert "ServiceMonitor" not in {each["kind"] for each in recorded("enterprise").manifests()}

    monitored = changed("enterprise", "{metrics: {service_monitor: true}}")
    service = monitored.of_kind("Service")["exporter"]
    monitor = monitored.of_kind("ServiceMonitor")["exporter"]
    assert "prometheus.io/scrape" not in (service["metadata"].get("annotations") or {})
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] == "exporter"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def peers(found: Recording, direction: str, policy: str) -> set[tuple[str, int]]:
    """Who may be reached, or may come in, by a policy: the component or namespace, and the port."""
    key, way = ("to", "egress") if direction == "egress" else ("from", "ingress")
    rules = found.of_kind("NetworkPolicy")[policy]["spec"][way]
    labels = [
        (peer.get("podSelector") or peer.get("namespaceSelector"))["matchLabels"] | {"port": rule["ports"][0]["port"]}
        for rule in rules
        for peer in rule[key]
    ]
    naming = ("app.kubernetes.io/component", "kubernetes.io/metadata.name", "app.kubernetes.io/name")
    return {(next(each[label] for label in naming if label in each), each["port"]) for each in labels}


@pytest.mark.parametrize(
    ("stack", "reached"),
    [
        ("minimal", {("redis", 6379)}),
        ("enterprise", {("redis-broker", 6379), ("redis-broker-sentinel", 26379)}),
    ],
)
def test_it_reaches_the_broker_alone_and_only_prometheus_reaches_it(stack: str, reached: set[tuple[str, int]]) -> None:
    assert peers(recorded(stack), "egress", "allow-from-exporter") == reached
    assert peers(recorded(stack), "ingress", "allow-to-exporter") == {("monitoring", 9808)}
    for name, port in reached:
        assert ("exporter", port) in peers(recorded(stack), "ingress", f"allow-to-{name}")
    others = changed(stack, "{metrics: {from_namespaces: [a, b]}}")
    assert peers(others, "ingress", "allow-to-exporter") == {("a", 9808), ("b", 9808)}


SCALING = "workers: {scaling: {kind: hpa, cpu_target: 70, queued_per_worker: 50, scale_in_window: 300}}"
HPA = f"{{{SCALING}}}"
TWO_QUEUES = f"{{{SCALING}, pools: {{default: {{queues: [default, priority]}}}}}}"


def test_the_adapters_rules_come_with_an_hpa_and_are_the_documented_ones() -> None:
    assert "exporter-adapter-rules" not in recorded("enterprise").of_kind("ConfigMap")
    data = changed("enterprise", HPA).of_kind("ConfigMap")["exporter-adapter-rules"]["data"]
    assert yaml.safe_load(data["values.yaml"]) == {"rules": {"external": exporter.adapter_rules()}}
    assert f"```yaml\n{data['values.yaml']}```" in (PROJECT / "docs/metrics.md").read_text()


# From an HPA's metric to a number, as prometheus-adapter and Prometheus go: the adapter keeps a rule's series, fills the selector
# and the namespace into its query, and Prometheus evaluates that over what it scraped, under the labels of its target.

Series = dict[str, str]


def scraped(
    stack: str, waiting: int, in_flight: int, *, pods: tuple[str, ...] = ("exporter-1",)
) -> list[tuple[Series, float]]:
    """What Prometheus has after a scrape of each pod: the exporter's real output, when every queue holds so many messages."""
    queues = topology_of(stack).celery.queues
    look = Reading(dict.fromkeys(queues, waiting), dict.fromkeys(queues, in_flight), dict.fromkeys(queues, 1.0))
    registry = CollectorRegistry()
    registry.register(QueueMetrics(lambda: look, print))
    return [
        ({"__name__": sample.name, **sample.labels, "namespace": topology_of(stack).namespace, "pod": each}, sample.value)
        for each in pods
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    ]


def matching(selector: str, series: list[tuple[Series, float]]) -> list[tuple[Series, float]]:
    """The series that a PromQL selector such as `{a="x",b=~"y|z"}` picks."""
    conditions = re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', selector)
    rest = re.sub(r'(\w+)(=~|!=|=)"([^"]*)"', "", selector)
    assert conditions and set(rest) <= set("{},"), selector
    tests: dict[str, Callable[[str, str], bool]] = {
        "=": lambda found, wanted: found == wanted,
        "!=": lambda found, wanted: found != wanted,
        "=~": lambda found, wanted: re.fullmatch(wanted, found) is not None,
    }
    return [each for each in series if all(tests[how](each[0].get(label, ""), value) for label, how, value in conditions)]


def answer(rule: Manifest, metric: Manifest, namespace: str, series: list[tuple[Series, float]]) -> float | None:
    """The number that an HPA in `namespace` gets for its external metric; None where it gets none."""
    name, selector = metric["name"], metric["selector"]
    if name not in {labels["__name__"] for labels, _ in matching(rule["seriesQuery"], series)}:
        return None
    label_of_namespace = {kind["resource"]: label for label, kind in rule["resources"]["overrides"].items()}["namespace"]
    matchers = [f'{each["key"]}=~"{"|".join(each["values"])}"' for each in selector["matchExpressions"]]
    assert {each["operator"] for each in selector["matchExpressions"]} == {"In"}
    matchers.append(f'{label_of_namespace}="{namespace}"')
    query = rule["metricsQuery"].replace("<<.Series>>", name).replace("<<.LabelMatchers>>", ",".join(matchers))
    parts = re.fullmatch(r"(max|sum)\((\w+)(\{.*\})\) by \((\w+)\)", query)
    assert parts, query
    how, found_name, selection, by = parts.groups()
    groups: dict[str, list[float]] = {}
    for labels, value in matching(selection, [each for each in series if each[0]["__name__"] == found_name]):
        groups.setdefault(labels.get(by, ""), []).append(value)
    # An HPA adds the values up; with none it has an error.
    return sum({"max": max, "sum": sum}[how](values) for values in groups.values()) if groups else None


def external(found: Recording, scaler: str) -> dict[str, Manifest]:
    """The external metrics of an HPA, by name."""
    metrics = found.of_kind("HorizontalPodAutoscaler")[scaler]["spec"]["metrics"]
    return {each["external"]["metric"]["name"]: each["external"]["metric"] for each in metrics if each["type"] == "External"}


@pytest.mark.parametrize(
    ("stack", "change", "scaler", "queues"),
    [
        ("enterprise", HPA, "worker-default-scaler", 1),
        ("multi-tenant", TWO_QUEUES, "worker-default-scaler", 2),
        ("multi-tenant", TWO_QUEUES, "worker-tenant-a-scaler", 1),
    ],
)
def test_an_hpa_gets_what_waits_and_runs_in_its_pools_queues(stack: str, change: str, scaler: str, queues: int) -> None:
    found = changed(stack, change)
    (rule,) = exporter.adapter_rules()
    asked = external(found, scaler)
    assert set(asked) == {metric_names.MESSAGES, metric_names.DEPTH}
    namespace = topology_of(stack).namespace
    for pods in (("exporter-1",), ("exporter-1", "exporter-2")):
        series = scraped(stack, 7, 3, pods=pods)
        assert answer(rule, asked[metric_names.MESSAGES], namespace, series) == 10 * queues
        assert answer(rule, asked[metric_names.DEPTH], namespace, series) == 7 * queues
    # Idle queues are 0; another namespace's are nothing, and nothing is not 0.
    assert answer(rule, asked[metric_names.MESSAGES], namespace, scraped(stack, 0, 0)) == 0
    assert answer(rule, asked[metric_names.MESSAGES], "elsewhere", scraped(stack, 7, 3)) is None
    assert answer(rule, asked[metric_names.MESSAGES], namespace, []) is None


#: Mistakes that the adapter's rule or the HPA could have.
MISTAKES: dict[str, Callable[[Manifest, Manifest], object]] = {
    "a queue that is none": lambda rule, metric: metric["selector"]["matchExpressions"][0].update(values=["defualt"]),
    "another label of the HPA": lambda rule, metric: metric["selector"]["matchExpressions"][0].update(key="queue"),
    "another metric of the HPA": lambda rule, metric: metric.update(name="celery_queue_length"),
    "series that are not there": lambda rule, metric: rule.update(seriesQuery='{__name__=~"^celery_queue$",queue_name!=""}'),
    "another label of the series": lambda rule, metric: rule.update(seriesQuery='{__name__=~"^celery_.*$",queue!=""}'),
    "another label of the namespace": lambda rule, metric: rule["resources"].update(
        overrides={"kubernetes_namespace": {"resource": "namespace"}}
    ),
    "two exporters added up": lambda rule, metric: rule.update(metricsQuery=rule["metricsQuery"].replace("max(", "sum(")),
    "queues thrown together": lambda rule, metric: rule.update(
        metricsQuery=rule["metricsQuery"].replace("(queue_name)", "(namespace)")
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_gives_another_number(mistake: str) -> None:
    found = changed("multi-tenant", TWO_QUEUES)
    (rule,), metric = exporter.adapter_rules(), external(found, "worker-default-scaler")[metric_names.MESSAGES]
    series = scraped("multi-tenant", 7, 3, pods=("exporter-1", "exporter-2"))
    assert answer(rule, metric, "superset", series) == 20
    rule, metric = copy.deepcopy(rule), copy.deepcopy(metric)
    MISTAKES[mistake](rule, metric)
    assert answer(rule, metric, "superset", series) != 20


def test_the_operator_gets_the_rules_where_the_stack_says_so() -> None:
    assert "PrometheusRule" not in {each["kind"] for each in recorded("enterprise").manifests()}
    found = recorded("existing").of_kind("PrometheusRule")["exporter-rules"]
    assert found["spec"] == rules.spec(topology_of("existing"))
    assert found["metadata"]["labels"]["team"] == "data"
    links = [
        rule["annotations"]["runbook_url"] for group in found["spec"]["groups"] for rule in group["rules"] if "alert" in rule
    ]
    assert {link.partition("#")[0] for link in links} == {"https://wiki.example.com/superset/alerts.md"}
