"""The dashboard of a stack: panels as data, and Grafana's JSON of them by Grafana's own library."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from topology import metric_names as names
from topology.model import Topology

#: Grafana's own variables: the interval that suits a rate, and the data source that a person chooses.
RATE = "$__rate_interval"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH, HEIGHT = 8, 7


@dataclass(frozen=True)
class Query:
    """PromQL, and the name of each line (`{{label}}` is that label's value)."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One graph. `unit` is Grafana's name of it (s, short, percentunit, bytes)."""

    title: str
    unit: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Row:
    """Panels that answer one question."""

    title: str
    panels: tuple[Panel, ...]


def rows(topology: Topology) -> tuple[Row, ...]:
    """What the dashboard of a stack shows, the users' view first. `$queue` is a regular expression of queues."""
    stack = f'namespace="{topology.namespace}"'
    gauges = f'{stack},{names.QUEUE_LABEL}=~"$queue"'
    counts = f'{stack},queue=~"$queue"'

    def gauge(name: str) -> str:
        return f"max by ({names.QUEUE_LABEL}) ({name}{{{gauges}}})"

    def rate(name: str, by: str, more: str = "", selector: str = counts) -> str:
        return f"sum by ({by}) (rate({name}{{{selector}{more}}}[{RATE}]))"

    def quantile(share: str, name: str, by: str, selector: str = counts) -> str:
        return f"histogram_quantile({share}, {rate(f'{name}_bucket', f'{by}, le', selector=selector)})"

    queue, tenant = "{{queue_name}}", "{{queue}} {{tenant}}"
    failed = rate(names.TASKS_COMPLETED, "queue", ',status="failure"')
    ended = rate(names.TASKS_COMPLETED, "queue")
    hits = rate(names.CACHE_READS, "cache", ',result="hit"', selector=stack)
    spent, times = (
        rate(f"{names.STATS_SECONDS}_{part}", "name", selector=f'{stack},name=~"sqllab.*"') for part in ("sum", "count")
    )
    slo = f'sloth_service="superset-async-{topology.namespace}",queue=~"$queue"'
    return (
        Row(
            "Do users get their answers?",
            (
                Panel(
                    "Error budget, burn rate now (1: used up in 30 days)",
                    "short",
                    (Query(f"slo:current_burn_rate:ratio{{{slo}}}", "{{sloth_slo}} {{queue}} {{tenant}}"),),
                ),
                Panel(
                    "Wait until a worker begins, P95",
                    "s",
                    (Query(quantile("0.95", names.WAIT_SECONDS, "queue, tenant"), tenant),),
                ),
                Panel(
                    "Failed share",
                    "percentunit",
                    (Query(f"{failed} / {ended}", "{{queue}}"),),
                ),
                Panel("Queries submitted a second", "reqps", (Query(rate(names.TASKS_SUBMITTED, "queue, tenant"), tenant),)),
                Panel(
                    "Queries ended a second",
                    "reqps",
                    (Query(rate(names.TASKS_COMPLETED, "status, reason"), "{{status}} {{reason}}"),),
                ),
                Panel(
                    "Seconds in a worker, P50 and P95",
                    "s",
                    (
                        Query(quantile("0.5", names.TASK_SECONDS, "task_name"), "P50 {{task_name}}"),
                        Query(quantile("0.95", names.TASK_SECONDS, "task_name"), "P95 {{task_name}}"),
                    ),
                ),
            ),
        ),
        Row(
            "What waits, and who works?",
            (
                Panel("Messages that wait", "short", (Query(gauge(names.DEPTH), queue),)),
                Panel("Age of the oldest that waits", "s", (Query(gauge(names.OLDEST_WAITING), queue),)),
                Panel("Messages in flight", "short", (Query(gauge(names.IN_FLIGHT), queue),)),
                Panel(
                    "Workers",
                    "short",
                    (
                        Query(gauge(names.WORKERS), f"{queue}"),
                        Query(gauge(names.WORKERS_EXPECTED), f"{queue} at least"),
                        Query(gauge(names.WORKERS_MAX), f"{queue} at most"),
                    ),
                ),
                Panel("Slots", "short", (Query(gauge(names.WORKER_SLOTS), queue),)),
                Panel(
                    "Oldest query that runs",
                    "s",
                    (Query(f"max({names.OLDEST_RUNNING}{{{stack}}})", "oldest"),),
                ),
            ),
        ),
        Row(
            "How fast is the web tier?",
            (
                Panel("Requests a second", "reqps", (Query(rate(names.REQUESTS, "status", selector=stack), "{{status}}"),)),
                Panel(
                    "Seconds of a request, P95 of the ten slowest routes",
                    "s",
                    (
                        Query(
                            f"topk(10, {quantile('0.95', names.REQUEST_SECONDS, 'method, route', selector=stack)})",
                            "{{method}} {{route}}",
                        ),
                    ),
                ),
                Panel(
                    "Seconds of Superset's own steps of a query, mean",
                    "s",
                    (Query(f"{spent} / {times}", "{{name}}"),),
                ),
            ),
        ),
        Row(
            "What went wrong?",
            (
                Panel(
                    "Delivered again, retried, reaped (a minute)",
                    "short",
                    (
                        Query(f"60 * {rate(names.REDELIVERED, 'queue')}", "delivered again {{queue}}"),
                        Query(f"60 * {rate(names.RETRIES, 'kind', selector=stack)}", "retried {{kind}}"),
                        Query(f"60 * {rate(names.REAPED, 'what', selector=stack)}", "reaped {{what}}"),
                    ),
                ),
                Panel(
                    "Submissions refused (a minute)",
                    "short",
                    (Query(f"60 * {rate(names.REFUSED, 'queue, reason')}", "{{queue}} {{reason}}"),),
                ),
                Panel(
                    "Alerts",
                    "short",
                    (
                        Query(
                            f'sum by (alertname, severity) (ALERTS{{{stack},alertstate="firing"}})',
                            "{{alertname}} {{severity}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Results, caches and the broker",
            (
                Panel(
                    "Results: seconds of a read or write, P95",
                    "s",
                    (
                        Query(
                            quantile("0.95", names.RESULTS_SECONDS, "cache, operation", selector=stack),
                            "{{cache}} {{operation}}",
                        ),
                    ),
                ),
                Panel(
                    "Charts found in their cache",
                    "percentunit",
                    (Query(f"{hits} / {rate(names.CACHE_READS, 'cache', selector=stack)}", "{{cache}}"),),
                ),
                Panel(
                    "Charts that another's computation saved (a minute)",
                    "short",
                    (
                        Query(f"60 * sum(rate({names.CACHE_WAITED}{{{stack}}}[{RATE}]))", "waited"),
                        Query(f"60 * sum(rate({names.CACHE_SAVED}{{{stack}}}[{RATE}]))", "saved"),
                        Query(f"60 * sum(rate({names.CHARTS_FOLLOWED}{{{stack}}}[{RATE}]))", "followed"),
                    ),
                ),
                Panel(
                    "Broker's memory",
                    "bytes",
                    (
                        Query(f"max({names.BROKER_MEMORY}{{{stack}}})", "used"),
                        Query(f"max({names.BROKER_MEMORY_MAX}{{{stack}}})", "at most"),
                    ),
                ),
                Panel(
                    "Keys that the broker evicted",
                    "short",
                    (Query(f"max(increase({names.BROKER_EVICTED}{{{stack}}}[{RATE}]))", "evicted"),),
                ),
                Panel(
                    "Exporter: seconds of a look at the broker",
                    "s",
                    (Query(f"max({names.LOOK_SECONDS}{{{stack}}})", "look"),),
                ),
            ),
        ),
    )


def document(topology: Topology) -> str:
    """The dashboard as Grafana's JSON, for Grafana 11.6 or newer; its data source is chosen in Grafana."""
    board = (
        grafana.Dashboard(f"Superset asynchronous queries: {topology.stack}")
        .uid(f"superset-async-{topology.namespace}"[:40])
        .tags(["superset-async"])
        .timezone("browser")
        .time("now-3h", "now")
        .refresh("30s")
        .readonly()
        .with_variable(grafana.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            grafana.QueryVariable("queue")
            .label("Queue")
            .datasource(SOURCE)
            .query(f'label_values({names.DEPTH}{{namespace="{topology.namespace}"}}, {names.QUEUE_LABEL})')
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for row in rows(topology):
        board = board.with_row(grafana.Row(row.title))
        for panel in row.panels:
            board = board.with_panel(_graph(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _graph(panel: Panel) -> timeseries.Panel:
    graph = timeseries.Panel().title(panel.title).unit(panel.unit).datasource(SOURCE).span(WIDTH).height(HEIGHT).min(0)
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).range().ref_id(chr(ord("A") + number))
        graph = graph.with_target(target.datasource(SOURCE))
    return graph
