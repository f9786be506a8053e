"""A version in an S3 bucket. Without mounted keys botocore looks for the pod's own identity."""

from __future__ import annotations

from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from fiduciary_server.ending import Ended
from fiduciary_server.fetching.secrets import secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ARGUMENTS = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_ENDPOINT_URL": "endpoint_url",
    "AWS_REGION": "region_name",
}
"""Keys of the Secret, as for the trainer, and botocore's arguments."""


class Bucket:
    """A folder of a bucket.

    Args:
        bucket, prefix: where.
        uri: for messages.
        secrets: one file a key.
    """

    def __init__(self, bucket: str, prefix: str, uri: str, secrets: Path) -> None:
        self._bucket, self._prefix, self._uri = bucket, prefix, uri
        session = Session()
        given = {argument: value for key, argument in _ARGUMENTS.items() if (value := secret(secrets, key))}
        # A public bucket needs no credentials, and signing without any is an error.
        anonymous = "aws_access_key_id" not in given and session.get_credentials() is None
        config = Config(
            connect_timeout=10,
            read_timeout=10,
            retries={"max_attempts": 1},
            signature_version=UNSIGNED if anonymous else None,
            s3={"addressing_style": "path"} if "endpoint_url" in given else None,
        )
        region = given.pop("region_name", None) or session.get_config_variable("region") or "us-east-1"
        self._client: Any = session.create_client("s3", region_name=region, config=config, **given)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        try:
            body = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")["Body"]
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._refusal(name, error) from None
        try:
            yield cast("IO[bytes]", body)
        except BotoCoreError as error:  # while it was read
            raise self._refusal(name, error) from None
        finally:
            body.close()

    def _refusal(self, name: str, error: Exception) -> Ended:
        if not isinstance(error, ClientError):
            return Ended("ArtifactStoreUnreachable", f"{self._uri}/{name} cannot be reached ({type(error).__name__})")
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in ("NoSuchKey", "NoSuchBucket", "404") or status == 404:
            return Ended("ArtifactNotFound", f"{self._uri}/{name} does not exist ({code})")
        if status in (401, 403):
            return Ended("RegistryUnauthorized", f"{self._uri}/{name} may not be read ({code}); check the Secret")
        return Ended("ArtifactStoreUnreachable", f"{self._uri}/{name}: the store answers {status} {code}")
