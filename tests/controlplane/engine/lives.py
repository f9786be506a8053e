"""A life that is lived through by operator processes, each of which dies at a write that none died at before."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.controlplane.server import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
                self.process.kill()
                self.broken += [f"{truth} (killed when it was done)" for truth in self._untrue()]
                return
            assert self.process.ended() == -signal.SIGKILL, self.process.log.read_text()[-3000:]
            death = self.process.writes[-1]
            deaths.append(death)
            self.deaths.append(death)
            self.broken += [f"{truth} (died before {death})" for truth in self._untrue()]
            assert len(self.deaths) < 120, self.deaths
