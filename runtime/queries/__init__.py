"""How queries end, whatever happens to the processes between a user and a database.

What the parts tell each other, all in the coordination database (`runtime.environment.coordination`) but for two tables:

- `lease:<kind>:<subject>` (`execution_leases`): who executes a query right now. It lives 15 s and is renewed every second by the
  process that executes; without it, nobody does.
- `worker:<node name>` (`reserved_tasks`): the ids of the tasks that a worker has reserved, as JSON, every 5 s for 20 s.
- `delayed` and `delayed:messages` (`delayed_messages`): tasks that are sent again at a time, by their id. What is there is in
  no queue, reserved by no worker, and not lost.
- the table `superset_async_executions` (`executions`): one row an attempt. Its worker ends it; where the worker is gone,
  the next delivery of the message does, or the reaper.
- the table `superset_async_messages` (`outbox`): the message of each query that no worker has begun, should the broker lose it.

What it needs of Superset it asks through `interfaces`: submit, identify, fence, end.
"""
