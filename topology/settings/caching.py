"""How results are kept: chart data, and rows of SQL Lab."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from topology.quantities import Memory
from topology.settings.section import Section
from topology.settings.values import Name, NotNegative, Positive, matching

ResultCompression = Literal["none", "zlib", "zstd"]


class Spill(Section):
    """Where large results go instead of Redis: files in `folder`, which web and workers share."""

    above_bytes: Memory = Field(
        validation_alias="above", description="results larger than this, as stored, are written to files"
    )
    folder: Annotated[str, matching(r"/.+", "must be an absolute path|Write it as in /var/lib/superset/results")] = Field(
        description="folder that web and workers share"
    )
    claim: Name | None = Field(
        default=None, description="Kubernetes: an existing ReadWriteMany volume claim of the namespace, mounted at folder"
    )


class Caching(Section):
    """How long results are kept, in seconds, and how. Sizes in bytes.

    `early_refresh` is the beta of probabilistic early expiration.
    """

    chart_data_ttl_seconds: Positive = Field(
        validation_alias="chart_data_ttl", description="chart data, unless the dataset or database says otherwise"
    )
    query_results_ttl_seconds: Positive = Field(
        validation_alias="query_results_ttl",
        description="rows of SQL Lab queries, unless the database says otherwise",
    )
    jitter_percent: Annotated[int, Field(ge=0, le=50)] = Field(
        validation_alias="jitter", description="percent by which each lifetime is spread either way"
    )
    early_refresh: Annotated[float, Field(ge=0, le=10, strict=False)] = Field(
        description="how eagerly one caller computes a value anew before it expires; 1 is usual, 0: never"
    )
    stale_seconds: NotNegative = Field(
        validation_alias="stale",
        description="seconds past its lifetime that a value may be served while one caller refreshes it",
    )
    single_flight: bool = Field(description="identical cold requests wait for the first one's result")
    compression: ResultCompression = Field(description="of results: none, zlib or zstd; see docs/measurements.md")
    compress_above_bytes: Memory = Field(
        validation_alias="compress_above", description="smaller results are stored as they are"
    )
    max_result_bytes: Memory = Field(
        validation_alias="max_result",
        description="results that are larger once they are read, not compressed, are refused with a message",
    )
    spill: Spill | None = Field(description="null: every result is in Redis")
