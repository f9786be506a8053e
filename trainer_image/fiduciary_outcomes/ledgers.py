"""Ledgers begin, end, or arrive complete, once each: the same again is a no-op, anything else is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from fiduciary_outcomes.calendar import OutsideCalendar
from fiduciary_outcomes.chain import Link, link
from fiduciary_outcomes.definition import ARMS, SHARED, Definition, day, read_prequential
from fiduciary_outcomes.document import Field, Object, Refused, check_contract, digest
from fiduciary_outcomes.memory import read_definition
from fiduciary_outcomes.state import LedgerState

if TYPE_CHECKING:
    from fiduciary_outcomes.memory import Memory

MOST_LEDGERS = 10_000
MOST_ROWS = 100_000
POSTED = SHARED | {"contractVersion", "provenance", "rows", "digest"}
ROW = frozenset({"session", "entities", "sum", "sumSquares"})
ROW_OPTIONAL = frozenset({"missing", "dropped", "loss"})


def read_ledger(document: object, namespace: str) -> tuple[Definition, list[dict[str, Any]] | None]:
    """A definition, and the rows of one that came complete. Raises :class:`Refused`."""
    field = Field("", document)
    if kind_of(document) != "Prequential":
        return read_definition(field, namespace), None
    found = field.object(POSTED)
    check_contract(found)
    rows = _rows(found)
    actual = digest({key: value for key, value in found.content.items() if key != "digest"})
    if found["digest"].digest() != actual:
        found["digest"].refuse(f"{actual}, the SHA-256 of the canonical document without it", "WrongDigest")
    return read_prequential(found, namespace), rows


def kind_of(document: object) -> str:
    """``Live``, ``Watch`` or ``Prequential``. Raises :class:`Refused`."""
    if not isinstance(document, dict):
        Field("the document", document).refuse("an object")
    return Field("kind", cast("dict[str, object]", document).get("kind")).choice("Live", "Watch", "Prequential")


def _rows(found: Object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    before = ""
    for field in found["rows"].items(MOST_ROWS, 1):
        row = field.object(ROW, ROW_OPTIONAL)
        session = day(row["session"])
        if session <= before:
            row["session"].refuse(f"a day after {before}: one row a session, in order")
        before = session
        entities = row["entities"].integer()
        squares = row["sumSquares"].shortest()
        total = row["sum"].shortest()
        # Cauchy-Schwarz, with room for rounding: sums that no differences can have
        if squares < 0.0 or total * total > entities * squares * (1.0 + 1e-9):
            row["sumSquares"].refuse(f"at least sum²/entities for {entities} entities")
        content: dict[str, Any] = {
            "session": session, "entities": entities, "sum": row["sum"].value, "sumSquares": row["sumSquares"].value,
        }  # fmt: skip
        for what in ("missing", "dropped"):
            counts = row[what].object(frozenset(ARMS)) if what in row else None
            content[what] = {arm: 0 if counts is None else counts[arm].integer() for arm in ARMS}
        if "loss" in row:
            loss = row["loss"].object(frozenset(ARMS))
            for arm in ARMS:
                loss[arm].shortest()
            content["loss"] = dict(loss.content)
        rows.append(content)
    return rows


def put_ledger(memory: Memory, name: str, definition: Definition, rows: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Begin a live ledger, or take a complete one.

    Raises:
        Refused: ``LedgerExists`` (409) where the name holds other content; nothing was changed.
    """
    known = memory.ledgers.get(name)
    links = [] if rows is None else _chain(definition, rows)
    if known is not None:
        same = known.definition.digest == definition.digest
        if not same or (rows is not None and (len(links), links[-1].digest) != (known.rows, known.head)):
            raise Refused(
                "LedgerExists",
                f"ledger {name} was begun with the definition {known.definition.digest} and holds {known.rows} rows "
                f"up to {known.head}; what came differs. A ledger is immutable: expected another name",
                409,
            )
        return _head(known)
    if len(memory.ledgers) >= MOST_LEDGERS:
        raise Refused("TooManyLedgers", f"this scorer keeps {MOST_LEDGERS} ledgers already", 429)
    calendar = memory.calendars.get(definition.calendar) if rows is None else None
    memory.check_room(len(ARMS))
    if calendar is not None:
        _check_first(calendar.session_of, definition)
    ledger = LedgerState(name, definition, calendar, head=definition.digest)
    for link_, row in zip(links, rows or (), strict=True):
        ledger.add(row)
        ledger.rows, ledger.head, ledger.last_session = ledger.rows + 1, link_.digest, link_.session
    memory.db.execute(
        "INSERT INTO ledgers (name, definition, digest, state) VALUES (?, ?, ?, ?)",
        (name, json.dumps(definition.document, ensure_ascii=False), definition.digest, ledger.encode()),
    )
    if links:
        memory.db.many(
            "INSERT INTO entries (ledger, sequence, session, digest, document) VALUES (?, ?, ?, ?, ?)",
            [(name, row.sequence, row.session, row.digest, row.document) for row in links],
        )
    memory.ledgers[name] = ledger
    memory.attach(ledger)
    memory.touch(ledger)
    return _head(ledger)


def _check_first(session_of: Any, definition: Definition) -> None:
    try:
        session = session_of(definition.first_session)
    except OutsideCalendar as error:
        raise Refused("OutsideCalendar", str(error)) from None
    if session != definition.first_session:
        raise Refused(
            "BadField",
            f"firstSession is {definition.first_session}; expected a session of {definition.calendar}, as {session} "
            "before it",
        )


def _chain(definition: Definition, rows: list[dict[str, Any]]) -> list[Link]:
    links: list[Link] = []
    previous = definition.digest
    for sequence, row in enumerate(rows):
        links.append(link(row, sequence, previous))
        previous = links[-1].digest
    return links


def end_ledger(memory: Memory, name: str, last_session: str) -> dict[str, Any]:
    """No session after ``last_session`` is closed. Raises :class:`Refused`."""
    ledger = found(memory, name)
    if ledger.definition.kind == "Prequential":
        raise Refused("NotLive", f"ledger {name} came complete; only a live one is ended", 409)
    if ledger.ended:
        if ledger.ended == last_session:
            return _head(ledger)
        raise Refused("LedgerEnded", f"ledger {name} was ended with {ledger.ended}, not {last_session}", 409)
    if last_session < max(ledger.last_session, ledger.definition.first_session):
        raise Refused(
            "SessionClosed",
            f"lastSession is {last_session}; the ledger begins at {ledger.definition.first_session} and holds rows "
            f"up to {ledger.last_session or 'none'}: expected none of them to be cut off",
            409,
        )
    ledger.ended = last_session
    ledger.open = {session: times for session, times in ledger.open.items() if session <= last_session}
    memory.touch(ledger)
    return _head(ledger)


def found(memory: Memory, name: str) -> LedgerState:
    ledger = memory.ledgers.get(name)
    if ledger is None:
        raise Refused("UnknownLedger", f"there is no ledger {name}", 404)
    return ledger


def _head(ledger: LedgerState) -> dict[str, Any]:
    return {"name": ledger.name, "digest": ledger.definition.digest, "length": ledger.rows, "head": ledger.head}
