"""A state that the engine is writing while the program asks for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from infra import previous

HALF = Exception("invoke of pulumi:pulumi:readStackOutputs failed: … failed to load checkpoint: EOF")


class Engine:
    """Answers as told, one answer after the other; the last one again and again."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def invoke(self, function: str, arguments: dict[str, str]) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(value=answer)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previous, "PAUSE", 0.0)


def test_a_half_written_state_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi.runtime, "invoke", Engine(HALF, HALF, {"outputs": {}}).invoke)
    assert previous.plan_of_last_up() is None


def test_one_that_stays_so_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi.runtime, "invoke", Engine(HALF).invoke)
    with pytest.raises(pulumi.RunError, match=r"docs/runbooks/recovery\.md"):
        previous.plan_of_last_up()


def test_any_other_failure_is_nobodys_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi.runtime, "invoke", Engine(Exception("no such stack"), {"outputs": {}}).invoke)
    with pytest.raises(Exception, match="no such stack"):
        previous.plan_of_last_up()
