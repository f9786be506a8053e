"""Both arms' paper accounts over a ledger's sessions: settled with each row, and marked with what is known since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary_outcomes.definition import ARMS, Arm
from fiduciary_outcomes.gathering import Gathered, gather
from fiduciary_outcomes.paper import Book, says_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary_outcomes.definition import Definition
    from fiduciary_outcomes.memory import Memory
    from fiduciary_outcomes.state import LedgerState


def trade(
    definition: Definition, books: Mapping[Arm, Book], session: Gathered
) -> tuple[dict[Arm, Book], dict[Arm, float]]:
    """Both accounts after a session, and its profits: none where the ledger does not trade."""
    if definition.paper is None:
        return dict(books), {}
    outcomes = session.outcomes
    returns = {unit[0]: found.next_return for unit, found in outcomes.items() if found.next_return is not None}
    after: dict[Arm, Book] = {}
    profits: dict[Arm, float] = {}
    for arm in ARMS:
        in_time = (
            (unit[0], prediction.value)
            for unit, prediction in session.predictions[arm].items()
            if unit in outcomes and prediction.arrived < outcomes[unit].arrived
        )
        up = frozenset(entity for entity, value in in_time if says_up(definition.label, value))
        after[arm], profits[arm] = books[arm].traded(definition.paper, definition.horizon, up, returns)
    return after, profits


def mark(memory: Memory, ledger: LedgerState) -> Mapping[Arm, Book]:
    """The accounts with the open sessions whose outcomes are known so far: what a circuit breaker looks at.

    They change only with an outcome or a row, so they are computed once for each of these, not at each scrape.
    """
    known = (ledger.head, memory.model(ledger.definition.model).results["accepted"])
    if ledger.marked is None or ledger.marked[0] != known:
        books = ledger.books
        for session in sorted(ledger.open):
            books, _ = trade(ledger.definition, books, gather(memory, ledger, session))
        ledger.marked = (known, books)
    return ledger.marked[1]
