"""Whose data a cached chart is: every ingredient of identity, in Superset itself, and the same names in every process."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT, Prepared, run_script

pytestmark = pytest.mark.superset

ORDERED = "from runtime.superset.cache_identity import ordered; import json; print(json.dumps(ordered({keys})))"


@pytest.fixture(scope="module")
def names(prepared: Prepared) -> dict[str, dict[str, list[str]]]:
    """Found by a process whose users are roles of the analytic database too, as who impersonates them needs."""
    prepared.services.impersonated("nina", "sam", "oda")
    return run_script("superset.identity_process", prepared.environment("web"))


def of(found: dict[str, list[str]], *people: str) -> list[tuple[str, ...]]:
    return [tuple(found[who]) for who in people]


def apart(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Neither kind of chart is kept under one name for both."""
    return all(first != second for first, second in zip(one, other, strict=True))


def test_who_sees_the_same_shares_it(names: dict[str, Any]) -> None:
    for step in ("nothing", "no impersonation"):
        nina, sam, oda = of(names[step], "nina", "sam", "oda")
        assert nina == sam == oda, step


def test_as_whom_a_database_is_queried_is_part_of_the_name(names: dict[str, Any]) -> None:
    nina, sam, oda = of(names["impersonation"], "nina", "sam", "oda")
    assert apart(nina, sam) and apart(sam, oda) and apart(nina, oda)
    assert apart(*of(names["impersonated guest"], "nina", "guest"))


def test_rules_of_rows_part_those_that_they_part(names: dict[str, Any]) -> None:
    for step in ("a rule", "two rules"):
        nina, sam, oda = of(names[step], "nina", "sam", "oda")
        assert apart(nina, sam) and sam == oda, step
    assert apart(*of({"one": names["a rule"]["nina"], "two": names["two rules"]["nina"]}, "one", "two"))
    assert apart(*of(names["rules of other tables"], "nina", "sam"))
    one, ruled, other = of(names["guests"], "one", "ruled", "other")
    assert apart(one, ruled) and one == other


def test_a_changed_dataset_and_what_a_template_asks_for_are_part_of_the_name(names: dict[str, Any]) -> None:
    assert apart(*of({"before": names["two rules"]["sam"], "after": names["changed dataset"]["sam"]}, "before", "after"))
    nina, sam, oda = of(names["jinja"], "nina", "sam", "oda")
    assert apart(nina, sam) and apart(sam, oda)


def test_the_parts_of_a_name_have_one_order_in_every_process() -> None:
    """Two rules came in another order in a third of the processes: so many agreeing by chance is one in a billion."""
    keys = ["one > 0", "one < 9", "region = 'north'", None, 7]
    command = [str(binaries.superset_python()), "-c", ORDERED.format(keys=keys)]
    answers = {
        subprocess.run(
            command,
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(PROJECT)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in range(1, 31)
    }
    assert len(answers) == 1
    assert set(json.loads(answers.pop())) == set(keys)
