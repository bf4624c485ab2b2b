"""Databases whose driver the image lacks are refused, with the package; what the image has is asked of Superset's environment."""

from __future__ import annotations

import json
import subprocess

import pytest

from local import binaries
from topology import drivers
from topology.plan import plan
from topology.problems import StackError


def test_a_missing_driver_is_refused_with_its_package() -> None:
    databases = {"events": {"uri": "clickhousedb://reader@10.20.0.7:8123/events"}}
    with pytest.raises(StackError) as refused:
        plan("test", {"topology": "minimal", "databases": databases})
    (problem,) = refused.value.problems
    assert problem.key == "databases.events.uri"
    assert "clickhouse-connect" in problem.fix
    plan("test", {"topology": "minimal", "databases": databases, "images": {"drivers": ["clickhouse_connect>=0.13"]}})


@pytest.mark.parametrize(
    ("uri", "added", "package"),
    [
        ("postgresql://h/d", [], None),
        ("postgresql+psycopg2://h/d", [], None),
        ("mysql+pymysql://h/d", ["mysqlclient"], "pymysql"),
        ("mysql+unheard://h/d", [], "mysqlclient"),
        ("ours://h/d", [], ""),
        ("ours://h/d", ["trino"], ""),
        ("ours://h/d", ["our-dialect"], None),
    ],
)
def test_which_package_is_missing(uri: str, added: list[str], package: str | None) -> None:
    assert drivers.missing(uri, added) == package


@pytest.mark.superset
def test_the_image_has_what_is_said_and_nothing_that_needs_a_package() -> None:
    program = """
import json, sys
from sqlalchemy.engine.url import make_url
def loads(scheme):
    try:
        make_url(scheme + "://").get_dialect().dbapi()
        return True
    except Exception:
        return False
print(json.dumps([scheme for scheme in sys.argv[1:] if loads(scheme)]))
"""
    asked = [*drivers.IN_IMAGE, *drivers.PACKAGES]
    done = subprocess.run(
        [str(binaries.superset_python()), "-c", program, *asked], check=True, capture_output=True, text=True
    )
    assert set(json.loads(done.stdout)) == drivers.IN_IMAGE
