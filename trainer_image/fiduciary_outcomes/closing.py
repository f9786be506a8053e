"""Closing sessions at label end + grace, each in one transaction: the only place where live rows are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fiduciary_outcomes.calendar import OutsideCalendar
from fiduciary_outcomes.chain import link
from fiduciary_outcomes.definition import ARMS
from fiduciary_outcomes.document import shortest
from fiduciary_outcomes.gathering import gather
from fiduciary_outcomes.logs import log
from fiduciary_outcomes.realised import realised
from fiduciary_outcomes.session import settle
from fiduciary_outcomes.sql import FAILURES
from fiduciary_outcomes.trading import trade

if TYPE_CHECKING:
    from fiduciary_outcomes.memory import Memory
    from fiduciary_outcomes.state import LedgerState


def close_due(memory: Memory, now: float) -> int:
    """Close every session whose time has come; returns how many.

    Also where there is nothing to close, the sessions that are over are over: what comes for them now is late.
    """
    closed = 0
    for ledger in [ledger for ledger in memory.ledgers.values() if ledger.live]:
        time = now if ledger.definition.clock == "Wall" else ledger.watermark
        if time is None or time < ledger.due:
            continue
        name = ledger.name
        try:
            for session in _over(ledger, time):
                with memory.transaction():
                    close(memory, memory.ledgers[name], session)
                closed += 1
            _forget(memory.ledgers[name], time)
        except FAILURES:
            raise
        except Exception as error:
            # A bug in one ledger's arithmetic stops that ledger, visibly, and no other.
            log("error", "a session cannot be closed", error=error, ledger=name)
            memory.stop(name, f"a session cannot be closed: {type(error).__name__}: {error}")
    return closed


def next_due(memory: Memory) -> float:
    """When the next session that has something in it can be closed by the wall clock, in seconds since 1970."""
    times = [
        closes(ledger, min(ledger.open))
        for ledger in memory.ledgers.values()
        if ledger.live and ledger.open and ledger.definition.clock == "Wall"
    ]
    return min(times, default=math.inf)


def closes(ledger: LedgerState, session: str) -> float:
    """Label end of a session plus grace; never where the calendar does not reach so far."""
    assert ledger.calendar is not None
    try:
        label_end = ledger.calendar.ahead(session, ledger.definition.horizon)
    except OutsideCalendar:
        return math.inf
    return ledger.calendar.ends(label_end) + ledger.definition.grace


def _over(ledger: LedgerState, now: float) -> list[str]:
    """Open sessions that are over, in order."""
    try:
        limit = _limit(ledger, now)
    except OutsideCalendar as error:
        ledger.problem = str(error)
        return []
    return sorted(session for session in ledger.open if session <= limit)


def _limit(ledger: LedgerState, now: float) -> str:
    """The newest session that is over."""
    calendar, definition = ledger.calendar, ledger.definition
    assert calendar is not None
    return calendar.ahead(calendar.last_ended(now - definition.grace), -definition.horizon)


def _forget(ledger: LedgerState, now: float) -> None:
    """After its rows are written: sessions that are over take nothing any more, also those that had nothing.

    Not before: a restart finds open sessions only after ``closed_through``.
    """
    assert ledger.calendar is not None
    try:
        limit = _limit(ledger, now)
        ledger.due = closes(ledger, ledger.calendar.ahead(limit, 1))
    except OutsideCalendar:
        return
    ledger.closed_through = max(ledger.closed_through, limit)


def close(memory: Memory, ledger: LedgerState, session: str) -> None:
    """Append a session's row; inside a transaction."""
    assert ledger.calendar is not None
    found = gather(memory, ledger, session)
    del ledger.open[session]
    definition = ledger.definition
    alone = definition.challenger is None
    content = settle(definition.label, found.predictions, found.outcomes, found.dropped, alone=alone)
    if definition.kind == "Watch":
        predictions = {arm: found.predictions[arm] for arm in definition.versions}
        content["own"] = {arm: realised(definition.label, its, found.outcomes) for arm, its in predictions.items()}
    ledger.books, profits = trade(definition, ledger.books, found)
    if profits:
        content["profit"] = {arm: shortest(profits[arm]) for arm in ARMS}
    label_end = found.label_end
    row = link({"session": session, "labelEnd": label_end, **content}, ledger.rows, ledger.head)
    memory.db.execute(
        "INSERT INTO entries (ledger, sequence, session, digest, document) VALUES (?, ?, ?, ?, ?)",
        (ledger.name, row.sequence, row.session, row.digest, row.document),
    )
    ledger.rows += 1
    ledger.head, ledger.last_session, ledger.last_label_end = row.digest, session, ledger.calendar.ends(label_end)
    ledger.closed_through = max(ledger.closed_through, session)
    ledger.add(content)
    memory.touch(ledger)
