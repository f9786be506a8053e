"""Download a version and compare it with the digest that is wanted, file by file; nothing else may be served."""

from __future__ import annotations

import hashlib
import http.client
import sys
import time
from typing import IO, TYPE_CHECKING, TypeVar

from fiduciary_features import artifact
from fiduciary_server.ending import Ended
from fiduciary_server.fetching.stores import store_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fiduciary_server.contract import Serving
    from fiduciary_server.fetching.stores import Store

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds of asking a store that does not answer. Then the container ends and its status says so; the kubelet starts it
again, with growing delays."""

LONGEST_MANIFEST, LONGEST_FILE = 1 << 16, 1 << 30
"""Bytes. A store is not trusted to end."""

_PIECE = 1 << 20


def fetch(serving: Serving, folder: Path, claims: Path, secrets: Path, *, patience: float = PATIENCE) -> None:
    """Bring the version into ``folder``; done at once where it is there already.

    Args:
        serving: what is wanted.
        folder: exists, is writable; what else is in it is removed.
        claims, secrets: see :func:`store_of`.
        patience: seconds.

    Raises:
        Ended: DigestMismatch, BadVersion, and what the store raises.
    """
    if _is_there(folder, serving.digest):
        return
    end = time.monotonic() + patience
    store = _patiently(lambda: store_of(serving.source, claims, secrets), end)
    manifest = _patiently(lambda: _manifest(store, serving), end)
    try:
        listed = artifact.listed_files(manifest)
    except ValueError as error:
        raise Ended("BadVersion", f"{serving.source.uri}: {error}") from None
    for stale in folder.iterdir():
        stale.unlink()
    for name, expected in listed.items():
        _patiently(lambda name=name, expected=expected: _file(store, name, expected, folder, serving), end)
    # Last: a folder without it is not taken for a version.
    (folder / artifact.MANIFEST).write_bytes(manifest)
    verify(folder, serving.digest)


def verify(folder: Path, digest: str) -> None:
    """Compare a folder with a digest.

    Raises:
        Ended: DigestMismatch.
    """
    try:
        found = artifact.verify(folder)
    except (OSError, ValueError) as error:
        raise Ended("DigestMismatch", f"{folder} is not the version {digest}: {error}") from None
    if found != digest:
        raise Ended("DigestMismatch", f"{folder} holds {found}; expected {digest}")


def _is_there(folder: Path, digest: str) -> bool:
    try:
        return artifact.verify(folder) == digest
    except (OSError, ValueError):
        return False


def _manifest(store: Store, serving: Serving) -> bytes:
    with store.open(artifact.MANIFEST) as stream:
        content = _read(stream, LONGEST_MANIFEST + 1, serving)
    if (found := artifact.digest_of(content)) != serving.digest:
        raise Ended(
            "DigestMismatch",
            f"{serving.source.uri} holds the version {found}; expected {serving.digest}: the artifact was "
            "changed after it was registered, or the reference is wrong; it is not served",
        )
    return content


def _file(store: Store, name: str, expected: str, folder: Path, serving: Serving) -> None:
    digest, size = hashlib.sha256(), 0
    with store.open(name) as stream, (folder / name).open("wb") as kept:
        while piece := _read(stream, _PIECE, serving):
            digest.update(piece)
            size += len(piece)
            if size > LONGEST_FILE:
                raise Ended("BadVersion", f"{serving.source.uri}/{name} is longer than {LONGEST_FILE} bytes")
            kept.write(piece)
    if digest.hexdigest() != expected:
        raise Ended(
            "DigestMismatch",
            f"{serving.source.uri}/{name} has sha256 {digest.hexdigest()}; the manifest says {expected}: the file was "
            "changed after the version was made; it is not served",
        )


def _read(stream: IO[bytes], size: int, serving: Serving) -> bytes:
    """A piece of an answer; one that breaks off is a store that is away, not a wrong file."""
    try:
        piece = stream.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise Ended(
            "ArtifactStoreUnreachable", f"the answer for {serving.source.uri} broke off ({type(error).__name__})"
        ) from None
    # http.client ends a short answer silently; what is left of the promised length tells.
    if len(piece) < size and getattr(stream, "length", None):
        raise Ended("ArtifactStoreUnreachable", f"the answer for {serving.source.uri} broke off")
    return piece


def _patiently(step: Callable[[], T], end: float) -> T:
    """Repeat a step while its store is unreachable."""
    delay = 0.5
    while True:
        try:
            return step()
        except Ended as ended:
            if ended.reason != "ArtifactStoreUnreachable" or time.monotonic() + delay > end:
                raise
            sys.stderr.write(f"{ended.message}; trying again\n")
        time.sleep(delay)
        delay = min(2.0 * delay, 5.0)
