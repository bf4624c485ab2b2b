"""The process that cancels statements for beat: started when expected, asked, and never waited for without end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from runtime.queries import canceller
from runtime.queries.canceller import Canceller, CancellerError

#: Says that it is ready, writes down what it is asked, and answers.
GOOD = """
import json, os, sys
print("ready", flush=True)
for line in sys.stdin:
    print(os.getpid(), line.strip(), file=open(sys.argv[1], "a"))
    seen = dict.fromkeys(json.loads(line)[0], "running")
    print("answered " + json.dumps(seen), flush=True)
"""


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def running(script: str, asked: Path, clock: Clock | None = None) -> Canceller:
    """A canceller whose process executes `script`."""
    return Canceller([sys.executable, "-c", script, str(asked)], clock or Clock())


def lines(asked: Path) -> list[tuple[str, object]]:
    """Which process was asked what."""
    found = [line.partition(" ") for line in asked.read_text().splitlines()]
    return [(pid, json.loads(what)) for pid, _, what in found]


def test_one_process_cancels_until_nothing_looks_lost(tmp_path: Path) -> None:
    clock, asked = Clock(), tmp_path / "asked"
    tried = running(GOOD, asked, clock)
    tried.expect()
    assert tried.cancel([1, 2], 5.0) == {1: "running", 2: "running"}
    clock.now += canceller.IDLE_SECONDS
    tried.rest()
    tried.expect()
    tried.cancel([3], 1.0)
    clock.now += canceller.IDLE_SECONDS + 1
    tried.rest()
    tried.cancel([4], 1.0)
    clock.now += canceller.IDLE_SECONDS + 1
    tried.rest()
    found = lines(asked)
    assert [what for _, what in found] == [[[1, 2], 5.0], [[3], 1.0], [[4], 1.0]]
    first, second, third = (pid for pid, _ in found)
    assert first == second != third


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise SystemExit(3)", "ended, with 3"),
        ("print('ready', flush=True); input(); raise SystemExit(4)", "ended, with 4"),
        ("print('ready', flush=True); input(); print('failed: OperationalError', flush=True); input()", "OperationalError"),
        ("input()", "said nothing for 0 s"),
    ],
)
def test_a_process_that_does_not_cancel_is_an_error_and_is_replaced(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said.startswith("said"):
        monkeypatch.setattr(canceller, "START_SECONDS", 0.01)
    once = f"import os, sys\nif not os.path.exists(sys.argv[1]):\n    open(sys.argv[1], 'w').close()\n    {script}\n{GOOD}"
    tried = running(once, tmp_path / "asked")
    with pytest.raises(CancellerError, match=said):
        tried.cancel([1], 1.0)
    monkeypatch.undo()
    (tmp_path / "asked").touch()
    tried.cancel([1], 1.0)
    assert len(lines(tmp_path / "asked")) == 1


def test_a_program_that_is_not_there_is_an_error_only_when_it_is_asked(tmp_path: Path) -> None:
    tried = Canceller([str(tmp_path / "missing")], Clock())
    tried.expect()
    with pytest.raises(CancellerError, match="missing"):
        tried.cancel([1], 1.0)
