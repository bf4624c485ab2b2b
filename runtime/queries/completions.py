"""Ends of tasks as they are counted: each query once, by whoever ends it (its worker, that worker's parent, the reaper).

So of the queries that were sent, those that are not counted here wait or run.
"""

from __future__ import annotations

from runtime.broker.task_messages import TaskMessage
from runtime.environment import counters
from runtime.environment.metadata_database import Connection
from runtime.queries import executions, outbox
from runtime.queries.executions import STATUSES, Outcome
from runtime.tenants.identity import TENANT_HEADER, tenant_of_queue
from topology import metric_names


def labels(task_name: str, queue: str, tenant: str, outcome: Outcome) -> dict[str, str]:
    """The labels under which the end of a task is counted; KeyError for an outcome that is none (retried, refused)."""
    status, reason = STATUSES[outcome]
    owner = tenant or tenant_of_queue(queue)
    return {"task_name": task_name, "queue": queue, "tenant": owner, "status": status, "reason": reason}


def count(task_name: str, queue: str, tenant: str, outcome: Outcome) -> None:
    """Count the end of a task that did not return to its worker. It never fails."""
    counters.count_all([(metric_names.TASKS_COMPLETED, 1, labels(task_name, queue, tenant, outcome))])


def place_of_query(connection: Connection, query_id: int) -> tuple[str, str]:
    """Queue and tenant of a query of SQL Lab: of its last attempt, or else of the copy of its message. Empty where neither is
    there any more.
    """
    row = connection.exec_driver_sql(
        f"SELECT queue, tenant FROM {executions.TABLE} WHERE kind = 'sql' AND subject = %s ORDER BY attempt DESC LIMIT 1",
        (str(query_id),),
    ).fetchone()
    if row:
        return str(row[0]), str(row[1])
    row = connection.exec_driver_sql(f"SELECT message FROM {outbox.TABLE} WHERE query_id = %s", (query_id,)).fetchone()
    if not row:
        return "", ""
    message = TaskMessage.from_json(str(row[0]))
    return message.queue, message.headers.get(TENANT_HEADER, "")
