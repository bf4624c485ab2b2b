"""`.venv-superset/bin/python bench/codecs.py`: what each codec saves and costs on results as Superset stores them.

Chart data is a pickled dictionary with a DataFrame; SQL Lab's rows are JSON that Superset has compressed with zlib, or
MessagePack. Rows are like the sample's orders. lz4 is measured where it is installed (it is not in the locked set). Medians.
"""

from __future__ import annotations

import hmac
import json
import pickle
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any, cast

import msgpack
import numpy as np
import pandas as pd
import zstandard as zstd

Codec = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]


def codecs() -> dict[str, Codec]:
    """Compress and decompress, by name and level."""
    found: dict[str, Codec] = {"none": (lambda data: data, lambda data: data)}
    for level in (1, 6):
        found[f"zlib {level}"] = (lambda data, level=level: zlib.compress(data, level), zlib.decompress)
    for level in (1, 3, 6):
        found[f"zstd {level}"] = (lambda data, level=level: zstd.compress(data, level), zstd.decompress)
    try:
        import lz4.frame as lz4  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return found
    return found | {"lz4": (lz4.compress, lz4.decompress)}


def frame(rows: int) -> Any:
    """A DataFrame of orders: text of few values, times, amounts, ids."""
    random = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "ordered_at": pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 28_000_000, rows), "s"),
            "region": random.choice(["online", "north", "west", "south", "east"], rows),
            "category": random.choice(["books", "toys", "music", "games", "garden", "kitchen"], rows),
            "customer_id": random.integers(1, 20_000, rows),
            "quantity": random.integers(1, 9, rows),
            "revenue": np.round(random.gamma(2.0, 40.0, rows), 2),
        }
    )


def values() -> dict[str, bytes]:
    """Results as bytes, by name."""
    found: dict[str, bytes] = {}
    for rows in (1_000, 100_000):
        data = frame(rows)
        chart: dict[str, Any] = {
            "df": data,
            "query": "SELECT …",
            "applied_filter_columns": [],
            "dttm": "2026-11-23T00:00:00",
        }
        found[f"chart, {rows} rows (pickle)"] = pickle.dumps(chart, pickle.HIGHEST_PROTOCOL)
        records = json.loads(data.to_json(orient="records", date_format="iso"))
        text = json.dumps({"data": records, "columns": list(data.columns)}).encode()
        found[f"SQL, {rows} rows (JSON)"] = text
        found[f"SQL, {rows} rows (JSON, zlib by Superset)"] = zlib.compress(text)
        found[f"SQL, {rows} rows (MessagePack)"] = cast(bytes, msgpack.packb({"data": records}, use_bin_type=True))
    return found


def milliseconds(run: Callable[[], object], times: int) -> float:
    """The median of `times` runs."""
    took: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def main() -> None:
    """Print a table in Markdown."""
    print("| result | codec | kB | ratio | compress ms | decompress ms | sign ms |\n|---|---|---|---|---|---|---|")
    for name, data in values().items():
        for codec, (compress, decompress) in codecs().items():
            times = 50 if len(data) < 1_000_000 else 5
            small = compress(data)
            into = milliseconds(lambda: compress(data), times)  # noqa: B023
            back = milliseconds(lambda: decompress(small), times)  # noqa: B023
            sign = milliseconds(lambda: hmac.digest(b"k" * 32, small, "sha256"), times)  # noqa: B023
            print(
                f"| {name} | {codec} | {len(small) / 1000:.0f} | {len(data) / len(small):.1f} | {into:.2f} | {back:.2f} | "
                f"{sign:.2f} |"
            )


if __name__ == "__main__":
    main()
