"""A real S3 server (moto, in threads of this process) with one bucket and one user; signatures are checked."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET, REGION = "desk", "eu-central-1"
_EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@dataclass(frozen=True)
class Server:
    """Where it listens, and with which keys it lets somebody in."""

    address: str
    key: str
    secret: str
    client: Any = field(repr=False)

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def names(self) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


@contextmanager
def running() -> Iterator[Server]:
    """Start it with an empty bucket."""
    accounts, buckets = iam_backends[DEFAULT_ACCOUNT_ID]["aws"], s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for backend in (accounts, buckets):
        backend.reset()
    accounts.create_user(region_name=REGION, user_name="quant")
    accounts.put_user_policy("quant", "everything", json.dumps(_EVERYTHING))
    key = accounts.create_access_key("quant")
    buckets.create_bucket(BUCKET, REGION)
    trusting, settings.INITIAL_NO_AUTH_ACTION_COUNT = settings.INITIAL_NO_AUTH_ACTION_COUNT, 0
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        region_name=REGION,
    )
    try:
        yield Server(address, key.access_key_id, key.secret_access_key, client)
    finally:
        server.stop()
        settings.INITIAL_NO_AUTH_ACTION_COUNT = trusting
