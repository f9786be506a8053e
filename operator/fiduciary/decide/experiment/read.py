"""From a case to the plain numbers that the rule table judges."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.api.conditions import find
from fiduciary.decide import reasons
from fiduciary.decide.experiment import breakers, pods
from fiduciary.decide.experiment.begin import seconds_of
from fiduciary.decide.experiment.course import in_force, together
from fiduciary.decide.experiment.readings import Readings
from fiduciary.evidence.combine import Combined, weighted_average
from fiduciary.evidence.refusal import Refusal
from fiduciary.evidence.spending import log_threshold

if TYPE_CHECKING:
    from fiduciary.decide.experiment.breakers import Trip
    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.state import Evidence, State, Terms

DARK_AFTER = 2
"""Block closings without fresh series (rule 10)."""
GRACE = 3 * 86_400
"""Seconds beyond maxDuration, at most maxDuration again: a weekend, and a day to sign."""
NOTHING = Combined(-math.inf, "")


@dataclass(frozen=True, slots=True)
class Reading:
    """The numbers, and what stands behind three of them, for the words."""

    numbers: Readings
    harm: Combined
    watch: Combined
    trip: Trip | None
    pods: Trip | None
    impossible: str | None


def harm(evidence: Evidence) -> Combined:
    """Σ wᵢ Eᵢ over the harm tests, each with weight 1/m (rule 4)."""
    return _combined({guardrail.name: guardrail.harm_log_e for guardrail in evidence.guardrails})


def watch(evidence: Evidence) -> Combined:
    """The same after a promotion, of the new champion alone."""
    return _combined({g.name: g.watch.log_e for g in evidence.guardrails if g.watch is not None})


def objective_threshold(terms: Terms, configurations: int) -> float:
    """ln 1/α_j; ln N/α_j for replayed sessions, N never smaller than when the experiment began (rule 15)."""
    tried = max(terms.configurations, configurations) if terms.prequential else 1
    threshold = log_threshold(terms.level, max(1, tried))
    return math.inf if isinstance(threshold, Refusal) else threshold


def objectives_over(terms: Terms, evidence: Evidence, configurations: int) -> float:
    """The least log e of an objective less its threshold."""
    threshold = objective_threshold(terms, configurations)
    logs = [objective.log_e for objective in evidence.objectives]
    return min((-math.inf if log is None else log - threshold for log in logs), default=math.inf)


def noninferiority_threshold(terms: Terms) -> float:
    """ln 1/α_j (rule 18): a false promotion counts, whichever claim let it pass. ln 1/α of a Refresh."""
    return -math.log(terms.level)


def noninferiority_over(terms: Terms, evidence: Evidence) -> float:
    """The least log e of a non-inferiority less its threshold: all are needed, so each has the whole level.

    Without any guardrail an objective may suffice; where there is neither, nothing can have been shown.
    """
    logs = [log for guardrail in evidence.guardrails if (log := guardrail.noninferiority_log_e) is not None]
    threshold = noninferiority_threshold(terms)
    return min((log - threshold for log in logs), default=math.inf if terms.objectives else -math.inf)


def read(case: Case, impossible: str | None) -> Reading:
    """All readings of this case. ``impossible``: why an objective can never be shown."""
    state = case.state
    trip, failed = breakers.tripped(case), pods.failed(case)
    by_harm, by_watch = (NOTHING, NOTHING) if state is None else (harm(state.evidence), watch(state.evidence))
    level = math.log(float(case.spec.evidence.alpha.rollback))
    numbers = replace(
        _people(case),
        infeasible=impossible is not None,
        relabelled=case.spec.purpose == "Refresh" and not case.world.same_configuration,
        refused=case.refusal is not None,
        unread=bool(case.world.unread) and not case.started,
        pods_failed=failed is not None,
        pods_away=pods.away(case),
        breaker=trip is not None,
        harm_over=by_harm.log_e + level,
        watch_over=by_watch.log_e + level,
    )
    numbers = _route(case, _data(case, numbers))
    if state is not None:
        numbers = _progress(case, state, numbers)
    return Reading(numbers, by_harm, by_watch, trip, failed, impossible)


def _people(case: Case) -> Readings:
    """What the log, people, the model and the calendar say."""
    world, model, spec = case.world, case.world.model, case.spec
    recorded, metadata = world.recorded, world.experiment.metadata
    promoted = recorded if recorded is not None and recorded.stands else None
    watching = promoted is not None and case.now < int(promoted.at.timestamp()) + model.rollback_window_seconds
    closure = case.closure
    return Readings(
        recorded=recorded is not None,
        promoted=promoted is not None,
        watching=watching,
        deleted=metadata.deletion_timestamp is not None,
        superseded=superseded(case) is not None,
        aborted=bool(case.acts("Abort")),
        rejected=bool(case.acts("Reject")),
        queued=model.active != (metadata.name, metadata.uid) or (bool(model.moving) and not case.started),
        killed=model.killed,
        pinned=model.mode == "Pinned",
        suspended=spec.suspend or model.suspended,
        enforced=spec.mode == "Enforce",
        approvals=len(case.signatures),
        approvals_needed=case.approvals_needed,
        min_duration=float(seconds_of(spec.stopping.min_duration)),
        max_duration=float(case.max_duration),
        longest=float(longest(case)),
        waited=0.0 if waiting_since(case) is None else float(case.now - (waiting_since(case) or 0)),
        max_hold=float(seconds_of(spec.no_data.max_hold)),
        calendar_unknown=closure.unknown is not None,
        in_freeze=closure.freeze is not None,
        in_window=closure.window is not None,
    )


def longest(case: Case) -> int:
    """Seconds after which nothing is waited for any more."""
    return case.max_duration + min(case.max_duration, GRACE)


def waiting_since(case: Case) -> int | None:
    """When the model began to follow an experiment that has not started; None: it has, or is queued.

    Read from the condition Queued, whose transition time moves when the queue is left. Lost status only waits longer.
    """
    queued = find(case.status.conditions, reasons.QUEUED)
    if case.started or queued is None or queued.status != "False":
        return None
    return int(queued.last_transition_time.timestamp())


def superseded(case: Case) -> str | None:
    """Why the pair that is compared is no longer the pair in question."""
    world = case.world
    for name, version in (("champion", world.champion), ("challenger", world.challenger)):
        if version is None:
            lost = "was rejected since" if name == "champion" else "was rejected since, or a newer one took its place"
            return f"the {name} of this experiment is not in the decision log, or {lost}"
    serving, champion = world.model.champion, world.champion
    if serving is None or champion is None or serving.digest != champion.digest:
        now = "none" if serving is None else f"version {serving.version}"
        return f"champion of the model is {now}, not version {champion.version if champion else '?'} as compared here"
    return None


def _data(case: Case, numbers: Readings) -> Readings:
    """Whether it can see. An arm without traffic has no series and is not dark."""
    health, route, state = case.world.health, case.world.route, case.state
    exposed = route.weight > 0 or route.mirror > 0
    champion_dark = case.started and health.champion_missed >= DARK_AFTER
    challenger_dark = case.started and health.challenger_missed >= DARK_AFTER
    since = None if state is None else state.course.dark_since
    dark = champion_dark or (challenger_dark and exposed)
    sessions = None if state is None else state.evidence.sessions
    return replace(
        numbers,
        exposed=exposed,
        champion_dark=champion_dark,
        challenger_dark=challenger_dark,
        dark_seconds=float(case.now - since) if dark and since is not None else 0.0,
        excess_series=health.excess_series,
        missing_share=0.0 if sessions is None else sessions.missing_share,
        replay_failed=case.replay is not None and case.replay.phase == "Failed",
        ratio_alarm=state is not None and state.evidence.ratio_alarm,
        shortfall=state is not None and state.evidence.shortfall,
        misrouted=0 if state is None else state.evidence.misrouted,
    )


def _route(case: Case, numbers: Readings) -> Readings:
    """Capacity for what comes next, and whether the present step is in force."""
    route, steps = case.world.route, case.spec.traffic.steps
    step = -1 if case.world.state is None else case.world.state.course.step
    following = steps[min(step + 1, len(steps) - 1)]
    # Copies load pods as much as live requests do.
    needed = max(1, math.ceil(max(following.weight, following.mirror) / 100 * route.champion_ready))
    confirmed = step < 0 or (route.confirmed and in_force(steps[step], route.weight, route.mirror))
    unwritten = case.spec.mode == "DryRun"  # no route is written, so none is waited for
    return replace(
        numbers,
        step=step,
        last_step=len(steps) - 1,
        min_blocks=steps[step].min_blocks if step >= 0 else 1,
        capacity=unwritten or route.challenger_ready >= needed,
        capacity_full=route.challenger_ready >= max(1, route.champion_ready),
        confirmed=unwritten or confirmed,
    )


def _progress(case: Case, state: State, numbers: Readings) -> Readings:
    course, terms, evidence = state.course, state.terms, state.evidence
    steps = case.spec.traffic.steps
    live, last = bool(terms.objectives) and not terms.prequential, course.step >= len(steps) - 1
    return replace(
        numbers,
        latched=course.latch is not None,
        blocks=course.blocks,
        elapsed=0.0 if course.started is None else float(case.now - course.started),
        objectives_over=-math.inf
        if case.replay is not None and case.replay.phase != "Posted"
        else objectives_over(terms, evidence, case.world.spending.configurations),
        noninferiority_over=noninferiority_over(terms, evidence),
        outcomes_first=live and not last and together(steps, course.step) and not together(steps, course.step + 1),
        requested=course.request is not None and all(one.void is None for one in evidence.objectives),
    )


def _combined(logs: dict[str, float]) -> Combined:
    combined = weighted_average(logs) if logs else NOTHING
    return NOTHING if isinstance(combined, Refusal) else combined
