"""Objects of an S3 bucket: what is put and got, within bounds of time and size, whatever the server does.

The bucket may be AWS's own or any server that speaks its protocol. A process has one client, with connections of its own: a
worker's child shares none with its parent. Credentials are whatever boto3 finds where the process runs; here none is kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from topology.settings.caching import ResultsBucket

logger = logging.getLogger(__name__)

#: A server that does not take a connection, or is silent, for so long is away.
CONNECT_SECONDS, SILENT_SECONDS = 3, 5
#: Calls in all for one operation: a second one for what was lost on the way.
ATTEMPTS = 2
#: What a whole object may take to come, however many pieces it comes in.
READ_SECONDS = 20
#: Time is looked at between pieces: small ones, or a server that drips would keep us in one.
_CHUNK_BYTES = 1 << 12
#: S3's codes for an object that is not there. Without the right to list, a missing object is also "AccessDenied".
_GONE = frozenset({"NoSuchKey", "404", "NotFound"})


class BucketError(Exception):
    """The bucket did not take or give an object; the message says which bucket, what happened and what to look at."""


class Bucket:
    """The objects of one purpose in a bucket; an object is at most `most_bytes` large."""

    def __init__(self, bucket: ResultsBucket, purpose: str, most_bytes: int) -> None:
        self._bucket = bucket
        self._prefix = f"{bucket.prefix}{purpose}/"
        self._most_bytes = most_bytes

    def key(self, name: str) -> str:
        """The object's key of `name`: a digest, since names hold what people wrote."""
        return self._prefix + hashlib.sha256(name.encode()).hexdigest()

    def put(self, name: str, content: bytes) -> None:
        """Store `content` as `name`. BucketError where it cannot be stored."""
        self._call("put_object", name, Body=content, ContentType="application/octet-stream")

    def get(self, name: str) -> bytes | None:
        """What `name` has, None where there is nothing.

        BucketError where it cannot be read, or is larger than any that was stored, or takes longer than `READ_SECONDS`.
        """
        try:
            answer = self._call("get_object", name)
        except BucketError as error:
            if _code(error.__cause__) in _GONE:
                return None
            raise
        size = int(answer["ContentLength"])
        if size > self._most_bytes:
            answer["Body"].close()
            raise BucketError(f"{self._where(name)} has {size} bytes, and none of ours has more than {self._most_bytes}")
        return self._read(name, answer["Body"])

    def delete(self, name: str) -> None:
        """Remove what `name` has, if anything. BucketError where that cannot be said."""
        self._call("delete_object", name)

    def _read(self, name: str, body: Any) -> bytes:
        deadline = time.monotonic() + READ_SECONDS
        pieces: list[bytes] = []
        try:
            for piece in body.iter_chunks(_CHUNK_BYTES):
                pieces.append(piece)
                if time.monotonic() > deadline:
                    raise BucketError(f"{self._where(name)} did not come within {READ_SECONDS} s")
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise self._failed("get_object", name, error) from error
        finally:
            body.close()
        return b"".join(pieces)

    def _call(self, operation: str, name: str, **parameters: Any) -> Any:
        try:
            call = getattr(_client(self._bucket.region, self._bucket.endpoint, os.getpid()), operation)
            return call(Bucket=self._bucket.name, Key=self.key(name), **parameters)
        except (BotoCoreError, ClientError, OSError) as error:
            raise self._failed(operation, name, error) from error

    def _failed(self, operation: str, name: str, error: Exception) -> BucketError:
        code = _code(error)
        advice = (
            "the process's role must be allowed s3:GetObject, s3:PutObject and s3:DeleteObject there, and its key"
            if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
            else "look at the store and the way to it"
        )
        # No header and no address with a signature is in these errors' texts.
        return BucketError(f"{operation} of {self._where(name)} failed: {code or type(error).__name__}; {advice}")

    def _where(self, name: str) -> str:
        return f"s3://{self._bucket.name}/{self.key(name)}"


def _code(error: BaseException | None) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


@lru_cache(maxsize=2)
def _client(region: str, endpoint: str | None, pid: int) -> Any:
    """The client of process `pid`: a child that was forked makes its own."""
    session: Any = boto3.session.Session()
    # A server of another make has one name for all buckets, and may not know the newer checksums.
    checksums = "when_required" if endpoint else "when_supported"
    return session.client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=SILENT_SECONDS,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            max_pool_connections=32,
            tcp_keepalive=True,
            s3={"addressing_style": "path" if endpoint else "virtual"},
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
        ),
    )
