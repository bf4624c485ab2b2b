"""Pictures of the dashboard: what a Prometheus answers to each panel's queries, drawn by matplotlib.

Grafana's own look is not imitated: title, unit and legend of each panel are the dashboard's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from monitoring import dashboard
from topology.model import Topology

#: What Grafana would put for its own variables: the interval suits a scrape every 5 seconds.
RATE, QUEUES = "1m", ".*"
COLUMNS = 3
#: Points of a line at most, and lines of a panel that are named.
POINTS, NAMED = 240, 6
#: matplotlib has no unit names of Grafana's; the rest are numbers.
UNITS = {"s": "seconds", "percentunit": "share", "reqps": "a second", "bytes": "bytes", "short": ""}

Line = tuple[str, list[datetime], list[float]]


def legend(template: str, labels: Mapping[str, str]) -> str:
    """The name of a line: Grafana's `{{label}}` is the label's value, and nothing where it has none."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template).strip()


def lines(url: str, query: dashboard.Query, begin: float, end: float) -> list[Line]:
    """What the Prometheus at `url` answers from `begin` to `end` (Unix time); HTTPError where it does not."""
    expr = query.expr.replace(dashboard.RATE, RATE).replace("$queue", QUEUES)
    step = max(5.0, (end - begin) / POINTS)
    asked = {"query": expr, "start": f"{begin:.0f}", "end": f"{end:.0f}", "step": f"{step:.0f}"}
    answer = httpx.get(f"{url}/api/v1/query_range", params=asked, timeout=60)
    answer.raise_for_status()
    found: list[Line] = []
    for one in answer.json()["data"]["result"]:
        times = [datetime.fromtimestamp(at, UTC) for at, _ in one["values"]]
        found.append((legend(query.legend, one["metric"]), times, [float(value) for _, value in one["values"]]))
    return found


def draw(topology: Topology, url: str, between: tuple[float, float], title: str, path: Path) -> None:
    """Write the dashboard of a stack between two times (Unix) as a PNG."""
    # The library is the benchmark's alone, and slow to import.
    from matplotlib import dates
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    begin, end = between
    panels = [panel for row in dashboard.rows(topology) for panel in row.panels]
    height = -(-len(panels) // COLUMNS)
    figure: Any = Figure(figsize=(6 * COLUMNS, 2.7 * height), layout="constrained")
    figure.suptitle(f"{title}: {_clock(begin)} to {_clock(end)} UTC", fontsize=14)
    places: list[Any] = list(figure.subplots(height, COLUMNS).flat)
    for place in places:
        place.set_axis_off()
    for panel, place in zip(panels, places, strict=False):
        place.set_axis_on()
        _panel(place, panel, [line for query in panel.queries for line in lines(url, query, begin, end)])
        place.set_xlim(datetime.fromtimestamp(begin, UTC), datetime.fromtimestamp(end, UTC))
        place.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
        place.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=7))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(str(path))


def _panel(place: Any, panel: dashboard.Panel, found: Sequence[Line]) -> None:
    place.set_title(panel.title, fontsize=9, loc="left")
    place.set_ylabel(UNITS.get(panel.unit, panel.unit), fontsize=8)
    place.tick_params(labelsize=7)
    place.grid(alpha=0.3)
    # Those that are highest are named.
    ordered = sorted(found, key=lambda line: max(line[2], default=0.0), reverse=True)
    for number, (name, times, values) in enumerate(ordered):
        place.plot(times, values, linewidth=1.2, label=name if number < NAMED else None)
    place.set_ylim(bottom=0)
    if ordered:
        place.legend(fontsize=6, loc="upper left", framealpha=0.6)
    else:
        place.text(0.5, 0.5, "no data", transform=place.transAxes, ha="center", fontsize=8, color="grey")


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
