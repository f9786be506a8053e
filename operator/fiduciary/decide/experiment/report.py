"""The status of a ModelExperiment, and the events that tell what changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.api.modelexperiment import (
    ApprovalRequest,
    DataHealth,
    DecidingTest,
    Feasibility,
    Harm,
    ModelExperimentStatus,
    SampleRatio,
    Segment,
    TestStatus,
)
from fiduciary.decide import reasons
from fiduciary.decide.decision import Event
from fiduciary.decide.experiment.conditions import Outlook, conditions
from fiduciary.decide.experiment.rows import ALL, decimal, tests
from fiduciary.decide.experiment.rules import both_dark
from fiduciary.decide.experiment.times import at

if TYPE_CHECKING:
    from fiduciary.api.modeldecision import Traffic
    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.decision import Ruling
    from fiduciary.decide.experiment.forecast import Expected
    from fiduciary.decide.experiment.read import Reading
    from fiduciary.decide.experiment.rules import Verdict
    from fiduciary.decide.experiment.state import Course, State

PHASES = {"Promote": "Promoted", "RollBack": "RolledBack", "KeepChampion": "Kept", "Hold": "Holding"}

SIDES = ("Superiority", "NonInferiority", "Harm")

PLANNED = (
    reasons.AWAITING_APPROVAL,
    reasons.IN_FREEZE,
    reasons.NO_PROMOTE_WINDOW,
    reasons.PROMOTION_ADVISED,
    reasons.SUSPENDED,
)
"""Holds that somebody asked for: nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation came to: the words, the state after it, the weights asked for, and the forecasts."""

    reading: Reading
    ruling: Ruling
    state: State | None  # None: not started
    traffic: Traffic | None
    expected: tuple[Expected, ...]


def report(case: Case, outcome: Outcome) -> ModelExperimentStatus:
    """The status that is true once this evaluation is written."""
    ruling, state = outcome.ruling, outcome.state
    verdict, reason = _verdict(case, ruling)
    rows = () if state is None else tests(case, state, outcome.expected)
    deciding = _deciding(case, rows, verdict, state)
    status = ModelExperimentStatus(
        observed_generation=case.world.experiment.metadata.generation,
        phase=_phase(case, ruling),
        conditions=conditions(Outlook(case, outcome.reading, ruling, outcome.expected)),
        weight=case.world.route.weight,
        verdict=verdict,
        reason=reason,
        log_e=None if deciding is None else deciding.log_e,
        n=None if deciding is None else deciding.n,
        deciding=None
        if deciding is None
        else DecidingTest(name=deciding.name, side=deciding.side, threshold=deciding.threshold),
        desired_traffic=outcome.traffic,
        tests=rows,
        srm=None if state is None else _ratio(state),
        data_health=_health(case, outcome.reading),
        feasibility=_feasibility(outcome.expected),
        evidence_digest=None if state is None else case.evidence_digest,
    )
    return status if state is None else status.model_copy(update=_of_course(case, state.course))


def events(case: Case, ruling: Ruling, status: ModelExperimentStatus) -> tuple[Event, ...]:
    """One event for each new reason; a step entered is always one, that evidence is gathered is none."""
    same = status.reason == case.status.reason and ruling.reason != reasons.STEP_ENTERED
    if same or ruling.reason == reasons.GATHERING_EVIDENCE:
        return ()
    bad = ruling.verdict is not None and ruling.verdict != "Promote" and ruling.reason not in PLANNED
    return (Event("Warning" if bad else "Normal", ruling.reason, ruling.message),)


def _of_course(case: Case, course: Course) -> dict[str, object]:
    latch, request = course.latch, course.request
    return {
        "step": case.spec.traffic.steps[course.step].name if course.step >= 0 else None,
        "harm": None if latch is None else Harm(at=at(latch.at), test=latch.test or latch.reason),
        "segments": tuple(
            Segment(since=at(one.since), step=one.step, reason=one.reason, blocks=one.blocks) for one in course.segments
        ),
        "approval_request": None if request is None else ApprovalRequest(digest=request.digest, at=at(request.at)),
    }


def _verdict(case: Case, ruling: Ruling) -> tuple[Verdict | None, str]:
    """(verdict, reason). A promotion that was gone back on is no promotion any more: the log has both."""
    recorded = case.world.recorded
    if recorded is None or ruling.reason != reasons.VERDICT_RECORDED:
        return ruling.verdict, ruling.reason
    if recorded.rolled_back is not None:
        return "RollBack", recorded.rolled_back.reason
    return recorded.verdict, recorded.reason


def _phase(case: Case, ruling: Ruling) -> str:
    recorded = case.world.recorded
    if ruling.reason == reasons.VERDICT_RECORDED and recorded is not None:
        return "RolledBack" if recorded.rolled_back is not None else PHASES[recorded.verdict]
    if ruling.reason == reasons.QUEUED:
        return "Queued"
    if ruling.reason == reasons.AWAITING_APPROVAL:
        return "AwaitingApproval"
    return "Running" if ruling.verdict is None else PHASES[ruling.verdict]


def _deciding(
    case: Case, rows: tuple[TestStatus, ...], verdict: Verdict | None, state: State | None
) -> TestStatus | None:
    """Of a rollback the test that found harm; else what is furthest from shown: an objective, then a non-inferiority.

    Where both are shown it is the objective; where there is neither, harm.
    """

    def distance(row: TestStatus) -> float:
        return math.inf if row.log_e is None or row.threshold is None else float(row.threshold) - float(row.log_e)

    latch = None if state is None else state.course.latch
    if verdict == "RollBack" and latch is not None:
        side = "Harm" if case.world.recorded is None or case.world.recorded.verdict != "Promote" else "Watch"
        found = next((row for row in rows if (row.side, row.name) == (side, latch.test)), None)
        if found is not None:
            return found
    by_side = {side: [row for row in rows if row.side == side and row.name != ALL] for side in SIDES}
    lacking = [[row for row in by_side[side] if distance(row) > 0.0] for side in SIDES[:2]]
    return next((max(found, key=distance) for found in (*lacking, *by_side.values()) if found), None)


def _ratio(state: State) -> SampleRatio | None:
    ratio, threshold = state.evidence.ratio, -math.log(state.terms.ratio)
    if state.terms.sticky:
        # No counter of ours tells misrouted requests yet: "no alarm" would be a claim that nobody measured.
        return SampleRatio(alarm=True) if state.evidence.misrouted > 0 else None
    if ratio is None:
        return None
    return SampleRatio(log_e=decimal(ratio.log_e), threshold=decimal(threshold), alarm=state.evidence.ratio_alarm)


def _health(case: Case, reading: Reading) -> DataHealth | None:
    numbers = reading.numbers
    if not case.started:
        return None
    champion, challenger = numbers.champion_dark, numbers.challenger_dark and numbers.exposed
    state = (
        "BothDark"
        if both_dark(numbers)
        else "ChampionDark"
        if champion
        else "ChallengerDark"
        if challenger
        else "Stale"
        if case.world.health.champion_missed or case.world.health.challenger_missed
        else "Good"
    )
    course = None if case.state is None else case.state.course
    since = None if course is None or course.dark_since is None else at(course.dark_since)
    return DataHealth(state=state, since=since, message=case.world.health.message or None)


def _feasibility(expected: tuple[Expected, ...]) -> Feasibility | None:
    """Of the test that takes longest; one that cannot be shown has no number."""
    if not expected:
        return None
    if any(one.needed is None for one in expected):
        return Feasibility()
    last = max(expected, key=lambda one: (one.at or 0, one.needed or 0))
    return Feasibility(blocks_needed=last.needed, expected_at=None if last.at is None else at(last.at))
