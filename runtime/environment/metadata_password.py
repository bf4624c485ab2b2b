"""The metadata database's password: the environment's, or the one that AWS Secrets Manager has, which RDS changes by itself.

A changed password ends no connection: PostgreSQL asks for it only at a log-in. So it is read once a process, kept, and read again
when a log-in with it is refused.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from runtime.environment.secrets import ConfigurationError
from topology.model import Topology

logger = logging.getLogger(__name__)

T = TypeVar("T")
#: A change is not one step: for a moment the server has the new password and the secret still the old one. So long a refused
#: log-in is tried again, once a second.
CHANGE_SECONDS = 20
#: A service that does not take a connection, or is silent, for so long is away; and calls in all.
CONNECT_SECONDS, SILENT_SECONDS, ATTEMPTS = 3, 5, 3
#: PostgreSQL's words for a wrong password (SQLSTATE 28P01), by which psycopg2 alone tells it from a server that is away.
REFUSED = "password authentication failed"


class PasswordUnreadable(Exception):
    """The secret with the password cannot be read; the message says which, why, and what is needed."""


class ManagedPassword:
    """The password that a secret of AWS Secrets Manager has, as this process knows it."""

    def __init__(self, arn: str, read: Callable[[str], str]) -> None:
        self._arn = arn
        self._read = read
        self._known: str | None = None
        self._lock = threading.Lock()

    def log_in(self, attempt: Callable[[str], T]) -> T:
        """What `attempt` returns with the password. Where it is refused, the secret is read again, for at most `CHANGE_SECONDS`.

        Raises what `attempt` raises, and PasswordUnreadable.
        """
        with self._lock:
            if self._known is None:
                self._known = self._read(self._arn)
            password = self._known
        try:
            return attempt(password)
        except Exception as error:
            if REFUSED not in str(error):
                raise
        retrying = Retrying(
            retry=retry_if_exception(lambda error: REFUSED in str(error)),
            stop=stop_after_delay(CHANGE_SECONDS),
            wait=wait_fixed(1),
            reraise=True,
        )
        return retrying(lambda: attempt(self._after(password)))

    def _after(self, refused: str) -> str:
        """The password after one that was refused: what another thread has read since, or what the secret has now."""
        with self._lock:
            if self._known in (None, refused):
                self._known = self._read(self._arn)
                if self._known != refused:
                    logger.info("the metadata database's password was changed: read again from %s", self._arn)
            return self._known or ""


def log_in(topology: Topology, env: Mapping[str, str], attempt: Callable[[str], T]) -> T:
    """What `attempt` returns with the password of the metadata database, wherever that is.

    Raises what `attempt` raises, ConfigurationError where the environment lacks the password, and PasswordUnreadable.
    """
    server = topology.postgres
    if server.password_secret_arn:
        return managed(server.password_secret_arn).log_in(attempt)
    password = env.get(server.password_env)
    if not password:
        raise ConfigurationError(
            f"stack {topology.stack!r}: {server.password_env} is not set. Give it as an environment variable"
        )
    return attempt(password)


@lru_cache(maxsize=1)
def managed(arn: str) -> ManagedPassword:
    """The password of the secret `arn`, one a process; a child that is forked keeps what its parent knew."""
    password = ManagedPassword(arn, read_secret)
    # A child that is forked while another thread holds the lock would wait for it for ever.
    os.register_at_fork(after_in_child=lambda: setattr(password, "_lock", threading.Lock()))
    return password


def read_secret(arn: str) -> str:
    """The password in the secret `arn`, as RDS writes it there; PasswordUnreadable. Credentials are whatever boto3 finds."""
    # Half a second, which only processes with such a password pay.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    session: Any = boto3.session.Session()
    try:
        # A client of its own for each reading: they are rare, and a forked child must share no connection.
        client = session.client(
            "secretsmanager",
            region_name=arn.split(":")[3],
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=SILENT_SECONDS,
                retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            ),
        )
        return password_of(arn, client.get_secret_value(SecretId=arn)["SecretString"])
    except (BotoCoreError, ClientError, OSError) as error:
        code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else type(error).__name__
        raise PasswordUnreadable(
            f"the metadata database's password cannot be read from {arn}: {code}. The process's role must be allowed "
            "secretsmanager:GetSecretValue on it and kms:Decrypt with its key, and must reach the service"
        ) from error


def password_of(arn: str, content: str) -> str:
    """The password in a secret's content, which RDS writes as JSON; PasswordUnreadable where there is none."""
    try:
        password = json.loads(content)["password"]
    except (ValueError, KeyError, TypeError):
        password = None
    if not isinstance(password, str) or not password:
        raise PasswordUnreadable(f"the secret {arn} holds no JSON with a password, as RDS writes it")
    return password
