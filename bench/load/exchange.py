"""What the benchmark and its load generator tell each other, as JSON on a pipe."""

from __future__ import annotations

from pydantic import BaseModel

from bench.load.cells import Cell


class Task(BaseModel):
    """The load of one run. `run` is a number that no other run on the same side has; times are seconds.

    `most`: end after so many queries instead of after `measure`. The tokens are of Superset's log-in.
    """

    url: str
    token: str
    flood_token: str
    database_id: int
    dataset_id: int
    cell: Cell
    run: int
    think: float
    warm: float
    measure: float
    drain: float
    most: int | None = None


class Sample(BaseModel):
    """One query that brought its rows in the measured time: `began` is seconds since the epoch, `client_id` empty for charts."""

    kind: str
    began: float
    seconds: float
    client_id: str


class Answer(BaseModel):
    """What came of a run: samples, queries begun (an open loop: due) and status requests in the measured time, and how often
    what failed, from the first moment on."""

    samples: list[Sample]
    begun: int
    polls: int
    errors: dict[str, int]
