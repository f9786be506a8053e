"""Closing sessions at label end + grace, each in one transaction: the only place where live rows are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fiduciary_outcomes.calendar import OutsideCalendar
from fiduciary_outcomes.chain import link
from fiduciary_outcomes.definition import ARMS, Arm
from fiduciary_outcomes.document import shortest
from fiduciary_outcomes.paper import says_up
from fiduciary_outcomes.session import Outcome, Prediction, Unit, settle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fiduciary_outcomes.memory import Memory
    from fiduciary_outcomes.state import ArmState, LedgerState

CHUNK = 500


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
        for session in _over(ledger, time):
            with memory.transaction():
                close(memory, memory.ledgers[name], session)
            closed += 1
        _forget(memory.ledgers[name], time)
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
    definition = ledger.definition
    label_end = ledger.calendar.ahead(session, definition.horizon)
    times = sorted(ledger.open.pop(session))
    arms = {name: _arm(memory, ledger, name) for name in ARMS}
    by_request = definition.pairing == "RequestId"
    predictions: dict[Arm, dict[Unit, Prediction]] = {
        name: _predictions(memory, arms[name], times, label_end, by_request) for name in ARMS
    }
    outcomes = dict(_outcomes(memory, definition.model, predictions, label_end, by_request))
    dropped: dict[Arm, int] = {name: _dropped(memory, arms[name], times) for name in ARMS}
    content = settle(definition.label, predictions, outcomes, dropped) | _trade(ledger, predictions, outcomes)
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


def _arm(memory: Memory, ledger: LedgerState, name: Arm) -> ArmState:
    version = ledger.definition.version(name)
    return memory.arm(ledger.definition.model, version.number, version.digest)


def _predictions(
    memory: Memory, arm: ArmState, times: Iterable[str], label_end: str, by_request: bool
) -> dict[Unit, Prediction]:
    """First prediction of each unit. Two times may have one label end: the earlier arrival counts."""
    found: dict[Unit, Prediction] = {}
    for time in times:
        rows = memory.db.execute(
            "SELECT entity, request, label_end, prediction, arrived FROM predictions "
            "WHERE arm = ? AND time = ? AND prediction IS NOT NULL",
            (arm.id, time),
        )
        for entity, request, own_end, value, arrived in rows:
            if by_request and not request:
                continue
            unit = ("", "", request) if by_request else (entity, own_end or label_end, "")
            known = found.get(unit)
            if known is None or arrived < known.arrived:
                found[unit] = Prediction(value, arrived)
    return found


def _outcomes(
    memory: Memory, model: str, predictions: Mapping[Arm, Mapping[Unit, Prediction]], label_end: str, by_request: bool
) -> Iterator[tuple[Unit, Outcome]]:
    units = predictions["champion"].keys() | predictions["challenger"].keys()
    if by_request:
        wanted, column = sorted(request for _, _, request in units), "label_end = '' AND entity = '' AND request"
    else:
        wanted, column = sorted({label_end, *(end for _, end, _ in units)}), "label_end"
    for start in range(0, len(wanted), CHUNK):
        part = wanted[start : start + CHUNK]
        rows: list[Any] = memory.db.execute(
            "SELECT entity, label_end, request, value, next_return, arrived FROM outcomes "
            f"WHERE model = ? AND {column} IN ({', '.join('?' * len(part))})",
            (model, *part),
        )
        for entity, end, request, value, next_return, arrived in rows:
            if by_request or not request:
                yield (entity, end, request), Outcome(value, next_return, arrived)


def _dropped(memory: Memory, arm: ArmState, times: Iterable[str]) -> int:
    total = 0
    for time in times:
        rows = memory.db.execute("SELECT records FROM drops WHERE arm = ? AND time = ?", (arm.id, time))
        total += rows[0][0] if rows else 0
    return total


def _trade(
    ledger: LedgerState,
    predictions: Mapping[Arm, Mapping[Unit, Prediction]],
    outcomes: Mapping[Unit, Outcome],
) -> dict[str, Any]:
    """Trade the session on paper; the row's profits."""
    definition = ledger.definition
    if definition.paper is None:
        return {}
    profits: dict[Arm, str] = {}
    returns = {unit[0]: found.next_return for unit, found in outcomes.items() if found.next_return is not None}
    for arm in ARMS:
        in_time = (
            (unit[0], prediction.value)
            for unit, prediction in predictions[arm].items()
            if unit in outcomes and prediction.arrived < outcomes[unit].arrived
        )
        up = frozenset(entity for entity, value in in_time if says_up(definition.label, value))
        ledger.books[arm], profit = ledger.books[arm].traded(definition.paper, definition.horizon, up, returns)
        profits[arm] = shortest(profit)
    return {"profit": profits}
