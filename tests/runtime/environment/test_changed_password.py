"""The metadata database's password in Secrets Manager, changed while queries run, with real servers and moto's service."""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from local import binaries
from runtime.environment import metadata_password
from runtime.environment.metadata_password import ManagedPassword, PasswordUnreadable
from tests.aws_services import aws_services
from tests.runtime.conftest import PROJECT, Prepared, renewed, until
from tests.runtime.queries.conftest import Web, Worker

REGION = "eu-central-1"
ROLE = "keeper"
REFUSED = f'password authentication failed for user "{ROLE}"'


class Refused(Exception):
    """What psycopg2 raises, by its text."""

    def __init__(self) -> None:
        super().__init__(f"FATAL:  {REFUSED}")


class Server:
    """A server whose password changes before the secret does: `secret` is what the secret says, one reading after the other."""

    def __init__(self, password: str, *secret: str) -> None:
        self.password, self.left, self.asked = password, list(secret), 0

    def read(self, arn: str) -> str:
        self.asked += 1
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def log_in(self, password: str) -> str:
        if password != self.password:
            raise Refused
        return password


def test_a_password_is_read_once_and_again_only_when_it_is_refused() -> None:
    server = Server("first", "first")
    password = ManagedPassword("arn", server.read)
    assert [password.log_in(server.log_in) for _ in range(3)] == ["first"] * 3
    assert server.asked == 1
    server.password, server.left = "second", ["second"]
    assert password.log_in(server.log_in) == "second"
    assert server.asked == 2


def test_a_log_in_waits_for_a_secret_that_is_behind_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_password, "wait_fixed", lambda _: lambda _: 0)
    server = Server("second", "first", "first", "first", "second")
    assert ManagedPassword("arn", server.read).log_in(server.log_in) == "second"


def test_a_password_that_stays_wrong_is_refused_in_the_servers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_password, "CHANGE_SECONDS", 0)
    server = Server("right", "wrong")
    with pytest.raises(Refused, match=REFUSED):
        ManagedPassword("arn", server.read).log_in(server.log_in)


def test_what_is_no_refusal_reads_nothing_again() -> None:
    def away(password: str) -> None:
        raise OSError("connection refused")

    server = Server("first", "first")
    with pytest.raises(OSError, match="connection refused"):
        ManagedPassword("arn", server.read).log_in(away)
    assert server.asked == 1


def test_a_secret_with_another_content_holds_no_password() -> None:
    for found in ("", "[]", '{"password": ""}', '{"password": 3}', "null"):
        with pytest.raises(PasswordUnreadable, match="holds no JSON"):
            metadata_password.password_of("arn", found)


@dataclass(frozen=True)
class Kept(Prepared):
    """A stack whose metadata database's role has a password in Secrets Manager, and no process a variable with it."""

    endpoint: str = ""
    arn: str = ""

    def environment(self, role: str) -> dict[str, str]:
        """The environment of a process of that role: what EKS's Pod Identity gives stands here as keys."""
        env = self.services.process_environment(self.topology, role, "password-in-aws") | aws(self.endpoint)
        del env["POSTGRES_PASSWORD"]
        return env

    @property
    def log(self) -> Path:
        """What PostgreSQL writes."""
        return self.services.folder / "services.log"

    def change_server(self, password: str) -> None:
        """The first step of a change, as RDS does it."""
        self.services.sql(f"ALTER ROLE {ROLE} PASSWORD '{password}'", database="postgres")

    def change_secret(self, password: str) -> None:
        """The second."""
        client(self.endpoint).put_secret_value(SecretId=self.arn, SecretString=content(password))


def aws(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def content(password: str) -> str:
    return json.dumps({"username": ROLE, "password": password})


def client(endpoint: str) -> Any:
    return boto3.client(
        "secretsmanager",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with aws_services() as url:
        yield url


@pytest.fixture(scope="module")
def kept(initialized: Prepared, endpoint: str) -> Iterator[Kept]:
    prepared = renewed(initialized)
    first = secrets.token_urlsafe(12)
    prepared.services.sql(f"CREATE ROLE {ROLE} SUPERUSER LOGIN PASSWORD '{first}'", database="postgres")
    arn = client(endpoint).create_secret(Name="rds!db-metadata", SecretString=content(first))["ARN"]
    server = prepared.topology.postgres.model_copy(update={"user": ROLE, "password_secret_arn": arn})
    topology = prepared.topology.model_copy(update={"postgres": server})
    yield Kept(prepared.services, topology, prepared.first_run, endpoint, arn)
    prepared.services.sql(f"REASSIGN OWNED BY {ROLE} TO superset; DROP ROLE {ROLE}")


@pytest.mark.superset
def test_no_query_is_lost_while_the_password_changes(kept: Kept) -> None:
    """A query runs on; idle connections are gone, as after a failover; and everybody logs in anew, before the secret follows."""
    web = Web(kept)
    worker = Worker(kept, "changed-password")
    second = secrets.token_urlsafe(12)
    refusals = kept.log.read_text().count(REFUSED)

    def follow() -> None:
        until(lambda: kept.log.read_text().count(REFUSED) > refusals, 60, "somebody is refused")
        kept.change_secret(second)

    try:
        worker.start()
        running = web.submit("SELECT slow(6), 'runs on'", "library")
        until(lambda: worker.finds("runs on"), 60, "it runs")
        kept.change_server(second)
        kept.services.sql(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}' AND state = 'idle'",
            database="postgres",
        )
        secret_follows = threading.Thread(target=follow)
        secret_follows.start()
        during = [web.submit(f"SELECT {number}", "library") for number in range(3)]
        secret_follows.join()
        after = [web.submit(f"SELECT {number}", "library") for number in range(3)]
        for query in (running, *during, *after):
            assert web.ended(query)["status"] == "success", worker.log.read_text()[-4000:]
    finally:
        worker.stop()
        web.close()
    assert kept.log.read_text().count(REFUSED) > refusals, "the old password was tried"
    assert second not in worker.log.read_text()


@pytest.mark.superset
@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("no-such", "ResourceNotFoundException"),
        ("not-json", "holds no JSON with a password"),
    ],
)
def test_a_secret_that_cannot_be_read_is_said_by_its_arn(kept: Kept, secret: str, said: str) -> None:
    """By the container that waits for the metadata database: it says what is missing, and goes on waiting."""
    if secret == "not-json":
        client(kept.endpoint).create_secret(Name=secret, SecretString="hunter2")
    arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:{secret}"
    arn = client(kept.endpoint).describe_secret(SecretId=secret)["ARN"] if secret == "not-json" else arn
    server = kept.topology.postgres.model_copy(update={"password_secret_arn": arn})
    wrong = replace(kept, topology=kept.topology.model_copy(update={"postgres": server}))
    command = [str(binaries.superset_python()), "-m", "runtime.start.ready", "--wait=0"]
    done = subprocess.run(command, env=wrong.environment("web"), cwd=PROJECT, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert arn in done.stderr
    assert said in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
