"""State that survives a pod: written after epochs and on SIGTERM, read by the next attempt.

The file is a numpy archive without pickles, with its SHA-256 behind it (the archive's own sums cover no names): members
that are trained, and the one in training with its optimizer. No random state is in it, since every epoch draws from a
seed of its own (see ``derived_seed``): a training that was interrupted anywhere ends in the same bits as one that was
not.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from fiduciary_trainer.data.locations import UNREACHABLE, Locations
from fiduciary_trainer.outcome import Retryable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from fiduciary_trainer.contract import Contract

Arrays = dict[str, NDArray[Any]]
Epochs = list[dict[str, float | bool]]
_FORMAT = 3
_DIGEST = hashlib.sha256().digest_size


@dataclass
class Running:
    """A member in training after a whole epoch.

    Attributes:
        number, member: which fit, which member of it.
        epoch: the last one that ended; 0 before the first.
        best_epoch, best_loss: of the inner tail.
        state, best: parameters and buffers, now and at the best epoch.
        optimizer: its tensors by ``<parameter>/<name>``.
        history: one entry an epoch.
    """

    number: int
    member: int
    epoch: int
    best_epoch: int
    best_loss: float
    state: Arrays
    best: Arrays
    optimizer: Arrays
    history: Epochs


@dataclass
class Done:
    """A trained member: its best weights and how it got there."""

    best_epoch: int
    best: Arrays
    history: Epochs


@dataclass
class Attempt:
    """One process's try at a training: what earlier ones left, and whether this one has been told to stop.

    Attributes:
        path: URI of the checkpoint file; None: nothing is kept.
        every: epochs between two writes.
        header: what a checkpoint must have been made with to be used.
        resumed: whether an earlier attempt's checkpoint was found and used.
    """

    path: str | None
    every: int
    header: Mapping[str, Any]
    locations: Locations = field(default_factory=Locations)
    resumed: bool = False
    asked_to_stop: bool = False
    _done: dict[tuple[int, int], Done] = field(default_factory=dict)
    _running: Running | None = None

    @classmethod
    def begin(cls, contract: Contract, data_digest: str, locations: Locations | None = None) -> Attempt:
        """Look for a checkpoint of the same training on the same data.

        A checkpoint of other data, of another torch or one that cannot be read is left alone, and training starts
        from the beginning.

        Raises:
            Retryable: the place of checkpoints cannot be reached.
        """
        places = locations or Locations()
        checkpoint = contract.checkpoint
        key = contract.training_key.removeprefix("sha256:")[:32]
        header = {
            "format": _FORMAT,
            "trainingKey": contract.training_key,
            "dataDigest": data_digest,
            "torch": torch.__version__,
        }
        if checkpoint is None:
            return cls(None, 1, header, places)
        attempt = cls(f"{checkpoint.uri.rstrip('/')}/{key}.checkpoint.npz", checkpoint.every, header, places)
        attempt._load()
        return attempt

    def listen(self) -> None:
        """From now on SIGTERM asks to stop instead of ending the process. Main thread only."""

        def ask(_number: int, _frame: FrameType | None) -> None:
            self.asked_to_stop = True

        signal.signal(signal.SIGTERM, ask)

    def stop_if_asked(self) -> None:
        """Between fits. Raises :class:`Retryable` after SIGTERM."""
        if self.asked_to_stop:
            self.stop()

    def stop(self) -> NoReturn:
        """Write what is known and end. Raises :class:`Retryable`."""
        if self.path is None:
            raise Retryable(
                "Terminated",
                "the pod was told to stop (SIGTERM); without spec.training.checkpoint the next attempt starts anew",
            )
        self._write()
        where = "" if self._running is None else f" at epoch {self._running.epoch} of member {self._running.member + 1}"
        raise Retryable("Terminated", f"the pod was told to stop (SIGTERM){where}; the next attempt resumes there")

    def trained(self, number: int, member: int) -> Done | None:
        """A member that an earlier attempt has trained."""
        return self._done.get((number, member))

    def begun(self, number: int, member: int) -> Running | None:
        """A member that an earlier attempt had begun."""
        found = self._running
        return found if found is not None and (found.number, found.member) == (number, member) else None

    def keep(self, running: Running) -> None:
        """A whole epoch has ended; every few of them it is written."""
        self._running = running
        if self.path is not None and running.epoch % self.every == 0:
            self._write()

    def finish(self, number: int, member: int, done: Done) -> None:
        """A member is trained."""
        self._done[number, member] = done
        self._running = None

    def forget(self) -> None:
        """Remove the file once the work is safe elsewhere."""
        if self.path is None:
            return
        filesystem, path = self._place
        if filesystem.exists(path):
            filesystem.rm(path)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """File system and path, opened once: a connection for every epoch would cost more than the epoch."""
        assert self.path is not None
        return self.locations.open(self.path, checkpoint=True)

    def _write(self) -> None:
        assert self.path is not None
        content = _encode(self.header, self._done, self._running)
        filesystem, path = self._place
        try:
            if self.path.startswith("s3://"):
                filesystem.pipe_file(path, content)  # an object appears whole or not at all
            else:
                _replace(Path(path), content)
        except UNREACHABLE as error:
            cause = getattr(error, "strerror", None) or type(error).__name__
            raise Retryable(
                "CheckpointNotWritten",
                f"{self.path} cannot be written ({cause}); make room or access there; it is tried again",
            ) from None

    def _load(self) -> None:
        filesystem, path = self._place
        try:
            content = filesystem.cat_file(path)
        except FileNotFoundError:
            return
        except UNREACHABLE as error:
            raise Retryable(
                "CheckpointUnreachable", f"{self.path} cannot be read ({type(error).__name__}); it is tried again"
            ) from None
        try:
            header, done, running = _decode(content)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile):
            return
        if header == self.header:
            self._done, self._running, self.resumed = done, running, True


def _replace(target: Path, content: bytes) -> None:
    """The old file or the new one, never half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def _encode(header: Mapping[str, Any], done: Mapping[tuple[int, int], Done], running: Running | None) -> bytes:
    arrays: Arrays = {}
    document: dict[str, Any] = {"header": dict(header), "done": [], "running": None}
    for (number, member), each in sorted(done.items()):
        document["done"].append([number, member, each.best_epoch, each.history])
        arrays |= {f"done/{number}/{member}/{name}": value for name, value in each.best.items()}
    if running is not None:
        document["running"] = [
            running.number,
            running.member,
            running.epoch,
            running.best_epoch,
            running.best_loss,
            running.history,
        ]
        for part in ("state", "best", "optimizer"):
            arrays |= {f"{part}/{name}": value for name, value in getattr(running, part).items()}
    file = io.BytesIO()
    text = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
    np.savez(file, allow_pickle=False, document=text, **arrays)
    return file.getvalue() + hashlib.sha256(file.getvalue()).digest()


def _decode(content: bytes) -> tuple[dict[str, Any], dict[tuple[int, int], Done], Running | None]:
    """Raises ValueError for anything that :func:`_encode` did not write."""
    content, told = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(content).digest() != told:
        raise ValueError("the checkpoint is not what was written")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    document = json.loads(arrays.pop("document").tobytes())

    def below(prefix: str) -> Arrays:
        return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}

    done = {
        (number, member): Done(best_epoch, below(f"done/{number}/{member}/"), history)
        for number, member, best_epoch, history in document["done"]
    }
    running = None
    if document["running"] is not None:
        number, member, epoch, best_epoch, best_loss, history = document["running"]
        running = Running(
            number,
            member,
            epoch,
            best_epoch,
            best_loss,
            below("state/"),
            below("best/"),
            below("optimizer/"),
            history,
        )
    return document["header"], done, running
