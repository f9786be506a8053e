"""What was seen before: a restart of the operator, and shares on the move, take nothing away from anybody.

Results of probes are kept in memory. Until a new process has some, or has had time to, the status says what the one
before it saw, provided that nothing was decided since.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.api.conditions import find, is_true
from fiduciary.decide import reasons
from fiduciary.decide.step import Note

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.inforce import RouteState
    from fiduciary.decide.serving.routing import Routing

GRACE = timedelta(seconds=30)
"""How long the first probes may take."""


@dataclass(frozen=True, slots=True)
class Before:
    """What the status says of the clients' route. ``until``: after that, no result is no success."""

    lacking: Note | None
    hijacked: str | None
    until: datetime


def as_before(case: Case, history: History, state: RouteState) -> Before | None:
    """What was seen last; None where this process has seen something itself, or should have by now."""
    if state.note is None or state.note.reason != reasons.PROBE_PENDING:
        return None
    since, now = case.world.probing_since, case.now
    until = (since if since is not None else now) + GRACE
    last, conditions = case.status.last_decision, case.status.conditions
    served = find(conditions, reasons.SERVED)
    if now >= until or served is None or last is None or last.sequence != history.sequence:
        return None
    if served.status == "True":
        return Before(None, None, until)
    stalled, hijacked = find(conditions, reasons.STALLED), find(conditions, reasons.ROUTE_HIJACKED)
    needs_person = stalled is not None and stalled.status == "True" and stalled.reason == served.reason
    lacking = Note(served.reason, served.message, stalled=needs_person)
    return Before(lacking, hijacked.message if hijacked is not None else None, until)


def moving(case: Case, history: History, route: Routing | None, state: RouteState) -> Before | None:
    """Shares move between a champion that goes on answering and its challenger: nobody is left without an answer.

    The gateways are given a moment to take the route over, and probes to see it. None where that is not what goes on.
    """
    champion, note = history.champion, state.note
    if route is None or route.blocked or champion is None or note is None or note.stalled:
        return None
    stays = (champion.decision or 0) < history.routed and champion.digest in route.answering
    until = route.at + GRACE
    on_the_move = note.reason in (reasons.ROUTE_PENDING, reasons.PROBE_PENDING)
    if not stays or not on_the_move or case.now >= until or not is_true(case.status.conditions, reasons.SERVED):
        return None
    return Before(None, None, until)
