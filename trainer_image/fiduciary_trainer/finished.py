"""A measured training on disk, from the moment it is measured until MLflow has all of it.

Measuring may take hours and MLflow may be away when it ends. The work is therefore written down first, as one folder
that appears whole (rename), and uploaded from there. A retry that finds the folder of its own training key (on the
checkpoint volume, or in the same container's work directory) uploads and does not train again.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary_features.artifact import verify
from fiduciary_trainer.outcome import encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DOCUMENT = "finished.json"


@dataclass(frozen=True)
class Point:
    """One value of a curve: metric ``name`` at ``step`` (an epoch), logged at ``at_ms`` (milliseconds since 1970).

    The time is part of the point, so that logging it twice writes the same row of MLflow's database once.
    """

    name: str
    value: float
    step: int
    at_ms: int


@dataclass(frozen=True)
class Finished:
    """A folder with ``version/``, ``report/``, ``folds.json`` and what MLflow should be told about them.

    Attributes:
        folder: where it is.
        result: the termination message without ``runId``, ``experimentId`` and ``source``, which MLflow gives.
        parameters: for the run's parameter table.
        points: single values and curves.
        tags: of the run.
        trials: of a search, see :func:`fiduciary_trainer.search.summary.of_trial`.
    """

    folder: Path
    result: Mapping[str, Any]
    parameters: Mapping[str, str]
    points: Sequence[Point]
    tags: Mapping[str, str]
    trials: Sequence[Mapping[str, Any]] = ()


def place(state: Path, training_key: str) -> Path:
    """The folder of one training key under the state directory."""
    return state / training_key.removeprefix("sha256:")[:32]


def save(
    state: Path,
    training_key: str,
    content: Path,
    result: Mapping[str, Any],
    parameters: Mapping[str, str],
    points: Sequence[Point],
    tags: Mapping[str, str],
    trials: Sequence[Mapping[str, Any]] = (),
) -> Finished:
    """Move the folder ``content`` to its place and add the document; afterwards the work survives this process.

    Args:
        state: directory on a volume; on the checkpoint claim where there is one.
        training_key: whose work it is.
        content: holds ``version/`` with its manifest, ``report/``, ``folds.json``; may be on another file system.
        result, parameters, points, tags, trials: see :class:`Finished`.
    """
    target, trials = place(state, training_key), list(trials)
    state.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(content, partial)
    document = {
        "trainingKey": training_key,
        "result": result,
        "parameters": dict(parameters),
        "points": [[point.name, point.value, point.step, point.at_ms] for point in points],
        "tags": dict(tags),
        "trials": trials,
    }
    (partial / _DOCUMENT).write_bytes(encode(document))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return Finished(target, result, parameters, points, tags, trials)


def load(state: Path, training_key: str) -> Finished | None:
    """The finished work of a training key, or None where there is none or where it is not intact.

    The version's files must match its manifest and the manifest the recorded digest: a volume can be damaged or
    edited, and a damaged version must be trained again rather than registered.
    """
    folder = place(state, training_key)
    try:
        document: dict[str, Any] = json.loads((folder / _DOCUMENT).read_bytes())
        intact = document["trainingKey"] == training_key and verify(folder / "version") == document["result"]["digest"]
        points = [Point(name, value, step, at_ms) for name, value, step, at_ms in document["points"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not intact:
        return None
    return Finished(
        folder, document["result"], document["parameters"], points, document["tags"], document.get("trials", [])
    )


def discard(finished: Finished) -> None:
    """Remove the folder after MLflow has everything."""
    shutil.rmtree(finished.folder, ignore_errors=True)
