"""What came of a trial, and where that outlives a process.

With a checkpoint each trial is one file beside it, which appears whole or not at all, with its SHA-256 behind it. Pods
of one search share that folder and need no lock: a trial has one result, whoever carries it out, so that whoever is
last writes the same (but for the seconds that it took).
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.durable import sealed, unsealed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_trainer.durable import Folder
    from fiduciary_trainer.search.space import Configuration

Floats = NDArray[np.float64]
State = Literal["Complete", "Pruned", "Failed"]
_FORMAT = 2


@dataclass(frozen=True)
class Tried:
    """One configuration in one search.

    Attributes:
        configuration: what was tried.
        state: Complete; Pruned: given up after some inner splits; Failed: ``reason`` says why.
        means: the loss a session, averaged over all inner splits so far, after each of them.
    """

    configuration: Configuration
    state: State
    means: tuple[float, ...] = ()
    reason: str = ""

    @property
    def loss(self) -> float | None:
        """What searches minimise: over all inner splits."""
        return self.means[-1] if self.state == "Complete" else None


@dataclass(frozen=True)
class Trial:
    """The n-th configuration of every search.

    Attributes:
        number: from 0.
        tried: in the order of the searches; the last one is the one that is followed: that of the final model.
        daily: ``(days,)`` loss of each session of the followed search's inner splits; empty where it is not complete.
        seconds: wall time; of no consequence but for how long another pod is waited for.
    """

    number: int
    tried: tuple[Tried, ...]
    daily: Floats
    seconds: float = 0.0

    @property
    def followed(self) -> Tried:
        return self.tried[-1]


@dataclass
class Trials:
    """Trials by number: those of this process, and of all others that share the folder.

    Attributes:
        header: what a trial must have been made with to count.
        folder: shared; None: nothing outlives the process.
    """

    header: Mapping[str, Any] = field(default_factory=dict)
    folder: Folder | None = None
    _known: dict[int, Trial] = field(default_factory=dict)

    def get(self, number: int) -> Trial | None:
        """Raises :class:`fiduciary_trainer.outcome.Retryable` where the folder cannot be reached."""
        if number not in self._known and self.folder is not None:
            content = self.folder.read(_name(number))
            found = None if content is None else _decode(content, {**self.header, "format": _FORMAT})
            if found is not None and found.number == number:
                self._known[number] = found
        return self._known.get(number)

    def put(self, trial: Trial) -> None:
        """Raises as :meth:`get`."""
        self._known[trial.number] = trial
        if self.folder is not None:
            self.folder.write(_name(trial.number), _encode(trial, {**self.header, "format": _FORMAT}))


def _name(number: int) -> str:
    return f"{number:04d}.npz"


def _encode(trial: Trial, header: Mapping[str, Any]) -> bytes:
    document = {
        "header": dict(header),
        "number": trial.number,
        "seconds": round(trial.seconds, 3),
        "tried": [[one.configuration, one.state, one.means, one.reason] for one in trial.tried],
    }
    file = io.BytesIO()
    text = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
    np.savez(file, allow_pickle=False, document=text, daily=trial.daily)
    return sealed(file.getvalue())


def _decode(content: bytes, header: Mapping[str, Any]) -> Trial | None:
    """None for what is damaged, or of other data, another key or another torch."""
    try:
        with np.load(io.BytesIO(unsealed(content)), allow_pickle=False) as file:
            document, daily = json.loads(file["document"].tobytes()), file["daily"]
        if document["header"] != header:
            return None
        tried = tuple(
            Tried(configuration, state, tuple(means), reason)
            for configuration, state, means, reason in document["tried"]
        )
        return Trial(document["number"], tried, daily, document["seconds"])
    except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile):
        return None
