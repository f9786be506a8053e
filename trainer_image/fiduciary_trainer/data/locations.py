"""Where the pod has its mounts, and how a URI becomes a file system and a path."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec
from botocore.exceptions import BotoCoreError

from fiduciary_trainer.outcome import BadContract

if TYPE_CHECKING:
    from collections.abc import Mapping

_S3_KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
    "AWS_ENDPOINT_URL": "endpoint_url",
    "AWS_REGION": "region_name",
}
"""Keys of the Secret (the names that AWS tools use) and the arguments of s3fs."""


UNREACHABLE = (OSError, BotoCoreError)
"""What a file system raises when its storage does not answer; botocore's errors are no OSError."""


@dataclass(frozen=True)
class Locations:
    """Mounts of docs/trainer-contract.md; other folders in tests.

    Attributes:
        claims: holds one folder a claim that is read.
        checkpoints: holds the claim that checkpoints are kept on.
        secret: one file a key of the Secret; absent where the document names none.
        checkpoint_secret: likewise of checkpoints; absent: theirs is that of the data.
    """

    claims: Path = Path("/data")
    checkpoints: Path = Path("/checkpoint")
    secret: Path = Path("/etc/fiduciary/secret")
    checkpoint_secret: Path = Path("/etc/fiduciary/checkpoint-secret")

    def secrets(self) -> dict[str, str]:
        """The keys of the data's Secret."""
        return _keys(self.secret)

    def checkpoint_secrets(self) -> dict[str, str]:
        """The keys of the Secret of checkpoints, or of the data's where they have none of their own."""
        return _keys(self.checkpoint_secret if self.checkpoint_secret.is_dir() else self.secret)

    def open(self, uri: str, *, checkpoint: bool = False) -> tuple[Any, str]:
        """The fsspec file system of a URI and the path (or pattern) in it.

        Raises:
            BadContract: an unknown scheme, or a path that leaves its claim.
        """
        parts = urlsplit(uri)
        if ".." in Path(parts.path).parts:
            raise BadContract("InvalidValue", f"{uri} holds '..'; expected a path below its claim, bucket or folder")
        if parts.scheme == "s3":
            secrets = self.checkpoint_secrets() if checkpoint else self.secrets()
            return fsspec.filesystem("s3", **_s3(secrets)), f"{parts.netloc}{parts.path}"
        if parts.scheme == "pvc":
            root = self.checkpoints if checkpoint else self.claims
            return fsspec.filesystem("file"), str(root / parts.netloc / parts.path.lstrip("/"))
        if parts.scheme == "file" and not parts.netloc:
            return fsspec.filesystem("file"), parts.path
        raise BadContract("InvalidValue", f"{uri!r} is no location; expected s3://, pvc:// or file:///")


def _keys(folder: Path) -> dict[str, str]:
    """Kubernetes keeps its own bookkeeping in names that begin with two dots."""
    if not folder.is_dir():
        return {}
    files = (file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".."))
    return {file.name: file.read_text().strip() for file in files}


def _s3(secrets: Mapping[str, str]) -> dict[str, Any]:
    given = {_S3_KEYS[key]: value for key, value in secrets.items() if key in _S3_KEYS}
    region = given.pop("region_name", None)
    # Without a Secret s3fs would look for credentials of the machine; a public bucket needs none.
    return {
        "anon": "key" not in given,
        "client_kwargs": {} if region is None else {"region_name": region},
        "skip_instance_cache": True,
        "default_cache_type": "none",
        **given,
    }


def secret_values(locations: Locations) -> list[str]:
    """Values that no message may repeat: the mounted Secrets and whatever the environment calls a secret."""
    names = ("TOKEN", "PASSWORD", "SECRET", "ACCESS_KEY")
    from_environment = [value for name, value in os.environ.items() if any(part in name for part in names)]
    try:
        mounted = (*locations.secrets().values(), *locations.checkpoint_secrets().values())
        return [*dict.fromkeys(mounted), *from_environment]
    except OSError:
        return from_environment
