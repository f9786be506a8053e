"""One ledger, read row by row: the chain is followed from its definition on, and nothing else is handed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from fiduciary.clients.ledger_answers import LedgerError, canonical_digest
from fiduciary.decide.drift.world import SessionLoss
from fiduciary.decide.experiment.world import LedgerRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fiduciary.clients.ledger_answers import Head, Page, Row
    from fiduciary.decide.experiment.ledgers import Wanted

Source = Literal["Prequential", "Live"]
Kind = Literal["Prequential", "Live", "Watch"]

MOST_ROWS = 50_000
"""Sessions that a ledger may have: two centuries of days. Its scorer runs with a tenant, and may say anything."""


class Untrusted(Exception):
    """A ledger that evidence cannot rest on."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass
class Reading:
    """How far one ledger was read: rows, digest and session of the last one."""

    count: int = 0
    digest: str = ""
    session: str = ""

    async def on(self, head: Head, page: Callable[[str], Awaitable[Page]], take: Callable[[Row], None]) -> None:
        """Read up to ``head.length``. ``page`` is asked for the rows after a session, ``take`` is given each row.

        Raises:
            LedgerError: the scorer gave no answer; what was taken until then stays taken.
            Untrusted: the rows are not the continuation of those before.
        """
        if self.count == 0:
            self.digest = head.digest
        if head.length < self.count or (head.length == self.count and head.head != self.digest):
            raise Untrusted(
                "LedgerRewritten",
                f"ledger {head.name} had {self.count} rows up to {self.digest}; now {head.length} up to {head.head}",
            )
        while self.count < head.length:
            found = await page(self.session)
            for row in found.rows:
                self._follows(head.name, row)
                take(row)
                self.count, self.digest, self.session = row.sequence + 1, row.digest, row.session
            if not found.rows:
                message = f"ledger {head.name} says that it has {head.length} rows, and serves {self.count}"
                raise LedgerError("LedgerBroken", message)

    def _follows(self, name: str, row: Row) -> None:
        if (row.sequence, row.previous) != (self.count, self.digest) or row.session <= self.session:
            raise Untrusted(
                "LedgerRewritten",
                f"ledger {name}: row {row.sequence} of {row.session} follows {row.previous}; expected row {self.count} "
                f"after {self.session or 'the definition'}, {self.digest}",
            )


def as_folded(row: Row, source: Source, number: int) -> LedgerRow:
    """A row as the tests fold it; ``number`` is its place among all sessions of the experiment.

    What came after its session was closed is not in a row, which never changes: ``late`` is 0.
    """
    return LedgerRow(
        number=number,
        session=row.session,
        source=source,
        entities=row.entities,
        total=row.total,
        squares=row.squares,
        missing_champion=row.missing.champion,
        missing_challenger=row.missing.challenger,
        dropped=row.dropped.champion + row.dropped.challenger,
        profit=row.profit,
        digest=row.digest,
    )


def as_watched(row: Row, number: int) -> SessionLoss:
    """A row as a DriftPolicy folds it; ``sum``, the serving version's loss less the other's, is positive where it is
    worse now. Raises :class:`Untrusted`."""
    own = row.own
    if own is None:
        raise Untrusted("LedgerBroken", f"row {row.sequence} of a watched version does not say what it lost by itself")
    return SessionLoss(
        number=number,
        session=row.session,
        entities=own.entities,
        loss=own.loss,
        paired=row.entities,
        worse=row.total,
        dropped=row.dropped.champion,
        dropped_previous=row.dropped.challenger,
        unanswered=row.missing.champion,
        calibration=own.calibration,
    )


def check(wanted: Wanted, head: Head, kind: Kind) -> None:
    """Raises :class:`Untrusted` where a ledger of this name is not the one that is wanted.

    Its first session is what it began with, and so is what follows the model's spec, which may change meanwhile.
    """
    if head.length > MOST_ROWS:
        message = f"ledger {head.name} says that it has {head.length} sessions; expected {MOST_ROWS} at most"
        raise Untrusted("LedgerTooLong", message)
    if head.broken is not None:
        raise Untrusted("LedgerBroken", f"ledger {head.name} is not served: {head.broken}")
    definition = head.definition
    if canonical_digest(definition) != head.digest:
        raise Untrusted("LedgerBroken", f"the definition of ledger {head.name} does not hash to {head.digest}")
    asked: dict[str, Any] = {"kind": kind, "model": wanted.model}
    if kind != "Prequential" and wanted.definition is not None:
        asked |= {name: wanted.definition[name] for name in ("pairing", "graceSeconds")}
    differing = [name for name, value in asked.items() if definition.get(name) != value]
    for arm, digest in (("champion", wanted.champion), ("challenger", wanted.challenger)):
        found: object = definition.get(arm)
        if kind == "Watch" and found is None and not digest:
            continue
        if not isinstance(found, dict) or cast("dict[str, object]", found).get("digest") != digest:
            differing.append(f"{arm}.digest")
    if differing:
        message = f"ledger {head.name} was begun with other {', '.join(differing)}: it is not folded"
        raise Untrusted("LedgerExists", message)
