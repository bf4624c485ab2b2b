"""What is decided of a session of MySQL or MariaDB by what its server answers, without one (`test_mariadb.py` has one)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from runtime.superset import cancelling

NAME = f"superset-async-8-{'0a' * 8}"


class Server:
    """A cursor, its connection and its server: `holders` are the answers to who has the query's lock, one after the other."""

    def __init__(self, holders: Sequence[int | None] = (), *, sessions: int = 1, error: Exception | None = None) -> None:
        self.connection, self.killed = self, False
        self._holders, self._sessions, self._error = list(holders), sessions, error
        self._answer: tuple[Any, ...] = ()

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        if "CONNECTION_ID" in statement:
            self._answer = (5,)
        elif "LOCK(%s" in statement and not statement.startswith("KILL"):
            if self._error and "GET_LOCK" in statement:
                raise self._error
            self._answer = (self._holders.pop(0) if len(self._holders) > 1 else self._holders[0],)
        elif "processlist" in statement:
            self._answer = (self._sessions,)
        else:
            assert "IF(IS_USED_LOCK(%s) = %s, %s, 0)" in statement and values == (NAME, 5, 5)
            self.killed = True
            if self._error:
                raise self._error

    def fetchone(self) -> tuple[Any, ...]:
        return self._answer

    def rollback(self) -> None:
        pass


@pytest.mark.parametrize(
    ("server", "seen", "killed"),
    [
        (Server([5, None]), "gone", True),
        (Server([5, 5, 5, None]), "gone", True),
        # The server has lost the session between the question and the order.
        (Server([5, None], error=RuntimeError(1094, "Unknown thread id: 0")), "gone", True),
        (Server([5]), "running", True),
        # The server was started anew, and counts its sessions from one: the number is a stranger's.
        (Server([None], sessions=1), "unknown", False),
        (Server([None], sessions=0), "gone", False),
        (Server([7], sessions=1), "unknown", False),
    ],
)
def test_only_the_session_that_has_the_lock_is_ended(
    server: Server, seen: str, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "SEEN_SECONDS", 0.2)
    assert (cancelling.cancel_mysql(server, f"5 {NAME}"), server.killed) == (seen, killed)


def test_what_may_not_be_ended_is_not_said_to_be_gone() -> None:
    with pytest.raises(RuntimeError, match="not owner"):
        cancelling.cancel_mysql(Server([5], error=RuntimeError(1095, "You are not owner of thread 5")), f"5 {NAME}")


@pytest.mark.parametrize("identity", ["5", "", "None", "5 another-name", f"5 {NAME}; KILL 7", f"7 1.5 {NAME}"])
def test_what_is_no_identity_ends_nobody(identity: str) -> None:
    server = Server([5])
    assert (cancelling.cancel_mysql(server, identity), server.killed) == ("unknown", False)


@pytest.mark.parametrize("server", [Server([0]), Server([None]), Server(error=RuntimeError(1235, "not supported"))])
def test_a_server_that_gives_no_lock_cancels_nothing(server: Server) -> None:
    assert cancelling.mysql_identity(server, 8) == "5"


def test_each_execution_has_a_tag_of_its_own() -> None:
    first, second = (cancelling.mysql_identity(Server([1]), 8) for _ in range(2))
    assert first != second and first.startswith("5 superset-async-8-")
