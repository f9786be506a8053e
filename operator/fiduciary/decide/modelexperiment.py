"""The judgement of a ModelExperiment: ``decide(world, now)``, pure and total.

fold (evidence) → read (plain numbers) → judge (the first rule of the table that applies) → advance (course) → report.
The same world and time give the same bits; folding the same blocks in other batches does, too.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.calendar import CalendarUnknown, zone_of
from fiduciary.decide.experiment import comparison, course, forecast, pods
from fiduciary.decide.experiment.case import Case
from fiduciary.decide.experiment.claims import present
from fiduciary.decide.experiment.decision import Decision
from fiduciary.decide.experiment.read import longest, read, waiting_since
from fiduciary.decide.experiment.report import Outcome, events, report
from fiduciary.decide.experiment.rules import judge
from fiduciary.decide.experiment.summary import grounds, summary
from fiduciary.decide.experiment.times import at
from fiduciary.decide.experiment.words import explain

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.modeldecision import Traffic
    from fiduciary.decide.experiment.decision import Ruling
    from fiduciary.decide.experiment.read import Reading
    from fiduciary.decide.experiment.state import State
    from fiduciary.decide.experiment.world import World


def decide(world: World, now: datetime) -> Decision:
    """What this experiment asks for next, what it has learned, and what its status is then."""
    case = Case.of(world, now)
    expected = forecast.expected(case)
    reading = read(case, forecast.impossible(case))
    ruling = explain(case, reading, judge(reading.numbers))
    state = _after(case, reading, ruling)
    outcome = Outcome(reading, ruling, state, _traffic(case, ruling, state), expected)
    status = report(case, outcome)
    final = ruling.rule.final
    return Decision(
        state,
        status,
        ruling,
        outcome.traffic,
        events(case, ruling, status),
        # Judged in a time that a clock has shown already, woken in the time that it shows now.
        _wake(case, reading, state) + timedelta(seconds=int(now.timestamp()) - case.now),
        summary=summary(case, state) if final else {},
        grounds=grounds(case, ruling, state) if final else (),
        children=comparison.children(case, case.replay, ruling),
    )


def _after(case: Case, reading: Reading, ruling: Ruling) -> State | None:
    """The state with the course moved; an experiment that has not begun keeps none until its first step."""
    state, rule = case.state, ruling.rule
    if state is None or not (case.started or rule.exposure == "Next"):
        return None
    numbers = reading.numbers
    moment = course.Moment(
        now=case.now,
        dark=numbers.champion_dark or (numbers.challenger_dark and numbers.exposed),
        absent=pods.absent(case) and numbers.step >= 0,
        unready=pods.absent(case) and case.world.live.challenger.unready > 0,
        away=numbers.pods_away,
        enough=pods.enough(case),
        gap=_gap(case, reading, state),
        digest=case.evidence_digest or "",
        test=ruling.test,
        message=ruling.message,
        needed=numbers.approvals_needed,
        void=any(one.void is not None for one in state.evidence.objectives),
        shown=present(case, state),
    )
    return replace(state, course=course.advance(state.course, case.spec.traffic.steps, rule, moment))


def _gap(case: Case, reading: Reading, state: State) -> str | None:
    """The exchange's day, if live outcomes of it cannot be compared: the step copies all requests, and that is not in
    force. (A market replay has other days.)"""
    step, numbers = state.course.step, reading.numbers
    if step < 0 or not course.together(case.spec.traffic.steps, step):
        return None
    route = case.world.route
    if course.in_force(case.spec.traffic.steps[step], route.weight, route.mirror) and not numbers.pods_away:
        return None
    try:
        zone = zone_of(case.world.platform.calendars, case.world.model.calendar)
    except CalendarUnknown:
        return None  # there is no live ledger then
    return case.moment.astimezone(zone).date().isoformat()


def _traffic(case: Case, ruling: Ruling, state: State | None) -> Traffic | None:
    """No wish while queued: the model follows another one; none in DryRun: no route is written."""
    if case.spec.mode == "DryRun" or ruling.reason == reasons.QUEUED:
        return None
    recorded = case.world.recorded
    stands = "Promote" if recorded is not None and recorded.stands else None
    return course.traffic(None if state is None else state.course, case.spec.traffic.steps, ruling.rule, stands)


def _wake(case: Case, reading: Reading, state: State | None) -> datetime:
    """The earliest moment at which the answer could be another one, though nobody calls until then."""
    moments = [case.now + case.world.platform.resync_seconds]
    numbers = reading.numbers
    if state is not None and (numbers.watching or not numbers.recorded):
        moments.append(_next_block(case, state))
        lasting = (
            (state.course.unready_since, pods.UNREADY_SCRAPES * case.world.scrape_seconds),
            (state.course.away_since, pods.AWAY_LIMIT),
            (state.course.back_since, pods.pause(state.course.absences, state.terms.block)),
        )
        moments += [since + seconds for since, seconds in lasting if since is not None]
        if (numbers.watching or numbers.exposed) and case.spec.circuit_breakers:
            # They look at each scrape: its answer calls, as pods do. This is for a scrape without any.
            moments.append(case.now + 2 * case.world.scrape_seconds)
    if state is not None and not numbers.recorded:
        if state.course.started is not None:
            lasts = (case.min_duration, case.max_duration, longest(case))
            moments += [state.course.started + seconds for seconds in lasts]
        if state.course.dark_since is not None:
            moments.append(state.course.dark_since + int(numbers.max_hold))
    waiting = waiting_since(case)
    if waiting is not None:
        moments.append(waiting + case.max_duration)
    replay = comparison.wake_at(case, case.replay)
    if replay is not None:
        moments.append(replay)
    if case.closure.until is not None:
        moments.append(int(case.closure.until.timestamp()))
    return at(min((moment for moment in moments if moment > case.now), default=case.now + 1))


def _next_block(case: Case, state: State) -> int:
    """Edge of the block that is open now, the two scrapes and a timeout after which it is closed (rule 2), and one
    scrape more: the answer that closes it calls before."""
    terms, settles = state.terms, 4 * case.world.scrape_seconds
    elapsed = case.now - settles - terms.origin
    return terms.origin + (max(elapsed // terms.block, 0) + 1) * terms.block + settles
