"""A story in which the operator's process ends at one of its writes, and another one goes on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from fiduciary.engine.writes import ORDER, Step
from tests.unit.engine.rig import Killed

if TYPE_CHECKING:
    from tests.unit.engine.rig import Process


class Mortal(ABC):
    """The writes so far (``points``), the one at which the process ends (``die_at``), and what was untrue then."""

    #: Appointments that are further ahead, in seconds, are left alone: the process is at rest.
    horizon = 600.0
    process: Process

    def __init__(self, die_at: int = -1, order: tuple[Step, ...] = ORDER) -> None:
        self.die_at = die_at
        self.order = order
        self.points: list[str] = []
        self.broken: list[str] = []

    @abstractmethod
    def born(self) -> Process:
        """A process that was started, with :meth:`point` as its checkpoint."""

    @abstractmethod
    def died(self, where: str) -> None:
        """Look at what is true just before the write ``where``."""

    def point(self, name: str) -> None:
        self.points.append(name)
        if len(self.points) - 1 == self.die_at:
            raise Killed(name)

    def settle(self) -> None:
        """Work until at rest; a process that ends is followed by another one."""
        while True:
            try:
                self.process.settle(horizon=self.horizon)
                return
            except Killed as killed:
                self.died(str(killed))
                self.process = self.born()
