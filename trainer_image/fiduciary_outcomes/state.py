"""What the scorer knows by heart: versions, models and ledgers, each kept in the store as one JSON document."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fiduciary_outcomes.batch import Layout
from fiduciary_outcomes.definition import ARMS, Arm, Definition
from fiduciary_outcomes.paper import Book

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_outcomes.calendar import Calendar

RECORD_RESULTS = ("first", "duplicate", "conflicting", "incomplete", "untimed", "expired")
"""``incomplete``: features were missing, so there was no prediction; ``untimed``: nobody can say which row it is of."""

OUTCOME_RESULTS = ("accepted", "duplicate", "revised", "conflicting", "late", "refused")
PER_ARM = ("missing", "late", "dropped")
PER_SESSION = ("entities", "paired", "unpredicted", "withoutOutcome")
AFTER_CLOSE = ("predictions", "outcomes", "dropped", "outsideCalendar")


@dataclass
class ArmState:
    """A version of a model.

    Attributes:
        results: records by what became of them.
        dropped: records lost in transport.
        rows: (entity, time) counted in the histograms.
        bins: per feature, rows in each bin; ``missing`` beside them.
        joint_bins: of the joint distance; empty until a runtime sends it.
        newest: newest time of a record.
        expired_through: times up to this one were cleaned away.
        last_at: when the newest record came, seconds since 1970.
        by_request: requests of one (entity, time) are told apart; for ever once a ledger asked for it, since keys that
            change would count rows anew.
    """

    id: int
    model: str
    version: str
    digest: str
    layout: Layout | None = None
    results: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RECORD_RESULTS, 0))
    dropped: int = 0
    rows: int = 0
    bins: list[list[int]] = field(default_factory=list[list[int]])
    missing: list[int] = field(default_factory=list[int])
    prediction_bins: list[int] = field(default_factory=list[int])
    joint_bins: list[int] = field(default_factory=list[int])
    newest: str = ""
    expired_through: str = ""
    last_at: int = 0
    by_request: bool = False
    ledgers: list[LedgerState] = field(default_factory=lambda: list[LedgerState]())

    def use(self, layout: Layout) -> None:
        """The first batch says what the bins mean."""
        self.layout = layout
        self.bins = [[0] * (edges + 1) for edges in layout.edges]
        self.missing = [0] * len(layout.edges)
        self.prediction_bins = [0] * (0 if layout.prediction_edges is None else layout.prediction_edges + 1)

    def encode(self) -> tuple[str | None, str]:
        layout = self.layout
        state = {
            name: getattr(self, name)
            for name in (
                "results", "dropped", "rows", "bins", "missing", "prediction_bins", "joint_bins", "newest",
                "expired_through", "last_at", "by_request",
            )
        }  # fmt: skip
        return (
            None
            if layout is None
            else json.dumps([layout.reference, layout.features, layout.edges, layout.prediction_edges]),
            json.dumps(state, separators=(",", ":")),
        )

    @classmethod
    def decode(cls, number: int, model: str, version: str, digest: str, layout: str | None, state: str) -> ArmState:
        arm = cls(number, model, version, digest, **json.loads(state))
        if layout is not None:
            reference, features, edges, prediction_edges = json.loads(layout)
            arm.layout = Layout(reference, tuple(features), tuple(edges), prediction_edges)
        return arm


@dataclass
class LedgerState:
    """A ledger's head and what was counted beside it.

    Attributes:
        head: digest of the newest row, of the definition before there is one.
        closed_through: sessions up to this one take nothing any more.
        watermark: seconds; the present time of a ledger whose clock is its outcomes.
        ended: last session that may be closed.
        totals: over all rows, for Prometheus.
        own: of a watch, units that each version predicted in time, and the sum of their losses.
        after: what came after its session was closed, or could not be placed.
        open: times of predictions and drops, per session that is not closed yet.
        marked: accounts with what is known of open sessions, and what it was computed for.
        due: seconds; before that no session can be closed.
        broken: why the chain does not hold; such a ledger is neither served nor continued.
    """

    name: str
    definition: Definition
    calendar: Calendar | None
    rows: int = 0
    head: str = ""
    last_session: str = ""
    last_label_end: float = 0.0
    closed_through: str = ""
    watermark: float | None = None
    ended: str = ""
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PER_SESSION, 0))
    arm_totals: dict[str, dict[Arm, int]] = field(
        default_factory=lambda: {what: dict.fromkeys(ARMS, 0) for what in PER_ARM}
    )
    loss: dict[Arm, float] = field(default_factory=lambda: dict.fromkeys(ARMS, 0.0))
    after: dict[str, int] = field(default_factory=lambda: dict.fromkeys(AFTER_CLOSE, 0))
    own: dict[Arm, list[float]] = field(default_factory=lambda: {arm: [0.0, 0.0] for arm in ARMS})
    books: dict[Arm, Book] = field(default_factory=lambda: {arm: Book() for arm in ARMS})
    open: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    marked: tuple[tuple[str, int], Mapping[Arm, Book]] | None = None
    due: float = 0.0
    broken: str | None = None
    problem: str | None = None

    @property
    def live(self) -> bool:
        """Whether further sessions may be closed into it."""
        return (
            self.definition.kind != "Prequential"
            and self.broken is None
            and not (self.ended and self.closed_through >= self.ended)
        )

    def takes(self, session: str) -> bool:
        """Whether a session belongs to this ledger at all."""
        return session >= self.definition.first_session and not (self.ended and session > self.ended)

    def add(self, row: Mapping[str, Any]) -> None:
        """Totals after a row."""
        for what in PER_SESSION:
            self.totals[what] += row.get(what, 0)
        for what in PER_ARM:
            for arm in ARMS:
                self.arm_totals[what][arm] += row.get(what, {}).get(arm, 0)
        for arm in ARMS:
            self.loss[arm] += float(row.get("loss", {}).get(arm, "0.0"))
        for arm in self.definition.versions if "own" in row else ():
            self.own[arm][0] += row["own"][arm]["entities"]
            self.own[arm][1] += float(row["own"][arm]["loss"])

    def encode(self) -> str:
        state: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "rows", "head", "last_session", "last_label_end", "closed_through", "watermark", "ended", "totals",
                "arm_totals", "loss", "own", "after",
            )
        }  # fmt: skip
        state["books"] = {arm: book.encode() for arm, book in self.books.items()}
        return json.dumps(state, separators=(",", ":"))

    @classmethod
    def decode(cls, name: str, definition: Definition, calendar: Calendar | None, state: str) -> LedgerState:
        found: dict[str, Any] = json.loads(state)
        found["books"] = {arm: Book.decode(found["books"][arm]) for arm in ARMS}
        return cls(name, definition, calendar, **found)


@dataclass
class ModelState:
    """Outcomes of a model by what became of them."""

    name: str
    results: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOME_RESULTS, 0))
