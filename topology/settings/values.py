"""Types of single values in a stack file: each refuses what does not fit, with the rule and the way out ("rule|way out")."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Matching:
    """A text that matches `pattern`; the error says `rule` ("rule|way out"), and an editor knows the pattern from the schema."""

    pattern: str
    rule: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(schema)
        # Only Python's expressions can say that case does not count.
        return found if "(?i)" in self.pattern else {**found, "pattern": f"^({self.pattern})$"}

    def check(self, value: str) -> str:
        """`value` itself; ValueError with the rule where it does not match."""
        if not re.fullmatch(self.pattern, value):
            raise ValueError(self.rule)
        return value


def matching(pattern: str, rule: str) -> Matching:
    """A validator that refuses a text that does not match `pattern`, and says `rule` ("rule|way out")."""
    return Matching(pattern, rule)


#: As SQLAlchemy takes it apart: what follows the port cannot be wrong, and a password may hold anything but "@".
_URI = re.compile(r"[\w+]+://([^:/]*(:[^@]*)?@)?(\[[^/?]+\]|[^/:?]+)?(:(?P<port>[^/?]*))?")


def is_uri(value: str) -> bool:
    """Whether SQLAlchemy can take `value` apart: dialect, "://", and a port, where there is one, that is a number."""
    match = _URI.match(value)
    return match is not None and (match["port"] is None or (match["port"].isascii() and match["port"].isdigit()))


#: A name that can be part of a Kubernetes object's name, a host name and a queue's name (an RFC 1123 label).
Name = Annotated[
    str,
    matching(
        r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?",
        "must be at most 40 lower-case letters, digits and '-', beginning with a letter|Choose such a name",
    ),
]
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
#: The name of an object of Kubernetes that somebody else made, such as a Secret (an RFC 1123 subdomain).
ObjectName = Annotated[
    str,
    matching(
        rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*",
        "must be the name of an object of Kubernetes: lower-case letters, digits, '-' and '.', a letter or digit at both ends"
        "|Give the name that kubectl get shows",
    ),
]
#: The name of a namespace that exists (an RFC 1123 label).
NamespaceName = Annotated[
    str,
    matching(
        _LABEL,
        "must be a namespace: at most 63 lower-case letters, digits and '-', a letter or digit at both ends"
        "|Give the name that kubectl get namespaces shows",
    ),
]
#: The name of a role or database that somebody else made in PostgreSQL, of characters that can stand in a URL as they are.
PostgresName = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_][A-Za-z0-9_.$-]{0,62}",
        "must be at most 63 letters, digits, '_', '-', '.' and '$'|Give the name that the server has",
    ),
]
#: The name of a role or database in PostgreSQL that this project makes, and of a user in Superset.
IDENTIFIER = r"[a-z][a-z0-9_]{0,62}"
Identifier = Annotated[
    str,
    matching(
        IDENTIFIER,
        "must be at most 63 lower-case letters, digits and '_', beginning with a letter|Choose such a name",
    ),
]


def _is_schedule(value: str) -> str:
    """Refuse what Celery cannot read, and a range that runs backwards: Celery takes it, a CronJob of Kubernetes does not."""
    # Not above: the exporter reads topologies too, and needs no Celery.
    from celery.schedules import ParseException, crontab

    minute, hour, day_of_month, month, day_of_week = value.split(" ")
    way_out = "Write it as in 17 3 * * *; Sunday is 0 or sun"
    try:
        crontab(minute, hour, day_of_week, day_of_month, month)
    except (ParseException, ValueError) as error:
        raise ValueError(f"is no schedule: {error}|{way_out}") from None
    for field in (minute, hour, day_of_month, month, day_of_week):
        for part in field.split(","):
            first, _, last = part.partition("/")[0].partition("-")
            if last and _of_week(first) > _of_week(last):
                raise ValueError(f"has the range {part!r}, which runs backwards|{way_out}")
    return value


def _list_of(value: str) -> str:
    """Pattern of one field. Celery's parser passes over what follows a step that it can read, so that it cannot decide this."""
    part = rf"(\*|{value}(-{value})?)(/[0-9]{{1,2}})?"
    return f"{part}(,{part})*"


def _of_week(value: str) -> int:
    return int(value) if value.isdigit() else _DAYS.index(value)


_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NUMBER, _DAY = "[0-9]{1,2}", rf"([0-9]|{'|'.join(_DAYS)})"
#: When something runs, in UTC, as both Celery's beat and a CronJob of Kubernetes read it.
Cron = Annotated[
    str,
    matching(
        rf"({_list_of(_NUMBER)} ){{4}}{_list_of(_DAY)}",
        "must have five fields: minute hour day-of-month month day-of-week|Write it as in 17 3 * * *",
    ),
    AfterValidator(_is_schedule),
]
HostName = Annotated[
    str,
    matching(
        r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
        "must be a full host name in lower case|Write it as in superset.example.com",
    ),
]
#: A host that is no URL, and can stand in one as it is; an IPv6 address cannot.
Host = Annotated[
    str,
    matching(
        rf"(?i)(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*",
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
