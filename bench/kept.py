"""Pieces of a long benchmark are kept, so that a run that was stopped goes on where it was.

They lie in ``bench/results`` (ignored by git), in a folder named by the hash over everything that they depend on:
another line of code, and nothing of them counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[1]


def folder(name: str, sources: Sequence[str]) -> Path:
    """Where the pieces ``name`` lie that are made by ``sources``, folders or files of this repository, as they are.

    Processes of an image write there too, under another user: everybody may.
    """
    digest = hashlib.sha256()
    for source in sources:
        place = ROOT / source
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    made = ROOT / "bench" / "results" / f"{name}-{digest.hexdigest()[:16]}"
    made.mkdir(parents=True, exist_ok=True)
    made.chmod(0o777)
    return made


def piece(shelf: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """From the shelf, or made and put there."""
    path = shelf / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text())
    made = make()
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(made))
    unfinished.rename(path)
    return made
