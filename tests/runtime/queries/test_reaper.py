"""What the reaper takes for lost, and when: over all that a sweep can see, and all orders of sweeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.broker import reserved_tasks
from runtime.queries.chart_jobs import ChartJob
from runtime.queries.reaper import OpenQuery, Pace, Seen, Suspects, lost, pace
from tests.runtime.stacks import STACKS, topology

PACE = Pace(every=10, apart=10, quiet=25, unsent=30, synchronous=600)
NOW = 1_000_000.0
NUMBERS = st.integers(0, 6)
TASKS = st.builds("sql-{}".format, NUMBERS) | st.builds("job-{}".format, NUMBERS)
QUERIES = st.builds(
    OpenQuery,
    id=NUMBERS,
    running=st.booleans(),
    task_id=st.none(),
    seconds=st.sampled_from([1.0, 29.0, 31.0, 599.0, 601.0]),
).flatmap(lambda query: st.sampled_from([query, OpenQuery(query.id, query.running, f"sql-{query.id}", query.seconds)]))
JOBS = st.builds(
    lambda number, age: ChartJob({"job_id": f"job-{number}", "channel_id": "c"}, f"job-{number}", "q", "u", NOW - age),
    NUMBERS,
    st.sampled_from([1.0, 29.0, 31.0]),
)
SEEN = st.builds(
    Seen,
    queries=st.lists(QUERIES, unique_by=lambda query: query.id).map(tuple),
    jobs=st.lists(JOBS, unique_by=lambda job: job.job_id).map(tuple),
    delivered=st.dictionaries(st.builds("tag-{}".format, NUMBERS), TASKS | st.just("")),
    alive=st.frozensets(TASKS),
    elsewhere=st.frozensets(TASKS),
    now=st.just(NOW),
)


@given(SEEN)
def test_lost_is_what_nobody_has_and_nothing_else(seen: Seen) -> None:
    found = lost(seen, PACE)
    assert found.messages == {tag for tag, task in seen.delivered.items() if task not in seen.alive}
    somewhere = {*seen.alive, *seen.elsewhere, *seen.delivered.values()}
    for query in seen.queries:
        if query.task_id is None:
            expected = query.seconds > (600 if query.running else 30)
        elif query.task_id in somewhere:
            expected = False
        else:
            expected = query.running or query.seconds > 30
        assert (query.id in found.queries) == expected
    for job in seen.jobs:
        assert (job.job_id in found.jobs) == (job.task_id not in somewhere and job.submitted_at < NOW - 30)


@given(st.lists(st.tuples(st.floats(0.1, 15), st.frozensets(st.integers(0, 3))), min_size=1, max_size=12))
def test_a_thing_is_due_once_every_sweep_of_the_last_ten_seconds_found_it_lost(
    sweeps: list[tuple[float, frozenset[int]]],
) -> None:
    suspects, now, history = Suspects(), 0.0, list[tuple[float, frozenset[int]]]()
    for pause, found in sweeps:
        now += pause
        history.append((now, found))
        due = set(suspects.due(found, now, 10))
        for thing in range(4):
            since = now
            for at, there in reversed(history):
                if thing not in there:
                    break
                since = at
            assert (thing in due) == (thing in found and now - since >= 10)


def test_the_pace_keeps_the_stacks_bound() -> None:
    for stack in STACKS:
        for bound in (30, 60, 600):
            plan = topology(stack, resilience={"final_state": bound})
            chosen = pace(plan)
            # What a killed worker had reserved expires; the next sweep sees it, and one of those after that acts.
            assert reserved_tasks.TTL_SECONDS + chosen.every + max(chosen.apart, chosen.every) <= bound
            assert chosen.unsent + 2 * chosen.every <= bound
            assert 0 < chosen.every <= 10
            assert chosen.synchronous > plan.statement_timeout_seconds
