"""Pieces that were played are kept, so that a run that was stopped goes on where it was.

They lie in ``bench/results`` (ignored by git), in a folder named by the hash over everything that they depend on:
another line of code, and nothing of them counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.decisions.outcome import Outcomes
from bench.decisions.sweep import Point

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("bench/decisions", "operator/fiduciary/evidence", "operator/fiduciary/decide/experiment")
WORDS = ("report.py", "plots.py", "__main__.py", "runner.py", "shelf.py", "words.py", "rows.py")
"""Files that say and draw, and change no number."""


def folder() -> Path:
    """Of the code as it is now."""
    digest = hashlib.sha256(np.__version__.encode())
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            if path.name not in WORDS:
                digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return ROOT / "bench/results" / f"decisions-{digest.hexdigest()[:16]}"


def holds(shelf: Path, name: str) -> bool:
    """Whether a piece of this name was played before."""
    return (shelf / f"{name}.npz").exists()


def outcomes(shelf: Path, name: str, play: Callable[[], dict[str, Outcomes]]) -> dict[str, Outcomes]:
    """From the shelf, or played and put there."""
    path = shelf / f"{name}.npz"
    if path.exists():
        with np.load(path) as stored:
            rules = dict.fromkeys(key.partition("/")[0] for key in stored.files)
            parts = ("verdict", "minutes", "excess_bad")
            return {rule: Outcomes(*(stored[f"{rule}/{part}"] for part in parts)) for rule in rules}
    made = play()
    arrays = {
        f"{rule}/{part}": getattr(outcome, part)
        for rule, outcome in made.items()
        for part in ("verdict", "minutes", "excess_bad")
    }
    shelf.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)
    unfinished.rename(path)
    return made


def point(shelf: Path, name: str, play: Callable[[], Point]) -> Point:
    """The same for one setting of the fronts."""
    path = shelf / f"{name}.json"
    if path.exists():
        return Point(**json.loads(path.read_text()))
    made = play()
    shelf.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(asdict(made)))
    unfinished.rename(path)
    return made
