"""Types of single values in a stack file: each refuses what does not fit, with the rule and the way out ("rule|way out")."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field


def matching(pattern: str, rule: str) -> AfterValidator:
    """A validator that refuses a string that does not match `pattern`, and says `rule` ("rule|way out")."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(rule)
        return value

    return AfterValidator(check)


#: A name that can be part of a Kubernetes object's name, a host name and a queue's name (an RFC 1123 label).
Name = Annotated[
    str,
    matching(
        r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?",
        "must be at most 40 lower-case letters, digits and '-', beginning with a letter|Choose such a name",
    ),
]
#: The name of a role or database in PostgreSQL, and of a user in Superset.
Identifier = Annotated[
    str,
    matching(
        r"[a-z][a-z0-9_]{0,62}",
        "must be at most 63 lower-case letters, digits and '_', beginning with a letter|Choose such a name",
    ),
]
Cron = Annotated[
    str,
    matching(
        r"([0-9*/,-]+ ){4}[0-9a-z*/,-]+",
        "must have five fields: minute hour day-of-month month day-of-week|Write it as in 17 3 * * *",
    ),
]
HostName = Annotated[
    str,
    matching(
        r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
        "must be a full host name in lower case|Write it as in superset.example.com",
    ),
]
#: A host that is no URL, and can stand in one as it is.
Host = Annotated[
    str,
    matching(
        r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?",
        "must be a host name or an IPv4 address|Write it as in redis.example.com, without scheme, port and password",
    ),
]


def _is_network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError("must be a network|Write it as in 10.20.0.0/16, without host bits") from None


Cidr = Annotated[str, AfterValidator(_is_network)]
#: Of a process on this machine that needs no privilege.
Port = Annotated[int, Field(ge=1024, le=65535)]
#: Of a server that someone else may run.
ServerPort = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Percent = Annotated[int, Field(ge=1, le=100)]
