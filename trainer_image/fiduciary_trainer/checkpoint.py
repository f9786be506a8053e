"""State that survives a pod: written after epochs and on SIGTERM, read by the next attempt.

The file is a numpy archive without pickles, with its SHA-256 behind it: members that are trained, and the one in
training with its optimizer. No random state is in it, since every epoch draws from a seed of its own (see
``derived_seed``): a training that was interrupted anywhere ends in the same bits as one that was not.
"""

from __future__ import annotations

import io
import json
import signal
import zipfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from fiduciary_trainer import provenance
from fiduciary_trainer.data.locations import Locations
from fiduciary_trainer.durable import Folder, sealed, unsealed
from fiduciary_trainer.outcome import Retryable
from fiduciary_trainer.search.trials import Trials
from fiduciary_trainer.workers import ALONE, Workers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from fiduciary_trainer.job import Contract

Arrays = dict[str, NDArray[Any]]
Epochs = list[dict[str, float | bool]]
_FORMAT = 3


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
        folder: where the file ``name`` is; None: nothing is kept.
        every: epochs between two writes.
        header: what a checkpoint must have been made with to be used.
        resumed: whether an earlier attempt's checkpoint was found and used.
        writes: whether this process writes the file: one that only helps does not.
        workers: with whom networks are trained; what the first of them knows from earlier counts for all.
    """

    folder: Folder | None
    name: str
    every: int
    header: Mapping[str, Any]
    resumed: bool = False
    asked_to_stop: bool = False
    writes: bool = True
    workers: Workers = ALONE
    _done: dict[tuple[int, int], Done] = field(default_factory=dict)
    _running: Running | None = None

    @classmethod
    def begin(cls, contract: Contract, data_digest: str, locations: Locations | None = None) -> Attempt:
        """Look for a checkpoint of the same training on the same data.

        A checkpoint of other data, another torch or other code, or one that cannot be read, is left alone, and
        training starts from the beginning.

        Raises:
            Retryable: the place of checkpoints cannot be reached.
        """
        checkpoint = contract.checkpoint
        key = contract.training_key.removeprefix("sha256:")[:32]
        header = {
            "format": _FORMAT,
            "trainingKey": contract.training_key,
            "dataDigest": data_digest,
            "torch": torch.__version__,
            "code": provenance.code_sha256(),
        }
        folder = None if checkpoint is None else Folder(checkpoint.uri.rstrip("/"), locations or Locations())
        every = 1 if checkpoint is None else checkpoint.every
        attempt = cls(folder, f"{key}.checkpoint.npz", every, header, workers=Workers(contract.training.nodes))
        attempt._load()
        return attempt

    def trials(self) -> Trials:
        """The trials of a search, in a folder of their own beside the checkpoint."""
        folder = self.folder
        shared = None if folder is None else replace(folder, uri=f"{folder.uri}/{self._trials}", shared=True)
        return Trials({name: value for name, value in self.header.items() if name != "format"}, shared)

    @property
    def _trials(self) -> str:
        return self.name.replace(".checkpoint.npz", ".trials")

    def apart(self) -> Attempt:
        """For fits that are part of something that is kept as a whole: it hears of SIGTERM, and keeps nothing."""
        return _Apart(self)

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
        if self.folder is None:
            raise Retryable(
                "Terminated",
                "the pod was told to stop (SIGTERM); without spec.training.checkpoint the next attempt starts anew",
            )
        self._write()
        where = "" if self._running is None else f" at epoch {self._running.epoch} of member {self._running.member + 1}"
        raise Retryable("Terminated", f"the pod was told to stop (SIGTERM){where}; the next attempt resumes there")

    def trained(self, number: int, member: int) -> Done | None:
        """A member that an earlier attempt has trained. Raises :class:`WorkerLost`."""
        found = self._done.get((number, member))
        if self.workers.rank is None:
            return found
        told = self.workers.content(lambda: _encode({}, {} if found is None else {(number, member): found}, None))
        return _decode(told)[1].get((number, member))

    def begun(self, number: int, member: int) -> Running | None:
        """A member that an earlier attempt had begun. Raises :class:`WorkerLost`."""
        found = self._running
        if found is not None and (found.number, found.member) != (number, member):
            found = None
        if self.workers.rank is None:
            return found
        return _decode(self.workers.content(lambda: _encode({}, {}, found)))[2]

    def keep(self, running: Running) -> None:
        """A whole epoch has ended; every few of them it is written."""
        self._running = running
        if running.epoch % self.every == 0:
            self._write()

    def finish(self, number: int, member: int, done: Done) -> None:
        """A member is trained."""
        self._done[number, member] = done
        self._running = None

    def secure(self) -> None:
        """Write what is known now, whenever it would be written next."""
        self._write()

    def forget(self) -> None:
        """Remove the file, and those of trials, once the work is safe elsewhere."""
        if self.folder is not None:
            self.folder.remove(self.name)
            replace(self.folder, uri=f"{self.folder.uri}/{self._trials}").remove()

    def _write(self) -> None:
        if self.folder is not None and self.writes:
            self.folder.write(self.name, _encode(self.header, self._done, self._running))

    def _load(self) -> None:
        content = None if self.folder is None else self.folder.read(self.name)
        if content is None:
            return
        try:
            header, done, running = _decode(content)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile):
            return
        if header == self.header:
            self._done, self._running, self.resumed = done, running, True


class _Apart(Attempt):
    def __init__(self, whole: Attempt) -> None:
        super().__init__(None, whole.name, whole.every, whole.header)
        self._whole = whole

    @property
    def asked_to_stop(self) -> bool:  # type: ignore[override]
        return self._whole.asked_to_stop

    @asked_to_stop.setter
    def asked_to_stop(self, value: bool) -> None:
        """Said to the whole attempt alone."""

    def stop(self) -> NoReturn:
        self._whole.stop()

    def keep(self, running: Running) -> None:
        pass

    def finish(self, number: int, member: int, done: Done) -> None:
        pass


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
    return sealed(file.getvalue())


def _decode(content: bytes) -> tuple[dict[str, Any], dict[tuple[int, int], Done], Running | None]:
    """Raises ValueError for anything that :func:`_encode` did not write."""
    with np.load(io.BytesIO(unsealed(content)), allow_pickle=False) as file:
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
