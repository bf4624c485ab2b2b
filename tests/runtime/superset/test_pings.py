"""The pool tries a connection, but for one that was used just now and of which its server has said nothing since."""

from __future__ import annotations

import json
import subprocess

import pytest

from local import binaries
from tests.runtime.conftest import PROJECT, Services

pytestmark = pytest.mark.superset

SCRIPT = """
import json, sys
from sqlalchemy import create_engine, event
from runtime.superset import pings

now, pinged = [0.0], []
engine = create_engine(sys.argv[1], pool_pre_ping=True)
shipped = engine.dialect.do_ping
engine.dialect.do_ping = lambda connection: pinged.append(now[0]) or shipped(connection)
pings.trust_what_was_used(engine, lambda: now[0])

def pid():
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

def end(of):
    with create_engine(sys.argv[1]).connect() as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(%s, 5000)", (of,))

first = pid()
now[0] += 0.5
kept = pid() == first
now[0] += 1.5
tried = pid() == first
end(first)
now[0] += 2.0
second = pid()
end(second)
third = pid()
print(json.dumps({"kept": kept, "tried": tried, "pinged": pinged, "pids": len({first, second, third})}))
"""


def test_a_connection_is_tried_unless_it_was_used_just_now(services: Services) -> None:
    uri = f"postgresql+psycopg2://analyst:analyst@127.0.0.1:{services.postgres_port}/analytics"
    command = [str(binaries.superset_python()), "-c", SCRIPT, uri]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(PROJECT)}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kept"] and found["tried"]
    # After a second and a half and after two; and what was used just now, whose server has ended it.
    assert found["pinged"] == [2.0, 4.0, 4.0]
    assert found["pids"] == 3
