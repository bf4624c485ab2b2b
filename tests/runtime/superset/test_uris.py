"""A database's URI is refused in the stack file exactly where SQLAlchemy, which the image has, cannot take it apart."""

from __future__ import annotations

import json
import subprocess

import pytest

from local import binaries
from topology.settings.values import is_uri

pytestmark = pytest.mark.superset

URIS = (
    "postgresql://reader:pw@db.example.com:5432/dwh",
    "postgresql://reader:a/b?c#d@db/dwh",
    "postgresql://[fd00::1]:5432/dwh",
    "postgresql://db:/dwh",
    "db2+ibm_db://db:50000/dwh",
    "bigquery://project",
    "sqlite:////tmp/file.db",
    "trino://lake:8080/hive?x=1",
    "postgresql://db:x/dwh",
    "postgresql://db:54 32/dwh",
    "postgresql:/db/dwh",
    "db.example.com:5432",
    "lake",
    "",
)
SCRIPT = """
import json, sys
from sqlalchemy.engine import make_url
def takes(uri):
    try:
        return bool(make_url(uri).drivername)
    except Exception:
        return False
print(json.dumps([takes(uri) for uri in json.loads(sys.argv[1])]))
"""


def test_a_uri_is_accepted_where_sqlalchemy_can_take_it_apart() -> None:
    command = [str(binaries.superset_python()), "-c", SCRIPT, json.dumps(URIS)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert dict(zip(URIS, answer, strict=True)) == {uri: is_uri(uri) for uri in URIS}
    assert {*answer} == {True, False}
