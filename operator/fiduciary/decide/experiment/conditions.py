"""The conditions of a ModelExperiment: one small function each, over what is true after this evaluation.

Ready says that the verdict is recorded and carried out, so ``kubectl wait --for=condition=Ready`` returns with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.api.conditions import Condition, Status, condition
from fiduciary.decide import reasons
from fiduciary.decide.experiment import forecast
from fiduciary.decide.experiment.rules import both_dark

if TYPE_CHECKING:
    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.decision import Ruling
    from fiduciary.decide.experiment.forecast import Expected
    from fiduciary.decide.experiment.read import Reading

NEEDS_A_PERSON = {
    reasons.AWAITING_APPROVAL,
    reasons.CALENDAR_UNKNOWN,
    reasons.CHAMPION_MISSING,
    reasons.EVIDENCE_REFUSED,
    reasons.MISROUTED,
    reasons.PROMOTION_ADVISED,
    reasons.REPLAY_FAILED,
    reasons.SAMPLE_RATIO_MISMATCH,
    reasons.TOO_MANY_SERIES,
}


@dataclass(frozen=True)
class Outlook:
    """The case and what its evaluation came to."""

    case: Case
    reading: Reading
    ruling: Ruling
    expected: tuple[Expected, ...]

    def condition(self, kind: str, status: Status, reason: str, message: str) -> Condition:
        """A condition at the present generation; its transition time moves only when its status does."""
        case = self.case
        generation = case.world.experiment.metadata.generation
        return condition(case.status.conditions, kind, status, reason, message, generation=generation, now=case.moment)


def conditions(outlook: Outlook) -> tuple[Condition, ...]:
    """All conditions, the ones that people wait on first."""
    return tuple(found for build in CONDITIONS if (found := build(outlook)) is not None)


def _ready(this: Outlook) -> Condition:
    done = this.reading.numbers.recorded and this.ruling.reason == reasons.VERDICT_RECORDED
    return this.condition(reasons.READY, "True" if done else "False", this.ruling.reason, this.ruling.message)


def _reconciling(this: Outlook) -> Condition:
    reason, message = this.ruling.reason, this.ruling.message
    ended = this.ruling.rule.final and not this.case.started  # it changed nothing: there is nothing to record
    if ended or reason == reasons.VERDICT_RECORDED or reason in NEEDS_A_PERSON:
        return this.condition(reasons.RECONCILING, "False", reasons.IDLE, "nothing is on its way")
    return this.condition(reasons.RECONCILING, "True", reason, message)


def _stalled(this: Outlook) -> Condition:
    if this.ruling.reason in NEEDS_A_PERSON:
        return this.condition(reasons.STALLED, "True", this.ruling.reason, this.ruling.message)
    return this.condition(reasons.STALLED, "False", reasons.NO_ACTION_NEEDED, "no person needs to act")


def _data_healthy(this: Outlook) -> Condition | None:
    case, numbers = this.case, this.reading.numbers
    if numbers.recorded and not numbers.watching:
        return None  # nobody looks any more
    if not case.started:
        silent = case.world.health.unanswered
        return this.condition(reasons.DATA_HEALTHY, "False", reasons.PROMETHEUS_SILENT, silent) if silent else None
    if case.refusal is not None:
        return this.condition(reasons.DATA_HEALTHY, "False", reasons.EVIDENCE_REFUSED, case.refusal)
    if numbers.champion_dark or (numbers.challenger_dark and numbers.exposed):
        which = (
            reasons.BOTH_DARK
            if both_dark(numbers)
            else reasons.CHAMPION_DARK
            if numbers.champion_dark
            else reasons.CHALLENGER_DARK
        )
        return this.condition(reasons.DATA_HEALTHY, "False", which, case.world.health.message or "no fresh series")
    if numbers.excess_series:
        return this.condition(reasons.DATA_HEALTHY, "False", reasons.TOO_MANY_SERIES, case.world.health.message)
    seen = "the promoted version is seen" if numbers.recorded else "both arms are seen"
    return this.condition(reasons.DATA_HEALTHY, "True", reasons.DATA_SEEN, seen)


def _replayed(this: Outlook) -> Condition | None:
    replay = this.case.replay
    if replay is None:
        return None
    status: Status = "True" if replay.phase == "Posted" else "False"
    return this.condition(reasons.REPLAYED, status, replay.reason, replay.message)


def _underpowered(this: Outlook) -> Condition | None:
    if this.reading.numbers.recorded:
        return None  # the verdict says what was not shown, and why
    if this.reading.impossible is not None:
        return this.condition(reasons.UNDERPOWERED, "True", reasons.INFEASIBLE, this.reading.impossible)
    if not this.expected:
        return this.condition(
            reasons.UNDERPOWERED, "Unknown", reasons.NOT_ESTIMATED, "nothing was observed to estimate it from"
        )
    late = [one for one in this.expected if forecast.late(this.case, one)]
    if not late:
        told = "a verdict can be expected within maxDuration"
        unknown = ", ".join(_not_estimated(this))
        if unknown:
            told = f"what can be estimated is expected within maxDuration; nothing is known yet of {unknown}"
        return this.condition(reasons.UNDERPOWERED, "False", reasons.FEASIBLE, told)
    told = "; ".join(_told(one) for one in late)
    used_up = any(one.side == "NonInferiority" and one.needed is None and _used_up(this, one) for one in late)
    reason = reasons.MARGIN_CONSUMED if used_up else reasons.UNDERPOWERED
    message = f"{told}; maxDuration is {this.case.spec.stopping.max_duration}; {forecast.WAYS_OUT}"
    return this.condition(reasons.UNDERPOWERED, "True", reason, message)


def _not_estimated(this: Outlook) -> list[str]:
    state = this.case.state
    known = {(one.side, one.name) for one in this.expected}
    wanted = [] if state is None else [("Superiority", its.name) for its in state.terms.objectives]
    wanted += [] if state is None else [("NonInferiority", its.name) for its in state.terms.guardrails]
    return [name for side, name in wanted if (side, name) not in known]


def _used_up(this: Outlook, one: Expected) -> bool:
    state = this.case.state
    return state is not None and any(its.name == one.name and its.margin <= 0.0 for its in state.terms.guardrails)


def _told(one: Expected) -> str:
    if one.needed is None:
        return f"{one.side} of {one.name}: {one.why}"
    return f"{one.side} of {one.name} needs about {one.needed} {one.unit} more, {one.why}"


def _approved(this: Outlook) -> Condition:
    numbers = this.reading.numbers
    if numbers.approvals_needed == 0:
        return this.condition(reasons.APPROVED, "True", reasons.NO_APPROVAL_NEEDED, "nobody has to sign")
    told = f"{numbers.approvals} of {numbers.approvals_needed} approvals"
    if numbers.approvals >= numbers.approvals_needed:
        return this.condition(reasons.APPROVED, "True", reasons.APPROVALS_GIVEN, told)
    if numbers.requested or this.ruling.reason == reasons.AWAITING_APPROVAL:
        return this.condition(reasons.APPROVED, "False", reasons.AWAITING_APPROVAL, told)
    return this.condition(reasons.APPROVED, "False", reasons.GATHERING_EVIDENCE, f"{told}; they are asked for later")


def _in_freeze(this: Outlook) -> Condition | None:
    closure = this.case.closure
    if closure.unknown is not None:
        return this.condition(reasons.IN_FREEZE, "Unknown", reasons.CALENDAR_UNKNOWN, closure.unknown)
    if closure.freeze is None and closure.window is None:
        return None
    reason = reasons.IN_FREEZE if closure.freeze is not None else reasons.NO_PROMOTE_WINDOW
    until = "" if closure.until is None else f" until {closure.until:%Y-%m-%d %H:%M %Z}"
    message = f"{closure.freeze or closure.window} forbids promotions{until}; rolling back is always possible"
    return this.condition(reasons.IN_FREEZE, "True", reason, message)


def _queued(this: Outlook) -> Condition:
    """Its transition time says since when the model follows this experiment: waiting for a start is not for ever."""
    if this.ruling.reason == reasons.QUEUED:
        return this.condition(reasons.QUEUED, "True", reasons.QUEUED, this.ruling.message)
    return this.condition(reasons.QUEUED, "False", reasons.FOLLOWED, "it does not wait for another experiment")


def _exported(this: Outlook) -> Condition | None:
    state = this.case.world.exported
    if state is None or not this.case.started:
        return None
    if state.lost:
        why = f": {state.why}" if state.why else ", and others were written since"
        told = f"{state.lost} lines of {state.file} are lost{why}; decisions go on, and evidence up to them cannot be "
        return this.condition(reasons.EXPORTED, "False", reasons.EXPORT_INCOMPLETE, told + "folded again from it")
    if state.why:
        told = f"{state.waiting} lines wait for {state.file}: {state.why}; decisions go on. Mend the volume"
        return this.condition(reasons.EXPORTED, "False", reasons.EXPORT_FAILING, told)
    return this.condition(reasons.EXPORTED, "True", reasons.BLOCKS_EXPORTED, f"folded blocks are in {state.file}")


def _suspended(this: Outlook) -> Condition | None:
    if not this.case.spec.suspend:
        return None
    message = "spec.suspend is true: no further step and no promotion; safety goes on"
    return this.condition(reasons.SUSPENDED, "True", reasons.SUSPENDED_BY_SPEC, message)


CONDITIONS = (
    _ready,
    _reconciling,
    _stalled,
    _data_healthy,
    _replayed,
    _underpowered,
    _approved,
    _queued,
    # These are there only while they are true.
    _in_freeze,
    _suspended,
    _exported,
)
