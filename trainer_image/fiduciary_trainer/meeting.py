"""How the pods of one training find each other: at the first of them, by torch's own key-value store.

Kubernetes numbers the pods (``JOB_COMPLETION_INDEX``), and the manifest names the first one (``MASTER_ADDR``,
``MASTER_PORT``), whether a Job, a JobSet or a TrainJob made them. The first opens the store and waits until every
number has come; then all form one group. A pod that was replaced finds its number taken: the others do not know yet
that the one before is gone. It waits for the meeting of the next attempt, which begins when they do.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from fiduciary_trainer.outcome import Retryable, WorkerLost
from fiduciary_trainer.workers import Workers

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

PORT = 29500
"""torch's own; the manifests name it too."""

PATIENCE = 1800.0
"""Seconds that those who have come wait for the others: longer than a node takes to join a cluster."""

GOODBYE = 30.0
"""Seconds that the first waits for the others to hear that all is done."""

_STEP = timedelta(minutes=30)
"""Longest time that a worker is waited for within the group: the first one measures between two fits."""
_TRY = timedelta(seconds=5)
_POLL = 0.5


@dataclass(frozen=True)
class Place:
    """Which of how many pods this is, and where the first one listens."""

    rank: int
    count: int
    address: str
    port: int

    @classmethod
    def of(cls, nodes: int, environment: Mapping[str, str] = os.environ) -> Place | None:
        """None: this process trains alone, whatever the document says of nodes (a replay, a run by hand)."""
        address, index = environment.get("MASTER_ADDR", ""), environment.get("JOB_COMPLETION_INDEX", "")
        if nodes == 1 or not address or not index.isdecimal():
            return None
        return cls(int(index), nodes, address, int(environment.get("MASTER_PORT", str(PORT))))


class Meeting:
    """The store at the first pod, as one of the pods sees it.

    Args:
        place: of this pod.
        stop: set when the pod must end.
        patience: seconds that others are waited for.
    """

    def __init__(self, place: Place, stop: threading.Event, patience: float = PATIENCE) -> None:
        self._place = place
        self._stop = stop
        self._patience = patience
        self._store: dist.TCPStore | None = None

    def gather(self) -> Workers | None:
        """Wait until all have come; None: the training is over already, there is nothing to help with.

        Raises:
            Retryable: not all came in time, or the pod was told to stop.
            WorkerLost: one went while the group was formed.
        """
        place, until = self._place, time.monotonic() + self._patience
        if place.rank == 0:
            store = self._opened()
            self._wait(lambda: all(store.check([f"here/{n}"]) for n in range(1, place.count)), until, self._missing)
            store.set("all", "1")
        else:
            found = self._entered(until)
            if found is None:
                return None
            store = found
        self._store = store
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            dist.init_process_group(
                backend,
                store=dist.PrefixStore("group", store),
                rank=place.rank,
                world_size=place.count,
                timeout=_STEP,
            )
        except RuntimeError as error:
            raise WorkerLost("WorkerLost", "another worker went while all were meeting; all meet again") from error
        return Workers(place.count, place.rank)

    def done(self) -> None:
        """Said by the first when the result is safe; the others need not stay for another attempt."""
        store = self._store or self._opened()
        store.set("done", "1")
        until, others = time.monotonic() + GOODBYE, self._place.count - 1
        while store.add("bye", 0) < others and time.monotonic() < until:
            time.sleep(_POLL)

    def stay(self) -> None:
        """What the others do when all is fitted: until the result is safe they may be needed once more.

        Raises:
            WorkerLost: the first is gone before it was.
            Retryable: the pod was told to stop.
        """
        assert self._store is not None
        store = self._store
        try:
            while not store.check(["done"]):
                self._heed_stop()
                time.sleep(_POLL)
            store.add("bye", 1)
        except RuntimeError as error:
            raise WorkerLost(
                "WorkerLost", "the first worker went before its result was safe; all meet again"
            ) from error

    def _opened(self) -> dist.TCPStore:
        if self._store is None:
            self._store = _store("localhost", self._place.port, serves=True)
        return self._store

    def _entered(self, until: float) -> dist.TCPStore | None:
        """The store of an attempt that this number has not come to before."""
        while True:
            self._heed_stop()
            try:
                store = _store(self._place.address, self._place.port, serves=False)
                if store.check(["done"]):
                    store.add("bye", 1)
                    return None
                if store.add(f"here/{self._place.rank}", 1) == 1 and self._all_came(store, until):
                    return store
            except RuntimeError:
                pass  # the first is not there yet, or goes just now
            if time.monotonic() > until:
                raise self._missing()
            time.sleep(_POLL)

    def _all_came(self, store: dist.TCPStore, until: float) -> bool:
        """False: the first, which waits for nobody then, had nothing left to do."""
        self._wait(lambda: store.check(["all"]) or store.check(["done"]), until, self._missing)
        return store.check(["all"])

    def _wait(self, there: Callable[[], bool], until: float, late: Callable[[], Retryable]) -> None:
        while not there():
            self._heed_stop()
            if time.monotonic() > until:
                raise late()
            time.sleep(_POLL)

    def _heed_stop(self) -> None:
        if self._stop.is_set():
            raise Retryable("Terminated", "the pod was told to stop (SIGTERM) while the workers were meeting")

    def _missing(self) -> Retryable:
        place = self._place
        absent = "the first worker did not answer"
        if place.rank == 0:
            numbers = [n for n in range(1, place.count) if not self._opened().check([f"here/{n}"])]
            absent = f"workers {', '.join(map(str, numbers))} did not come"
        return Retryable(
            "WorkersMissing",
            f"{absent} within {self._patience:.0f} s; all {place.count} pods of spec.training.nodes must run at the "
            f"same time and reach {place.address}:{place.port} and each other",
        )


def _store(address: str, port: int, *, serves: bool) -> dist.TCPStore:
    # Debian's torch has no libuv, and a server of the one kind does not understand a client of the other.
    return dist.TCPStore(address, port, None, serves, _TRY, wait_for_workers=False, use_libuv=False)
