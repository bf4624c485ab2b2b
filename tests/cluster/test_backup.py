"""The metadata database in real pods: its backup job dumps it, and its restore job brings back what was lost."""

from __future__ import annotations

import pytest
import yaml

from tests.cluster import images
from tests.cluster.conftest import Stacks
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deployed import settle
from tests.cluster.real_node import RealNode

pytestmark = pytest.mark.cluster

NAMESPACE = "backup"
IMAGE = "localhost/postgres:1"
SETTINGS = {
    "images": {"postgres": IMAGE},
    "postgres": {
        "volume_size": "1Gi",
        "resources": {"cpu_request": "50m", "memory_request": "256Mi", "memory_limit": "1Gi"},
        "backup": {"cron": "41 1 * * *", "keep": 2, "volume_size": "2Gi"},
    },
}


@pytest.fixture(scope="module")
def database(node: RealNode, stacks: Stacks) -> ControlPlane:
    """PostgreSQL and its jobs from the rendered stack, at rest on the node."""
    rendered = stacks.render(NAMESPACE, "enterprise", SETTINGS)
    mine = [
        each for each in rendered.manifests if each["kind"] == "Namespace" or each["metadata"]["name"].startswith("postgres")
    ]
    node.load(images.postgres(), IMAGE)
    node.cluster.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(mine))
    settle(node.cluster, NAMESPACE, 120)
    return node.cluster


def sql(cluster: ControlPlane, statement: str) -> str:
    arguments = ("exec", "postgres-0", f"--namespace={NAMESPACE}", "--container=postgres", "--")
    psql = ("psql", "--username=postgres", "--dbname=superset", "--tuples-only", "--no-align", f"--command={statement}")
    return cluster.kubectl(*arguments, *psql).stdout.strip()


def run_job(cluster: ControlPlane, cron_job: str, name: str) -> str:
    """Run the job of a CronJob now, as a person would, and return its log."""
    cluster.kubectl("create", "job", name, f"--from=cronjob/{cron_job}", f"--namespace={NAMESPACE}")
    cluster.kubectl("wait", "--for=condition=Complete", f"job/{name}", f"--namespace={NAMESPACE}", "--timeout=90s")
    return cluster.kubectl("logs", f"job/{name}", f"--namespace={NAMESPACE}").stdout


def test_what_is_lost_after_a_backup_is_restored(database: ControlPlane) -> None:
    sql(database, "SET ROLE superset; CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
    assert "bytes" in run_job(database, "postgres-backup", "now")
    sql(database, "DROP TABLE kept")
    assert "restored" in run_job(database, "postgres-backup-restore", "back")
    assert sql(database, "SELECT count(*), sum(number) FROM kept") == "1000|500500"


def test_only_the_restore_waits_for_a_person(database: ControlPlane) -> None:
    suspended = {each["metadata"]["name"]: each["spec"]["suspend"] for each in database.get("cronjobs", NAMESPACE)}
    assert suspended == {"postgres-backup": False, "postgres-backup-restore": True}
