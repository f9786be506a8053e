"""What a policy wants counted, and what is known of it: the data that passes between a reconcile and the questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fiduciary.decide.drift.windows import Edge, windows

if TYPE_CHECKING:
    from collections.abc import Hashable

    from fiduciary.decide.drift.calibrate import Grid
    from fiduciary.decide.drift.series import Watched
    from fiduciary.decide.drift.state import Reading
    from fiduciary.decide.drift.world import QueryValue


@dataclass(frozen=True, slots=True)
class Scrapes:
    """How Prometheus is set up: seconds, and the labels of a scrape target."""

    seconds: int
    timeout_seconds: int
    namespace: str = "namespace"
    pod: str = "pod"

    @property
    def step(self) -> int:
        """ms."""
        return self.seconds * 1000

    @property
    def settled(self) -> int:
        """ms after which a moment's samples are all stored."""
        return (self.seconds + self.timeout_seconds) * 1000

    @property
    def reach(self) -> int:
        """ms before a moment in which the last sample is its value: one scrape may be lost."""
        return (2 * self.seconds + self.timeout_seconds) * 1000


@dataclass(frozen=True, slots=True)
class Want:
    """What one policy wants counted.

    Attributes:
        edge: where its state is.
        since: ms up to which everything is folded; 0: nothing is.
        queries: of its monitors, as they are sent.
    """

    watched: Watched
    grid: Grid
    edge: Edge
    since: int
    queries: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Closing:
    """All that was read at the end of a window. ``reading`` None: nothing was counted there."""

    at: int
    reading: Reading | None
    values: tuple[QueryValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Unseen:
    """Why there is no answer; fit for a condition."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known of one version now.

    Attributes:
        closings: ends of windows that are not folded yet, oldest first.
        latest: rows at the last look.
        reference: hash of the edges that the scorer counts over.
        behind: there are more ends of windows, which are not read yet.
        error: why there is no answer.
    """

    closings: tuple[Closing, ...] = ()
    latest: Reading | None = None
    reference: str | None = None
    behind: bool = False
    error: Unseen | None = None


@dataclass(eq=False)
class Aim:
    """One policy that is watched.

    Attributes:
        asked: when, ms.
        looked: up to here the ends of windows are known, ms.
        stretch: how much of a long past is looked through at once.
        before: what was known when the round began; None before the first answer.
        half: ends of windows whose queries are not answered yet.
        tried: the end of a window at which a query had no answer, and how often.
    """

    key: Hashable
    want: Want
    asked: int = 0
    looked: int = 0
    stretch: int = 1
    answered: bool = False
    before: Counted | None = None
    counted: Counted = field(default_factory=Counted)
    half: list[tuple[int, Reading | None]] = field(default_factory=list[tuple[int, "Reading | None"]])
    tried: tuple[int, int] = (0, 0)

    @property
    def since(self) -> int:
        read = self.counted.closings[-1].at if self.counted.closings else 0
        return max(self.looked, self.want.since, read)

    def edge(self) -> Edge:
        """Where the state will be with what was read."""
        edge = self.want.edge
        for closing in self.counted.closings:
            if closing.reading is None:
                continue
            for step in windows(self.want.grid, edge, (closing.reading,)):
                edge = step if isinstance(step, Edge) else Edge(closing.reading, step.last)
        return edge

    def again(self, moment: int) -> None:
        """What was read up to ``moment`` stays; from there on it is read once more."""
        self.looked = min(self.looked, moment - 1)
