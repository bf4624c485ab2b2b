"""`superset-async estimate`: what a stack on AWS would cost in a month, by a table of list prices."""

from __future__ import annotations

import sys

from client.output import Format, write_rows
from client.superset_client import Column, Result
from components.aws import alarms
from topology import prices, stack_file
from topology.model import Topology
from topology.plan import plan
from topology.prices import Line
from topology.problems import MendableError


class NotOnAwsError(MendableError):
    """There are prices for platform aws alone."""


def show(stack: str, form: Format) -> None:
    """Print the estimate of `stack`; StackError or NotOnAwsError for what a person can mend."""
    lines = lines_of(plan(stack, stack_file.read(stack)))
    total = Line("sum", "", sum(each.at_rest for each in lines), sum(each.under_load for each in lines))
    columns = tuple(Column(name, None) for name in ("what", "count", "at_rest", "under_load"))
    rows = [
        {"what": each.what, "count": each.count, "at_rest": round(each.at_rest, 2), "under_load": round(each.under_load, 2)}
        for each in (*lines, total)
    ]
    write_rows(Result(columns, rows, cut=False), form, sys.stdout)
    if form is Format.TABLE:
        sys.stderr.write(
            f"{prices.CURRENCY} a month of {prices.HOURS} hours, list prices of us-east-1 by {prices.AS_OF}, not compared with "
            f"a bill. Not counted: {prices.NOT_COUNTED}\n"
        )


def lines_of(topology: Topology) -> list[Line]:
    """The lines of a stack's estimate; NotOnAwsError on another platform."""
    planned = topology.aws
    if planned is None:
        raise NotOnAwsError(
            f"stack {topology.stack} is on platform {topology.platform}: there are prices for platform aws alone. Name a stack "
            "there, such as --stack aws-enterprise"
        )
    watched = [
        alarm
        for group in planned.redis
        for alarm in alarms.of_redis(group, broker=topology.instance(group.instance).carries_broker)
    ]
    if planned.postgres:
        watched += alarms.of_postgres(planned.postgres, topology.postgres.max_connections)
    # One for each store, and for logs, alarms, the cluster's Secrets and the image.
    made = (planned.postgres, planned.bucket, planned.repository, None if planned.cluster.existing else planned.cluster)
    keys = 2 + len(planned.redis) + sum(each is not None for each in made)
    return prices.estimate(topology, keys=keys, alarms=len(watched))
