"""Checkpoints and finished work of trainings that nobody resumes any more: a spec that was changed leaves its own."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fiduciary_trainer.data.locations import UNREACHABLE
from fiduciary_trainer.outcome import Retryable

if TYPE_CHECKING:
    from fiduciary_trainer.data.locations import Locations
    from fiduciary_trainer.job import Contract

KEPT = timedelta(days=30)
"""Longer than any training's deadline: what was not written to since then belongs to nothing that runs."""

PATTERNS = ("*.checkpoint.npz", "*.partial", "*.trials", "finished/*")
"""What trainings leave in the folder of ``checkpoint.uri``, which several models may share."""


def forget(contract: Contract, locations: Locations) -> None:
    """Remove what this training kept, once its result is delivered.

    Nothing takes that back: a store that does not answer, or that lets nothing be removed, keeps it until it is old.
    Another pod of the search may be writing there still.
    """
    from fiduciary_trainer.checkpoint import Attempt  # torch, which an upload alone does not need

    with suppress(Retryable, *UNREACHABLE):
        Attempt.begin(contract, "", locations).forget()


def forget_old(contract: Contract, locations: Locations, now: datetime) -> int:
    """Remove what was not written to for :data:`KEPT`; how much that was.

    A store that does not list or remove is no reason to end a training: the next one tries again.
    """
    if contract.checkpoint is None:
        return 0
    filesystem, folder = locations.open(contract.checkpoint.uri.rstrip("/"), checkpoint=True)
    removed = 0
    for pattern in PATTERNS:
        try:
            for path in filesystem.glob(f"{folder}/{pattern}"):
                if now - _written(filesystem, path) > KEPT:
                    filesystem.rm(path, recursive=True)
                    removed += 1
        except UNREACHABLE:
            continue
    return removed


def _written(filesystem: Any, path: str) -> datetime:
    """The newest write below a path; a folder of an object store has no time of its own."""
    return max(filesystem.modified(each) for each in filesystem.find(path) or [path])
