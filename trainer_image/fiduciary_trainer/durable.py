"""Files that outlive a pod: on a claim or in a bucket, each whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiduciary_trainer.data.locations import UNREACHABLE
from fiduciary_trainer.outcome import Retryable

if TYPE_CHECKING:
    from fiduciary_trainer.data.locations import Locations


_DIGEST = hashlib.sha256().digest_size


def sealed(content: bytes) -> bytes:
    """The content with its SHA-256 behind it: an archive's own sums cover neither names nor how to read it."""
    return content + hashlib.sha256(content).digest()


def unsealed(content: bytes) -> bytes:
    """What was sealed. Raises ValueError: it is torn, or a bit of it has flipped."""
    content, told = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(content).digest() != told:
        raise ValueError("the file is not what was written")
    return content


@dataclass(frozen=True)
class Folder:
    """A folder under the place of checkpoints.

    Attributes:
        uri: ``pvc://claim/path``, ``s3://bucket/path`` or, in tests, ``file://path``.
        locations: mounts and credentials.
        shared: several pods write at once: their unfinished files must not meet.
    """

    uri: str
    locations: Locations
    shared: bool = False

    def read(self, name: str) -> bytes | None:
        """None where there is no such file. Raises :class:`Retryable`: the place cannot be reached."""
        filesystem, path = self._place
        try:
            return filesystem.cat_file(f"{path}/{name}")
        except FileNotFoundError:
            return None
        except UNREACHABLE as error:
            raise Retryable(
                "CheckpointUnreachable",
                f"{self.uri}/{name} cannot be read ({type(error).__name__}); it is tried again",
            ) from None

    def write(self, name: str, content: bytes) -> None:
        """Raises :class:`Retryable`: there is no room, no right, or no answer."""
        filesystem, path = self._place
        target = f"{path}/{name}"
        try:
            if self.uri.startswith("s3://"):
                filesystem.pipe_file(target, content)  # an object appears whole or not at all
            else:
                suffix = f".{secrets.token_hex(4)}.partial" if self.shared else ".partial"
                _replace(Path(target), content, suffix)
        except UNREACHABLE as error:
            cause = getattr(error, "strerror", None) or type(error).__name__
            raise Retryable(
                "CheckpointNotWritten",
                f"{self.uri}/{name} cannot be written ({cause}); make room or access there; it is tried again",
            ) from None

    def remove(self, name: str = "") -> None:
        """A file, or everything, if it is there."""
        filesystem, path = self._place
        target = f"{path}/{name}".rstrip("/")
        if filesystem.exists(target):
            filesystem.rm(target, recursive=not name)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """File system and path, opened once: a connection for every epoch would cost more than the epoch."""
        return self.locations.open(self.uri, checkpoint=True)


def _replace(target: Path, content: bytes, suffix: str) -> None:
    """The old file or the new one, never half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(suffix)
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
