"""The judgement of a DriftPolicy: ``decide(world, now)``, pure and total.

fold (windows, values, sessions, each once) → alarms → wishes (what they ask for, and what holds it) → report. The same
world and time give the same bits; folding the same windows in other batches does, too.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fiduciary.decide.drift import actions, health
from fiduciary.decide.drift.case import Case
from fiduciary.decide.drift.conditions import Outlook
from fiduciary.decide.drift.decision import Decision
from fiduciary.decide.drift.record import records
from fiduciary.decide.drift.report import alerts, events, report, requested, seen
from fiduciary.decide.drift.standing import shown
from fiduciary.decide.experiment.times import at

if TYPE_CHECKING:
    from fiduciary.decide.drift.actions import Wish
    from fiduciary.decide.drift.world import World


def decide(world: World, now: datetime) -> Decision:
    """What this policy has learned, what it asks the model for, whom it alerts, and what its status is then."""
    case = Case.of(world, now)
    blind = health.blind(case)
    wishes = actions.wishes(case)
    state = case.state
    if state is not None:
        asked = actions.request(case, wishes)
        state = replace(state, request=asked, withdrawn=actions.withdrawn(state, asked))
    outlook = Outlook(case, seen(case, shown(case), blind), blind, wishes)
    following = _next_window(case)
    return Decision(
        state=state,
        status=report(case, outlook, state, following),
        requested_action=requested(case, state),
        alerts=alerts(case, state),
        records=records(case, state),
        events=events(case, state, blind),
        # Judged in a time that a clock has shown already, woken in the time that it shows now.
        wake_at=_wake(case, wishes, following) + timedelta(seconds=int(now.timestamp()) - case.now),
    )


def _next_window(case: Case) -> datetime | None:
    """End of the window that is open; None where only rows can end it."""
    calibrated = case.calibrated
    if calibrated is None or not calibrated.grid.length:
        return None
    length = calibrated.grid.length
    return at((case.now * 1000 // length + 1) * length // 1000)


def _wake(case: Case, wishes: tuple[Wish, ...], following: datetime | None) -> datetime:
    """The earliest moment at which the answer could be another one, though nobody calls until then."""
    moments = [case.moment + timedelta(seconds=max(1, case.world.platform.resync_seconds))]
    if following is not None:
        moments.append(following)
    moments += [wish.held.until for wish in wishes if wish.held is not None and wish.held.until is not None]
    soonest = min((moment for moment in moments if moment > case.moment), default=case.moment + timedelta(seconds=1))
    return soonest.astimezone(UTC)
