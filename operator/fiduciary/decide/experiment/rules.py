"""The rule table of an experiment: ordered, the first rule that applies decides.

Predicates broadcast: see :mod:`fiduciary.decide.experiment.readings`. ``x ^ True`` is "not x".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fiduciary.decide import reasons

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary.decide.experiment.readings import Readings

Verdict = Literal["Promote", "RollBack", "Hold", "KeepChampion"]
Exposure = Literal["Zero", "Keep", "Next", "Full"]
"""Weights after this evaluation: none, those of the present step, those of the next step, all to the challenger."""
MISSING_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class Rule:
    """``final``: the verdict is to be recorded; it is never judged again."""

    reason: str
    verdict: Verdict | None  # None: evidence is being gathered, or nothing is judged
    exposure: Exposure
    applies: Callable[[Readings], bool]
    final: bool = False


def _harm_after_promotion(r: Readings) -> bool:
    """What the window found stays found: its record may be written after the window ended."""
    found = r.pods_failed | r.breaker | (r.watch_over >= 0.0)
    return r.recorded & r.promoted & (r.latched | (r.watching & found))


def _recorded(r: Readings) -> bool:
    return r.recorded


def _latched(r: Readings) -> bool:
    return r.latched


def _pods_failed(r: Readings) -> bool:
    return r.pods_failed & (r.exposed | r.pods_away)


def _breaker(r: Readings) -> bool:
    return r.breaker


def _harm(r: Readings) -> bool:
    return r.harm_over >= 0.0


def _shortfall(r: Readings) -> bool:
    return r.ratio_alarm & r.shortfall


def _challenger_dark(r: Readings) -> bool:
    """Without pods there are no metrics: that has a reason of its own."""
    return r.exposed & r.challenger_dark & (r.champion_dark ^ True) & (r.pods_away ^ True)


def _deleted_after_start(r: Readings) -> bool:
    return r.deleted & (r.step >= 0)


def _deleted(r: Readings) -> bool:
    return r.deleted


def _superseded(r: Readings) -> bool:
    return r.superseded


def _aborted(r: Readings) -> bool:
    return r.aborted


def _rejected(r: Readings) -> bool:
    return r.rejected


def _infeasible(r: Readings) -> bool:
    return r.infeasible & (r.step < 0)


def _relabelled(r: Readings) -> bool:
    return r.relabelled & (r.step < 0)


def _queued(r: Readings) -> bool:
    return r.queued


def _killed(r: Readings) -> bool:
    return r.killed


def _pinned(r: Readings) -> bool:
    return r.pinned


def _dark(r: Readings) -> bool:
    return r.champion_dark | (r.challenger_dark & r.exposed)


def _no_data(r: Readings) -> bool:
    return _dark(r) & (r.dark_seconds >= r.max_hold)


def both_dark(r: Readings) -> bool:
    """Nothing is seen. A challenger to which nothing is sent has no series that could be: it gives no light."""
    return r.champion_dark & (r.challenger_dark | (r.exposed ^ True))


def _pods_away(r: Readings) -> bool:
    return r.pods_away


def _champion_dark(r: Readings) -> bool:
    return r.champion_dark


def _shown(r: Readings) -> bool:
    """Every objective and every non-inferiority at this very evaluation, or at the one that people are signing."""
    last = (r.step == r.last_step) & (r.blocks >= r.min_blocks)
    signing = r.requested & (r.approvals_needed > 0)
    return last & (signing | ((r.objectives_over >= 0.0) & (r.noninferiority_over >= 0.0)))


def _distrusted(r: Readings) -> bool:
    doubted = r.ratio_alarm | (r.misrouted > 0) | (r.missing_share > MISSING_LIMIT)
    return doubted | r.refused | (r.excess_series > 0)


def _never_started(r: Readings) -> bool:
    return (r.step < 0) & (r.waited >= r.max_duration)


def _not_shown_in_time(r: Readings) -> bool:
    return (r.elapsed >= r.max_duration) & ((_shown(r) ^ True) | _distrusted(r))


def _expired(r: Readings) -> bool:
    """All is shown. Only signatures, the calendar and pods may still be waited for, and not for ever."""
    held = r.killed | r.pinned | r.suspended | (r.enforced ^ True) | ((r.confirmed ^ True) & (r.pods_away ^ True))
    return (r.elapsed >= r.max_duration) & (held | (r.elapsed >= r.longest))


def _refused(r: Readings) -> bool:
    return r.refused


def _excess(r: Readings) -> bool:
    return r.excess_series > 0


def _misrouted(r: Readings) -> bool:
    return r.misrouted > 0


def _ratio(r: Readings) -> bool:
    return r.ratio_alarm


def _missing(r: Readings) -> bool:
    return r.missing_share > MISSING_LIMIT


def _replay_failed(r: Readings) -> bool:
    return r.replay_failed


def _suspended(r: Readings) -> bool:
    return r.suspended


def _unread(r: Readings) -> bool:
    return r.unread


def _outcomes_first(r: Readings) -> bool:
    return (r.step < r.last_step) & (r.blocks >= r.min_blocks) & r.outcomes_first & (r.objectives_over < 0.0)


def _no_capacity(r: Readings) -> bool:
    return (r.step < r.last_step) & ((r.step < 0) | (r.blocks >= r.min_blocks)) & (r.capacity ^ True)


def _starts(r: Readings) -> bool:
    return r.step < 0


def _unconfirmed(r: Readings) -> bool:
    return r.confirmed ^ True


def _step_done(r: Readings) -> bool:
    return (r.step < r.last_step) & (r.blocks >= r.min_blocks)


def _gathering(r: Readings) -> bool:
    return _shown(r) ^ True


def _too_early(r: Readings) -> bool:
    return r.elapsed < r.min_duration


def _advised(r: Readings) -> bool:
    return r.enforced ^ True


def _unsigned(r: Readings) -> bool:
    return r.approvals < r.approvals_needed


def _calendar_unknown(r: Readings) -> bool:
    return r.calendar_unknown


def _in_freeze(r: Readings) -> bool:
    return r.in_freeze


def _in_window(r: Readings) -> bool:
    return r.in_window


def _no_capacity_to_promote(r: Readings) -> bool:
    return r.capacity_full ^ True


def _promote(r: Readings) -> bool:
    return _shown(r)


TABLE: tuple[Rule, ...] = (
    # A verdict that is recorded is carried out; only new harm after a promotion starts a new course.
    Rule(reasons.HARM_AFTER_PROMOTION, "RollBack", "Zero", _harm_after_promotion, final=True),
    Rule(reasons.VERDICT_RECORDED, None, "Keep", _recorded),
    # Harm wins over everything that may still be decided, and over who is queued, suspended, pinned or frozen.
    Rule(reasons.HARM_LATCHED, "RollBack", "Zero", _latched, final=True),
    Rule(reasons.PODS_FAILED, "RollBack", "Zero", _pods_failed, final=True),
    Rule(reasons.BREAKER_TRIPPED, "RollBack", "Zero", _breaker, final=True),
    Rule(reasons.HARM_SHOWN, "RollBack", "Zero", _harm, final=True),
    Rule(reasons.REQUESTS_LOST, "RollBack", "Zero", _shortfall, final=True),  # something eats its requests
    Rule(reasons.CHALLENGER_DARK, "RollBack", "Zero", _challenger_dark, final=True),  # silence of one arm is harm
    # What is compared, or who asked for it, is gone.
    Rule(reasons.DELETING, "KeepChampion", "Zero", _deleted_after_start, final=True),  # what it spent is recorded
    Rule(reasons.DELETING, None, "Zero", _deleted),
    Rule(reasons.SUPERSEDED, "KeepChampion", "Zero", _superseded, final=True),
    Rule(reasons.ABORTED, "KeepChampion", "Zero", _aborted, final=True),
    Rule(reasons.REJECTED_BY_PERSON, "KeepChampion", "Zero", _rejected, final=True),
    Rule(reasons.INFEASIBLE, "KeepChampion", "Zero", _infeasible, final=True),  # before it costs a request
    Rule(reasons.NOT_A_REFRESH, "KeepChampion", "Zero", _relabelled, final=True),  # it would evade the sequence
    # Somebody else decides about the traffic.
    Rule(reasons.QUEUED, None, "Zero", _queued),
    # Before all that only holds: no hold outlives maxDuration, none before the start either.
    Rule(reasons.NEVER_STARTED, "KeepChampion", "Zero", _never_started, final=True),
    Rule(reasons.NOT_SHOWN, "KeepChampion", "Zero", _not_shown_in_time, final=True),
    Rule(reasons.EXPIRED, "KeepChampion", "Zero", _expired, final=True),
    Rule(reasons.KILL_ENGAGED, "Hold", "Zero", _killed),
    Rule(reasons.PINNED, "Hold", "Zero", _pinned),
    # No data is never a pass: hold blind, then keep what is known.
    Rule(reasons.NO_DATA, "KeepChampion", "Zero", _no_data, final=True),
    Rule(reasons.BOTH_DARK, "Hold", "Zero", both_dark),
    Rule(reasons.PODS_NOT_READY, "Hold", "Zero", _pods_away),  # nobody is sent where nobody answers; no verdict on why
    Rule(reasons.CHAMPION_DARK, "Hold", "Keep", _champion_dark),  # nothing to compare with; the challenger is seen
    # It sees, and does not trust what it sees.
    Rule(reasons.EVIDENCE_REFUSED, "Hold", "Keep", _refused),
    Rule(reasons.TOO_MANY_SERIES, "Hold", "Keep", _excess),
    Rule(reasons.MISROUTED, "Hold", "Keep", _misrouted),
    Rule(reasons.SAMPLE_RATIO_MISMATCH, "Hold", "Keep", _ratio),
    Rule(reasons.CHAMPION_MISSING, "Hold", "Keep", _missing),
    Rule(reasons.REPLAY_FAILED, "Hold", "Keep", _replay_failed),  # superiority cannot be shown: no further step
    Rule(reasons.SUSPENDED, "Hold", "Keep", _suspended),  # after safety and the end, before anything new
    Rule(reasons.READING_HISTORY, None, "Keep", _unread),  # the plug-ins are fixed with the first step
    # Steps: never entered before its capacity is ready, left on blocks without harm; a split ends live sessions.
    Rule(reasons.GATHERING_OUTCOMES, None, "Keep", _outcomes_first),
    Rule(reasons.WAITING_FOR_CAPACITY, None, "Keep", _no_capacity),
    Rule(reasons.STEP_ENTERED, None, "Next", _starts),
    Rule(reasons.ROUTE_NOT_CONFIRMED, None, "Keep", _unconfirmed),
    Rule(reasons.STEP_ENTERED, None, "Next", _step_done),
    # Promotion: everything at one evaluation, then people, then the calendar, then capacity.
    Rule(reasons.GATHERING_EVIDENCE, None, "Keep", _gathering),
    Rule(reasons.MIN_DURATION, None, "Keep", _too_early),
    Rule(reasons.PROMOTION_ADVISED, "Hold", "Keep", _advised),  # before approvals: nobody signs what is not done
    Rule(reasons.AWAITING_APPROVAL, "Hold", "Keep", _unsigned),
    Rule(reasons.CALENDAR_UNKNOWN, "Hold", "Keep", _calendar_unknown),  # no calendar is never an open day
    Rule(reasons.IN_FREEZE, "Hold", "Keep", _in_freeze),
    Rule(reasons.NO_PROMOTE_WINDOW, "Hold", "Keep", _in_window),
    Rule(reasons.WAITING_FOR_CAPACITY, None, "Keep", _no_capacity_to_promote),
    Rule(reasons.PROMOTED, "Promote", "Full", _promote, final=True),
)


def judge(readings: Readings) -> Rule:
    """The first rule that applies. One always does: what is not shown gathers evidence, what is shown is promoted."""
    return next(rule for rule in TABLE if rule.applies(readings))
