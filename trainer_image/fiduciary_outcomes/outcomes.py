"""Outcomes: the first value of each key is kept; what comes again is counted by what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary_outcomes.calendar import OutsideCalendar, instant
from fiduciary_outcomes.document import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_outcomes.batch import Sent
    from fiduciary_outcomes.memory import Memory
    from fiduciary_outcomes.state import LedgerState

EARLY = 60.0
"""Seconds by which a writer's clock may be ahead: no outcome is known before its label ends."""

MOST_REFUSALS = 100
"""Refused items that an answer names."""


def take_outcomes(
    memory: Memory, model: str, items: Sequence[Sent | Refused], writer: str, now: float
) -> dict[str, Any]:
    """Apply outcomes; the answer says what became of them, and why each refused one was refused."""
    arrived = memory.arrival()
    state, ledgers = memory.model(model), memory.live(model)
    result = dict.fromkeys(state.results, 0)
    refused: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        try:
            if isinstance(item, Refused):
                raise item
            for ledger in ledgers:
                _check(ledger, item, now)
            what = _put(memory, model, item, writer, arrived, int(now))
            if what == "accepted" and _arrive(memory, ledgers, item):
                what = "late"
        except Refused as error:
            what = "refused"
            refused.append({"index": index, "reason": error.reason, "message": error.message})
        result[what] += 1
    for what, count in result.items():
        state.results[what] += count
    memory.touch(state)
    return {**result, "refusals": refused[:MOST_REFUSALS]}


def _check(ledger: LedgerState, item: Sent, now: float) -> None:
    if ledger.definition.label == "Direction" and item.value not in (0.0, 1.0):
        raise Refused("BadOutcome", f"value is {item.value}; the outcome of a Direction is 0 or 1")
    if not item.label_end or ledger.definition.clock != "Wall":
        return
    assert ledger.calendar is not None
    try:
        ends = _ends(ledger, item.label_end)
    except OutsideCalendar as error:
        raise Refused("OutsideCalendar", str(error)) from None
    if ends > now + EARLY:
        raise Refused("TooEarly", f"labelEnd {item.label_end} is over in {ends - now:.0f} s; expected its outcome then")


def _ends(ledger: LedgerState, label_end: str) -> float:
    """When a label ends, in seconds: at the close of a day's session, or at the instant that is named."""
    assert ledger.calendar is not None
    if len(label_end) > 10:
        return instant(label_end).timestamp()
    return ledger.calendar.ends(ledger.calendar.session_of(label_end))


def _put(memory: Memory, model: str, item: Sent, writer: str, arrived: int, now: int) -> str:
    key = (model, item.label_end, item.entity, item.request)
    inserted = memory.db.execute(
        "INSERT INTO outcomes (model, label_end, entity, request, value, next_return, writer, arrived, arrived_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1",
        (*key, item.value, item.next_return, writer, arrived, now),
    )
    if inserted:
        return "accepted"
    value, next_return, first_writer = memory.db.execute(
        "SELECT value, next_return, writer FROM outcomes "
        "WHERE model = ? AND label_end = ? AND entity = ? AND request = ?",
        key,
    )[0]
    if (value, next_return) == (item.value, item.next_return):
        return "duplicate"
    _remember(memory, key, item, writer, arrived, now)
    return "revised" if writer == first_writer else "conflicting"


def _remember(memory: Memory, key: tuple[str, ...], item: Sent, writer: str, arrived: int, now: int) -> None:
    """What was said later, and when, beside the value that counts; the same again is no news."""
    said = memory.db.execute(
        "SELECT value, next_return FROM revisions WHERE model = ? AND label_end = ? AND entity = ? AND request = ? "
        "ORDER BY arrived DESC LIMIT 1",
        key,
    )
    if said and tuple(said[0]) == (item.value, item.next_return):
        return
    memory.db.execute(
        "INSERT INTO revisions (model, label_end, entity, request, arrived, value, next_return, writer, arrived_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (*key, arrived, item.value, item.next_return, writer, now),
    )


def _arrive(memory: Memory, ledgers: Sequence[LedgerState], item: Sent) -> bool:
    """Move the clocks that outcomes drive; whether the item's session is closed in some ledger."""
    late = False
    for ledger in ledgers:
        for session in _sessions(memory, ledger, item):
            if not ledger.takes(session):
                continue
            if session <= ledger.closed_through:
                ledger.after["outcomes"] += 1
                late = True
            elif ledger.definition.clock == "Outcomes" and session in ledger.open:
                _advance(ledger, session, item)
            else:
                continue
            memory.touch(ledger)
    return late


def _advance(ledger: LedgerState, session: str, item: Sent) -> None:
    assert ledger.calendar is not None
    ends = (
        _ends(ledger, item.label_end)
        if item.label_end
        else ledger.calendar.ends(ledger.calendar.ahead(session, ledger.definition.horizon))
    )
    if ledger.watermark is None or ends > ledger.watermark:
        ledger.watermark = ends


def _sessions(memory: Memory, ledger: LedgerState, item: Sent) -> set[str]:
    """Decision sessions that an outcome belongs to: one, none where it cannot be placed."""
    calendar, definition = ledger.calendar, ledger.definition
    assert calendar is not None
    if (definition.pairing == "RequestId") != bool(item.request):
        return set()
    try:
        if item.request:
            digests = [version.digest for version in definition.versions.values()]
            found = memory.db.execute(
                "SELECT DISTINCT p.time FROM predictions p JOIN arms a ON a.id = p.arm "
                f"WHERE p.request = ? AND a.model = ? AND a.digest IN ({', '.join('?' * len(digests))})",
                (item.request, definition.model, *digests),
            )
            return {calendar.session_of(time) for (time,) in found}
        end = calendar.session_of(item.label_end)
        # a label within the day belongs to a decision of the same day
        return {end if len(item.label_end) > 10 else calendar.ahead(end, -definition.horizon)}
    except OutsideCalendar as error:
        ledger.problem = str(error)
        return set()
