"""What this project's web tier tells and does for an operator, beside Superset's own API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from client.errors import UnexpectedAnswerError, UnknownNameError
from client.session import Session, json_object, reason

_ROOT = "/api/v1/superset_async"


class Operations:
    """Usage, queues, workers and open queries of the Superset that `session` talks to.

    All but `place` are for users who may read Superset's action log. Raises what a session raises, UnexpectedAnswerError where
    the platform's own Redis is away, and UnknownNameError for a Superset without this project's web tier.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def usage(self, by: str, hours: float) -> dict[str, Any]:
        """What queries of the last `hours` cost, in the form of `runtime.observability.usage.report`."""
        return cast("dict[str, Any]", self._get("usage", {"by": by, "hours": f"{hours:g}"}))

    def slow(self, by: str, hours: float) -> dict[str, Any]:
        """Which statements took most of the last `hours`, in the form of `runtime.observability.slow.report`."""
        return cast("dict[str, Any]", self._get("slow", {"by": by, "hours": f"{hours:g}"}))

    def queues(self) -> list[dict[str, Any]]:
        """A row for each queue, in the form of `runtime.observability.live.queues`."""
        return cast("list[dict[str, Any]]", self._get("queues"))

    def workers(self) -> list[dict[str, Any]]:
        """A row for each worker that lives, in the form of `runtime.observability.live.workers`."""
        return cast("list[dict[str, Any]]", self._get("workers"))

    def open_queries(self) -> list[dict[str, Any]]:
        """A row for each query and chart that has not ended, in the form of `runtime.observability.live.open_queries`."""
        return cast("list[dict[str, Any]]", self._get("queries"))

    def doctor(self) -> dict[str, Any]:
        """What is wrong with the platform, in the form of `runtime.observability.diagnosis.report`."""
        return cast("dict[str, Any]", self._get("doctor"))

    def checklist(self, users: int) -> list[dict[str, Any]]:
        """The lines of the checklist before production, in the form of `runtime.observability.checklist.report`."""
        return cast("list[dict[str, Any]]", self._get("checklist", {"users": str(users)}))

    def place(self, query_id: int) -> dict[str, Any] | None:
        """Where a query waits, in the form of `runtime.observability.live.place`; None where it does not, or nobody can tell."""
        answer = self._session.call("GET", f"{_ROOT}/place/{query_id}")
        if answer.status_code != 200:
            return None
        with self._session.shape(answer):
            return cast("dict[str, Any] | None", json_object(answer)["result"])

    def ask_worker(self, worker: str, what: Literal["drain", "resume"]) -> None:
        """Have `worker` take no more messages, or take them again; UnknownNameError with the workers that live."""
        answer = self._session.call("POST", f"{_ROOT}/workers/{worker}/{what}")
        if answer.status_code == 404 and "there are:" in reason(answer):
            raise UnknownNameError(reason(answer))
        self._checked(answer)

    def _get(self, what: str, parameters: Mapping[str, str] | None = None) -> Any:
        answer = self._session.call("GET", f"{_ROOT}/{what}", parameters=parameters)
        self._checked(answer)
        with self._session.shape(answer):
            return json_object(answer)["result"]

    def _checked(self, answer: Any) -> None:
        if answer.status_code == 404:
            raise UnknownNameError(f"{self._session.url} does not tell this: is its web tier one of this project's?")
        if answer.status_code == 503:
            raise UnexpectedAnswerError(reason(answer), 503)
        if answer.status_code != 200:
            self._session.unexpected(answer, "nothing was done")
