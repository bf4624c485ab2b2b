"""The benchmark's pure parts: names of cells, verdicts, figures, reports, stock's configuration; and its delaying proxy."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import socket
import time
from typing import get_args

import pytest
from celery.app.defaults import NAMESPACES, flatten
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load import delay_proxy, quick, report, stock, workloads
from bench.load.cells import (
    DEFAULT_CELLS,
    QUICK_CELLS,
    Cell,
    CellError,
    Schedule,
    Workload,
    expected_seconds,
    in_order,
    parse,
)
from bench.load.comparison import CellResult, Outcome, cost_figures, latency_figures, lost_figures
from bench.load.counting import Counts, per_query, statements_by_tier
from bench.load.exchange import Sample
from bench.load.measure import Reading, foreign_share
from bench.load.verdict import Bounds, Pair, judge
from bench.world import free_ports

NAMES = st.builds(
    lambda workload, load, polling, delay: "-".join(part for part in (workload, load, polling, delay) if part),
    st.sampled_from(get_args(Workload)),
    st.one_of(st.integers(1, 500).map(lambda users: f"{users}u"), st.integers(1, 50).map(lambda rate: f"{rate}ps")),
    st.sampled_from(["", "browser", "api0.05", "api1"]),
    st.sampled_from(["", "2ms", "0.5ms"]),
)


@settings(deadline=None)
@given(NAMES)
def test_a_cell_is_called_what_it_was_asked_for(name: str) -> None:
    assert parse(name).name == name


@pytest.mark.parametrize("name", ["small", "small-0u", "smal-5u", "small-5u-5u", "small-5u-api0", "small-5u-2", ""])
def test_what_is_no_cell_is_refused_with_examples(name: str) -> None:
    with pytest.raises(CellError):
        parse(name)


def test_a_wrong_workload_has_a_suggestion() -> None:
    with pytest.raises(CellError, match="'small'"):
        parse("smal-5u")


def test_the_default_set_takes_at_most_an_hour_with_five_pairs() -> None:
    assert expected_seconds([parse(name) for name in DEFAULT_CELLS], Bounds.pairs, Schedule()) <= 3600


def test_the_quick_set_measures_for_at_most_three_minutes_with_two_pairs() -> None:
    quick = Schedule(start=0.0)
    assert expected_seconds([parse(name) for name in QUICK_CELLS], 2, quick) <= 200


@settings(deadline=None)
@given(st.lists(NAMES, max_size=8))
def test_the_order_changes_the_delay_as_seldom_as_there_are_delays(names: list[str]) -> None:
    ordered = in_order([parse(name) for name in names])
    changes = sum(before.delay_ms != after.delay_ms for before, after in itertools.pairwise(ordered))
    assert changes == max(0, len({cell.delay_ms for cell in ordered}) - 1)


PAIRS = st.lists(st.builds(Pair, st.floats(0.1, 100), st.floats(0, 100), st.floats(0, 1)), max_size=10)


@settings(deadline=None)
@given(PAIRS)
def test_a_verdict_stands_only_on_enough_steady_undisturbed_pairs(pairs: list[Pair]) -> None:
    bounds = Bounds()
    verdict = judge(pairs, bounds)
    clean = [pair for pair in pairs if pair.foreign <= bounds.foreign]
    assert verdict.pairs == len(clean)
    if verdict.stands:
        ratios = [pair.b / pair.a for pair in clean]
        assert len(clean) >= bounds.pairs
        assert verdict.ratio is not None
        assert max(ratios) - min(ratios) <= bounds.spread * verdict.ratio[0]
        if verdict.finding == "higher":
            assert min(ratios) > 1
        if verdict.finding == "lower":
            assert max(ratios) < 1


@pytest.mark.parametrize(
    ("ratios", "foreign", "finding"),
    [
        ([2.0, 2.1, 1.9, 2.0, 2.2], 0.01, "higher"),
        ([0.5, 0.6, 0.5, 0.6, 0.5], 0.01, "lower"),
        ([0.9, 1.1, 1.0, 1.0, 1.05], 0.01, "same"),
        ([1.0, 2.0, 3.0, 1.5, 2.5], 0.01, "unsteady"),
        ([2.0, 2.1, 1.9, 2.0], 0.01, "noisy"),
        ([2.0, 2.1, 1.9, 2.0, 2.2], 0.2, "noisy"),
    ],
)
def test_verdicts(ratios: list[float], foreign: float, finding: str) -> None:
    assert judge([Pair(10.0, 10 * ratio, foreign) for ratio in ratios], Bounds()).finding == finding


def test_what_strangers_took_is_what_nobody_of_us_did() -> None:
    before = Reading(0.0, {"web": 10.0}, 5.0, 100.0)
    after = Reading(10.0, {"web": 16.0}, 7.0, 114.0)
    assert foreign_share(before, after, cores=2) == pytest.approx((14 - 6 - 2) / 20)


def _sample(seconds: float, kind: str = "small", began: float = 100.0, client_id: str = "x") -> Sample:
    return Sample(kind=kind, began=began, seconds=seconds, client_id=client_id)


def test_percentiles_are_given_only_where_a_run_has_queries_beyond_them() -> None:
    few, many = [_sample(1.0)] * 10, [_sample(number / 100) for number in range(100)]
    assert set(latency_figures(few, 10.0)) == {"queries/s", "P50 s"}
    found = latency_figures(many, 10.0)
    assert (found["queries/s"], found["P95 s"], found["P99 s"]) == (10.0, 0.94, 0.98)


def test_classes_of_a_mixture_have_figures_of_their_own() -> None:
    found = latency_figures([_sample(0.1)] * 30 + [_sample(5.0, "large")] * 30, 10.0)
    assert (found["P50 s of small"], found["P50 s of large"]) == (0.1, 5.0)


def test_costs_are_by_tier_and_leave_the_proxy_out_of_the_sum() -> None:
    before = Reading(0.0, {"web": 1.0, "worker": 2.0, "proxy": 0.0}, 0.0, 0.0)
    after = Reading(10.0, {"web": 2.0, "worker": 2.5, "proxy": 3.0}, 0.0, 0.0)
    found = cost_figures(before, after, 100, 250)
    assert found["CPU ms a query, web"] == pytest.approx(10)
    assert found["CPU ms a query"] == pytest.approx(15)
    assert found["CPU ms a query, proxy"] == pytest.approx(30)
    assert found["polls a query"] == 2.5


def test_lost_time_is_told_apart_by_what_the_database_knows() -> None:
    found = lost_figures([_sample(2.0, began=100.0, client_id="a")], {"a": (100.1, 100.5, 101.5)})
    assert found["s until a worker has it"] == pytest.approx(0.5)
    assert found["s executing"] == pytest.approx(1.0)
    assert found["s lost to polling and fetching"] == pytest.approx(0.5)


LOG = """\
bench superset-web|superset|LOG:  statement: BEGIN
bench superset-web|superset|LOG:  statement: SELECT a,
\tb FROM t
bench superset-web|superset|LOG:  duration: 3 ms
bench superset-worker|superset|LOG:  execute <unnamed>: SELECT 1
bench superset-worker|analytics|LOG:  statement: SELECT 2
bench |examples|LOG:  statement: SELECT 3
bench bench|superset|LOG:  statement: SELECT mine
bench superset-web|superset|ERROR:  no
LOG:  statement: before the prefix
"""


def test_statements_are_counted_by_who_sent_them() -> None:
    assert statements_by_tier(LOG, "examples") == {"web": 2, "worker": 3}


def test_what_an_idle_platform_does_is_taken_away() -> None:
    busy = Counts(10.0, {"web": 100, "beat": 20}, {"worker": 50})
    idle = Counts(5.0, {"beat": 10}, {"worker": 5})
    assert per_query(busy, idle, 10) == {"statements": {"web": 10.0, "beat": 0.0}, "commands": {"worker": 4.0}}


def _result(foreign: float) -> CellResult:
    def outcomes(side: str, rate: float) -> list[Outcome]:
        return [Outcome(side, {"queries/s": rate + number / 10, "P95 s": 1 / rate}, {}, foreign, 100) for number in range(5)]

    return CellResult(parse("small-50u"), outcomes("stock-container", 10.0), outcomes("minimal", 30.0))


def _report(foreign: float) -> report.Report:
    return report.Report(
        a="stock-container",
        b="minimal",
        sources={"stock-container": "the container's", "minimal": "ours"},
        command="make bench",
        began="2026-01-01 00:00",
        took_seconds=60.0,
        machine={"cores": "2"},
        pairs=5,
        bounds=Bounds(),
        cells=[_result(foreign)],
        other={},
    )


def test_a_report_of_a_quiet_machine_has_ratios() -> None:
    text = report.as_markdown(_report(0.01))
    assert "| queries/s | 10.2 (10 to 10.4) | 30.2 (30 to 30.4) | 2.96 (2.92 to 3) | higher |" in text
    cell = json.loads(report.as_json(_report(0.01)))["cells"][0]
    assert cell["name"] == "small-50u"
    assert cell["verdicts"]["queries/s"]["ratio"][0] == pytest.approx(2.96, abs=0.01)


def test_a_quick_comparison_names_what_became_worse_than_its_baseline() -> None:
    measured = quick.ratios(json.loads(report.as_json(_report(0.01))))
    assert measured["small-50u"]["queries/s"] == pytest.approx(2.92, abs=0.05)
    worse = {"small-50u": {"queries/s": measured["small-50u"]["queries/s"] * 1.5, "P50 s": 0.1}}
    (said,) = quick.worse(worse, measured)
    assert said.startswith("small-50u, queries/s: ")
    dearer = {"small-50u": {"CPU ms a query": 0.3}}
    assert quick.worse(dearer, {"small-50u": {"CPU ms a query": 0.41}}) == []
    assert len(quick.worse(dearer, {"small-50u": {"CPU ms a query": 0.43}})) == 1
    assert quick.worse(measured, measured) == []


def test_a_report_of_a_noisy_machine_names_no_winner() -> None:
    text = report.as_markdown(_report(0.3))
    assert "| queries/s | – | – | – | NOISY |" in text
    assert "higher" not in text


def test_plots_are_written(tmp_path) -> None:  # type: ignore[no-untyped-def]
    written = report.write(_report(0.01), tmp_path)
    assert {path.name for path in written} == {"report.json", "report.md", "queries-per-s.svg", "p95-s.svg"}
    assert all(path.stat().st_size > 0 for path in written)


@pytest.mark.parametrize("name", stock.STOCK)
def test_stock_sides_set_only_what_celery_reads(name: str) -> None:
    known = dict(flatten(NAMESPACES))
    assert set(stock.STOCK[name].celery) <= known.keys()


@pytest.mark.parametrize("name", stock.STOCK)
def test_stock_configuration_is_python_and_goes_through_the_given_ports(name: str) -> None:
    secrets = {"key": "k" * 42, "jwt": "j" * 42, "postgres": "p", "redis": "r"}
    ports = stock.Ports(1111, 2222, 3333)
    text = stock.configuration(stock.STOCK[name], ports, secrets)
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert {"SECRET_KEY", "RESULTS_BACKEND", "CELERY_CONFIG", "DATA_CACHE_CONFIG"} <= names
    assert ":2222/superset" in text
    assert "127.0.0.1:3333/0" in text
    assert all("p@" not in part for command in stock.commands(stock.STOCK[name], ports, "/x").values() for part in command)


def test_charts_of_a_storm_are_the_same_for_all_and_change_together() -> None:
    one, other = workloads.charts("storm", 1, 1000.0, 3), workloads.charts("storm", 99, 1004.0, 3)
    assert one == other
    assert not set(one) & set(workloads.charts("storm", 1, 1005.0, 3))


@settings(deadline=None)
@given(st.integers(1, 999), st.integers(1, 999), st.integers(1, 5), st.integers(1, 5))
def test_cold_charts_are_never_asked_for_twice(number: int, other: int, run: int, later: int) -> None:
    if (number, run) != (other, later):
        assert not set(workloads.charts("dashboard", number, 0.0, run)) & set(
            workloads.charts("dashboard", other, 0.0, later)
        )


def test_the_proxy_keeps_bytes_and_their_order_and_delays_both_ways() -> None:
    chunks = [bytes([number % 256]) * (1 + number * 7 % 4000) for number in range(200)]

    async def scenario() -> tuple[bytes, float]:
        listen, target = free_ports(2)

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", target)
        proxy = asyncio.create_task(delay_proxy.serve(20, [(listen, target)]))
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", listen)) == 0:
                    break
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", listen)
        began = time.monotonic()
        for chunk in chunks:
            writer.write(chunk)
            await asyncio.sleep(0)
        writer.write_eof()
        got = await reader.readexactly(sum(map(len, chunks)))
        took = time.monotonic() - began
        writer.close()
        proxy.cancel()
        server.close()
        return got, took

    got, took = asyncio.run(scenario())
    assert got == b"".join(chunks)
    # There and back: no machine is so slow, or so fast, that it takes less.
    assert took >= 0.04


def test_a_cell_knows_whether_it_asks_for_charts() -> None:
    charts = {name for name in get_args(Workload) if Cell(name, 1, 0.0, "api", 0.2, 0.0).charts}
    assert charts == {"chart-cold", "chart-cached", "dashboard", "storm", "fanout"}
