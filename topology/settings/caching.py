"""How results are kept: chart data, and rows of SQL Lab."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from topology.quantities import Memory
from topology.settings.section import Section
from topology.settings.values import NotNegative, ObjectName, Positive, matching

BucketName = Annotated[
    str,
    matching(
        r"(?!xn--)[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])",
        "must be 3 to 63 lower-case letters, digits and '-', with a letter or digit at both ends|Choose such a name",
    ),
]
Endpoint = Annotated[
    str, matching(r"https?://[^/@\s]+", "must be a URL without path and user|Write it as in https://s3.example.com")
]
ResultCompression = Literal["none", "zlib", "zstd"]


class Spill(Section):
    """Where large results go instead of Redis: files in `folder`, which web and workers share."""

    above_bytes: Memory = Field(
        validation_alias="above", description="results larger than this, as stored, are written to files"
    )
    folder: Annotated[str, matching(r"/.+", "must be an absolute path|Write it as in /var/lib/superset/results")] = Field(
        description="folder that web and workers share"
    )
    claim: ObjectName | None = Field(
        default=None, description="Kubernetes: an existing ReadWriteMany volume claim of the namespace, mounted at folder"
    )


class ResultsBucket(Section):
    """The bucket that keeps SQL Lab's rows instead of Redis: AWS's S3, or a server that speaks its protocol.

    Credentials are the process's own, from wherever it runs.
    """

    name: BucketName = Field(description="name of the bucket")
    region: Annotated[str, matching(r"[a-z0-9-]+", "must be a region|Write it as in eu-central-1")] = Field(
        description="region of the bucket; of another make of server, what it calls its own"
    )
    endpoint: Endpoint | None = Field(default=None, description="URL of the server; null: AWS's own of the region")
    prefix: Annotated[
        str, matching(r"([A-Za-z0-9._-]+/)*", "must be folders that each end with /|Write it as in results/")
    ] = Field(default="", description="what every key in it begins with")


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
    bucket: ResultsBucket | None = Field(description="keeps SQL Lab's rows instead of Redis; null: none. Local only")
