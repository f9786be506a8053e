"""Credentials that are mounted, one file a key, as Kubernetes mounts a Secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def secret(folder: Path, name: str) -> str | None:
    """The value of a key; None where it is not mounted."""
    try:
        return (folder / name).read_text().strip() or None
    except OSError:
        return None
