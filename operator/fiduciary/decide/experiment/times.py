"""Whole seconds since 1970, as states keep them, and the moments that the API shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = int(timedelta(days=365 * 8000) / timedelta(seconds=1))


def at(seconds: int) -> datetime:
    """The moment; far beyond any plan it stands still instead of overflowing."""
    return EPOCH + timedelta(seconds=min(seconds, LATEST))


def first_edge(after: int, block: int) -> int:
    """The first wall-clock edge (s) at or after ``after`` (s): where block 0 begins."""
    return -(-after // block) * block
