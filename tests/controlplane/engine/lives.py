"""A life that is lived through by operator processes, each of which dies at a write that none died at before, or at the
next write of a name."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.controlplane.server import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.controlplane.engine.process import OperatorProcess


class Lives:
    """The processes one after the other; ``broken`` are the truths that did not hold when one had died."""

    def __init__(self, process: OperatorProcess, untrue: Callable[[], Iterator[str]]) -> None:
        self.process = process
        self.deaths: list[str] = []
        self.broken: list[str] = []
        self._untrue = untrue

    def until(self, what: str, done: Callable[[], object], seconds: float = 90, **options: object) -> None:
        """Start processes until ``done``; each dies at its first write that none of these died at."""
        deaths: list[str] = []
        while True:
            self.process.start(survive=deaths, **options)
            until(f"{what}, or the process died", lambda: done() or not self.process.alive, seconds)
            if self.process.alive:
                self._killed()
                return
            deaths.append(self._died())
            assert len(self.deaths) < 120, self.deaths

    def at(
        self, what: str, writes: Sequence[str], done: Callable[[], object], seconds: float = 90, **options: object
    ) -> None:
        """Start a process for each of these, which dies before its first write of that name (``1-record 2-route``: of a
        route after a record), and then one that lives until ``done``."""
        for names in writes:
            self.process.start(die=names.split(), **options)
            until(f"{what}: a process dies before {names}", lambda: not self.process.alive, seconds)
            assert self._died() == names.split()[-1]
        self.process.start(**options)
        until(what, done, seconds)
        assert self.process.alive, self.process.log.read_text()[-3000:]
        self._killed()

    def _killed(self) -> None:
        self.process.kill()
        self.broken += [f"{truth} (killed when it was done)" for truth in self._untrue()]

    def _died(self) -> str:
        assert self.process.ended() == -signal.SIGKILL, self.process.log.read_text()[-3000:]
        death = self.process.writes[-1]
        self.deaths.append(death)
        self.broken += [f"{truth} (died before {death})" for truth in self._untrue()]
        return death
