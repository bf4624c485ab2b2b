"""Celery: what every process must agree on, and what worker pools have."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from topology.quantities import Memory
from topology.settings.postgres import ConnectionPool
from topology.settings.resources import Resources
from topology.settings.section import Section, fields_by_key
from topology.settings.values import Name, Percent, Positive

Autoscaler = Literal["hpa", "keda"]
ResultBackend = Literal["redis", "postgresql"]
Compression = Literal["none", "gzip", "zstd"]


class Celery(Section):
    """What every Celery process, web included, must agree on."""

    result_backend: ResultBackend = Field(description="where Celery keeps task states, for operators: redis or postgresql")
    default_queue: Name = Field(description="queue of every task that no tenant claims")
    queues: tuple[Name, ...] = Field(strict=False, description="queues that exist; each needs a pool that listens")
    acks_late: bool = Field(description="acknowledge after the task, so that a lost worker's task runs again")
    soft_time_limit_seconds: Positive = Field(
        validation_alias="soft_time_limit", description="seconds after which a task is told to stop"
    )
    time_limit_seconds: Positive = Field(
        validation_alias="time_limit", description="seconds after which its process is killed"
    )
    visibility_timeout_seconds: Positive = Field(
        validation_alias="visibility_timeout",
        description="seconds after which the broker delivers an unacknowledged task again",
    )
    result_expires_seconds: Positive = Field(
        validation_alias="result_expires", description="seconds that Celery keeps a task's state"
    )
    compression: Compression = Field(description="of messages: none, gzip or zstd")
    message_key: Positive = Field(
        description="number of the key that messages are signed with. Raise it by one to change the key: the one before and the "
        "one after are accepted as well, so that no message is lost meanwhile"
    )
    accept_unsigned_messages: bool = Field(
        description="take messages without a signature, as releases up to 0.2 sent them: for the one `up` that comes from such a "
        "release, and never afterwards, since then whoever can write to the broker can have any task executed"
    )
    connections: ConnectionPool


class Scaling(Section):
    """What worker pools are scaled on, and by what."""

    kind: Autoscaler = Field(description="keda (reads the broker) or hpa (reads metrics through an adapter)")
    cpu_target_percent: Percent = Field(
        validation_alias="cpu_target",
        description="CPU utilization, in percent of the request, that the scaler aims at",
    )
    queued_per_worker: Positive = Field(description="messages waiting or running, a worker, that the scaler aims at")
    scale_in_window_seconds: Positive = Field(
        validation_alias="scale_in_window", description="seconds of lower load before a worker goes, one at a time"
    )


class WorkerSettings(Section):
    """What a worker pool has unless it says otherwise itself."""

    concurrency: Positive = Field(description="child processes of a worker, so tasks it runs at once")
    min_workers: Positive = Field(description="workers at rest")
    max_workers: Positive = Field(description="workers under load")
    prefetch_multiplier: Positive = Field(description="messages a worker holds for each of its children")
    max_tasks_per_child: Positive = Field(description="tasks after which a child is replaced")
    max_memory_per_child_bytes: Memory | None = Field(
        validation_alias="max_memory_per_child", description="resident memory at which a child is replaced; null: never"
    )
    grace_period_seconds: Positive = Field(
        validation_alias="grace_period", description="seconds a stopping worker has to finish what it runs"
    )
    scaling: Scaling | None = Field(description="null: no scaler, max_workers is used only by local's --autoscale")
    resources: Resources


class WorkerOverrides(Section):
    """A worker pool: its queues, and what differs from `workers`."""

    queues: tuple[Name, ...] | None = Field(
        default=None, strict=False, description="default: the queue of the pool's own name"
    )
    concurrency: Positive | None = None
    min_workers: Positive | None = None
    max_workers: Positive | None = None
    prefetch_multiplier: Positive | None = None
    max_tasks_per_child: Positive | None = None
    max_memory_per_child: Memory | None = None
    grace_period: Positive | None = None
    scaling: Scaling | None = None
    resources: Resources | None = None

    def over(self, workers: WorkerSettings) -> WorkerSettings:
        """`workers` with what this pool says for itself."""
        said = {name: getattr(self, key) for key, (name, _) in fields_by_key(WorkerSettings).items()}
        return workers.model_copy(update={name: value for name, value in said.items() if value is not None})
