"""The conditions of a DriftPolicy: one small function each, over what is true after this judgement.

Ready says that the policy watches: every monitor's last window was judged, whatever it said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.api.conditions import Condition, Status, condition
from fiduciary.decide import reasons

if TYPE_CHECKING:
    from fiduciary.decide.drift.actions import Wish
    from fiduciary.decide.drift.case import Case
    from fiduciary.decide.drift.health import Blind
    from fiduciary.decide.drift.standing import Shown


@dataclass(frozen=True)
class Outlook:
    """The case and what its judgement came to."""

    case: Case
    shown: tuple[Shown, ...]
    blind: Blind | None
    wishes: tuple[Wish, ...]

    @property
    def unknown(self) -> tuple[Shown, ...]:
        return tuple(its for its in self.shown if its.state == "Unknown")

    def condition(self, kind: str, status: Status, reason: str, message: str) -> Condition:
        """A condition at the present generation; its transition time moves only when its status does."""
        case = self.case
        generation = case.world.policy.metadata.generation
        return condition(case.status.conditions, kind, status, reason, message, generation=generation, now=case.moment)


def conditions(outlook: Outlook) -> tuple[Condition, ...]:
    """All conditions, the ones that people wait on first."""
    return tuple(found for build in CONDITIONS if (found := build(outlook)) is not None)


def _ready(this: Outlook) -> Condition:
    if this.blind is not None:
        return this.condition(reasons.READY, "False", this.blind.reason, this.blind.message)
    if this.unknown:
        told = "; ".join(f"{its.name}: {its.message}" for its in this.unknown)
        return this.condition(reasons.READY, "False", reasons.MONITORS_UNKNOWN, told)
    state = this.case.state
    folded = 0 if state is None else state.folded
    return this.condition(reasons.READY, "True", reasons.WATCHING, f"all monitors are judged, {folded} windows so far")


def _reconciling(this: Outlook) -> Condition:
    if this.blind is not None and not this.blind.person:
        return this.condition(reasons.RECONCILING, "True", this.blind.reason, this.blind.message)
    return this.condition(reasons.RECONCILING, "False", reasons.IDLE, "nothing is on its way")


def _stalled(this: Outlook) -> Condition:
    if this.blind is not None and this.blind.person:
        return this.condition(reasons.STALLED, "True", this.blind.reason, this.blind.message)
    broken = next((its for its in this.shown if its.person), None)
    if broken is not None:
        return this.condition(reasons.STALLED, "True", reasons.QUERY_REFUSED, f"{broken.name}: {broken.message}")
    return this.condition(reasons.STALLED, "False", reasons.NO_ACTION_NEEDED, "no person needs to act")


def _drifted(this: Outlook) -> Condition:
    drifted = [its for its in this.shown if its.state == "Drifted"]
    if drifted:
        told = "; ".join(f"{its.name}: {its.message}" for its in drifted)
        return this.condition(reasons.DRIFTED, "True", reasons.DRIFT_SHOWN, told)
    if this.unknown:
        told = "; ".join(f"{its.name}: {its.message}" for its in this.unknown)
        return this.condition(reasons.DRIFTED, "Unknown", reasons.MONITORS_UNKNOWN, f"neither drift nor health: {told}")
    return this.condition(reasons.DRIFTED, "False", reasons.NO_DRIFT, _joint(this))


def _joint(this: Outlook) -> str:
    calibrated = this.case.calibrated
    judged = 0 if calibrated is None else calibrated.judged
    ert = this.case.spec.false_alarms.ert_windows
    return (
        f"no alarm of {judged} detectors together, which without drift raise one in {ert} windows on average over "
        "references"
    )


def _data_healthy(this: Outlook) -> Condition:
    if this.blind is not None:
        return this.condition(reasons.DATA_HEALTHY, "False", this.blind.reason, this.blind.message)
    state = this.case.state
    if state is None or state.ended < 0:
        return this.condition(reasons.DATA_HEALTHY, "Unknown", reasons.FIRST_WINDOW, "no window was counted yet")
    return this.condition(reasons.DATA_HEALTHY, "True", reasons.COUNTS_SEEN, "the last window was counted whole")


def _action_held(this: Outlook) -> Condition | None:
    """There only while alarms ask for what is not asked of the model."""
    held = next((wish for wish in this.wishes if wish.held is not None), None)
    if held is None or held.held is None:
        return None
    return this.condition(reasons.ACTION_HELD, "True", held.held.reason, f"{held.kind}: {held.held.message}")


def _alerts_delivered(this: Outlook) -> Condition | None:
    """There only while they are not."""
    told = this.case.world.undelivered
    return None if not told else this.condition(reasons.ALERTS_DELIVERED, "False", reasons.UNDELIVERED, told)


def _suspended(this: Outlook) -> Condition | None:
    model = this.case.model
    if model is None or not (model.suspended or model.killed):
        return None
    why = "the kill switch of the model is engaged" if model.killed else "spec.suspend of the model is true"
    return this.condition(
        reasons.SUSPENDED, "True", reasons.MODEL_SUSPENDED, f"{why}: monitors go on, nothing is asked for"
    )


def _outcomes_read(this: Outlook) -> Condition | None:
    """There only where something is judged from outcomes."""
    if not any(its.realised for its in this.case.spec.monitors):
        return None
    problem = this.case.world.outcomes or this.case.sessions_refused
    if problem:
        return this.condition(reasons.OUTCOMES_READ, "False", reasons.OUTCOMES_UNREAD, problem)
    losses = None if this.case.state is None else this.case.state.losses
    if losses is None or losses.last < 0:
        told = "no session is closed yet: one closes at its label's end and outcomes.grace"
        return this.condition(reasons.OUTCOMES_READ, "Unknown", reasons.SESSIONS_AWAITED, told)
    told = (
        f"{losses.last + 1} sessions up to {losses.session}; {losses.dropped} left out for what was lost in transport, "
        f"{losses.empty} without anything to score"
    )
    return this.condition(reasons.OUTCOMES_READ, "True", reasons.SESSIONS_SEEN, told)


CONDITIONS = (
    _ready,
    _reconciling,
    _stalled,
    _drifted,
    _data_healthy,
    _action_held,
    _alerts_delivered,
    _suspended,
    _outcomes_read,
)
