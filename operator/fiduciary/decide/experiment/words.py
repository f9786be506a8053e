"""What a ruling says to people: metric, value, threshold, sample, and what happens next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.experiment import forecast, pods
from fiduciary.decide.experiment.claims import claims
from fiduciary.decide.experiment.decision import Ruling
from fiduciary.decide.experiment.lacking import held, missing
from fiduciary.decide.experiment.read import (
    DARK_AFTER,
    longest,
    superseded,
)
from fiduciary.decide.experiment.rules import MISSING_LIMIT, both_dark

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.read import Reading
    from fiduciary.decide.experiment.rules import Rule
    from fiduciary.decide.experiment.state import State


def explain(case: Case, reading: Reading, rule: Rule) -> Ruling:
    """The rule in words. Harm that waits for its record keeps the words of the evaluation that found it."""
    latch = None if case.state is None else case.state.course.latch
    if latch is not None and rule.verdict == "RollBack":
        return Ruling(rule, latch.reason, latch.message, latch.test)
    words = WORDS.get(rule.reason)
    message = "" if words is None else words(case, reading)
    return Ruling(rule, rule.reason, message, _test(reading, rule))


def _test(reading: Reading, rule: Rule) -> str:
    match rule.reason:
        case reasons.HARM_SHOWN:
            return reading.harm.largest
        case reasons.PODS_FAILED:
            return "pods"
        case reasons.BREAKER_TRIPPED:
            return reading.trip.test if reading.trip is not None else ""
        case reasons.HARM_AFTER_PROMOTION:
            found = reading.pods or reading.trip
            return reading.watch.largest if found is None else found.test
        case reasons.REQUESTS_LOST:
            return "sample-ratio"
        case reasons.CHALLENGER_DARK:
            return "data"
        case _:
            return ""


def _harm_shown(case: Case, reading: Reading) -> str:
    state = case.state
    found = (
        None if state is None else next((g for g in state.evidence.guardrails if g.name == reading.harm.largest), None)
    )
    seen = ""
    if found is not None:
        one, other = found.seen_champion, found.seen_challenger
        seen = f": {other.bad} of {other.trials} requests against {one.bad} of {one.trials}"
    alpha = case.spec.evidence.alpha.rollback
    return (
        f"the challenger is worse than the champion in {reading.harm.largest}{seen}; log evidence of all harm tests "
        f"{reading.harm.log_e:.2f}, threshold {-math.log(float(alpha)):.2f} (alpha {alpha})"
    )


def _harm_after_promotion(case: Case, reading: Reading) -> str:
    found = reading.pods or reading.trip
    if found is not None:
        return f"after the promotion: {found.message}"
    name, state = reading.watch.largest, case.state
    guardrails = () if state is None else state.evidence.guardrails
    its = next((one.watch for one in guardrails if one.name == name), None)
    seen = "" if its is None else (
        f"{its.above} of {its.trials} requests are bad in {name} ({100 * its.above / max(1, its.trials):.2f} %), where "
        f"at most {100 * its.allowed:.2f} % is what the previous champion is known to have had, plus the margin; "
    )  # fmt: skip
    return (
        f"since the promotion {seen}log evidence {reading.watch.log_e:.2f}, threshold "
        f"{-math.log(float(case.spec.evidence.alpha.rollback)):.2f}; nobody serves beside it at the same time, so what "
        "a busy node does counts, too"
    )


def _pods(_: Case, reading: Reading) -> str:
    return "" if reading.pods is None else reading.pods.message


def _pods_away(case: Case, _: Reading) -> str:
    return pods.waited_for(case)


def _breaker(_: Case, reading: Reading) -> str:
    return "" if reading.trip is None else reading.trip.message


def _requests(case: Case, _: Reading) -> str:
    ratio = None if case.state is None else case.state.evidence.ratio
    if ratio is None:
        return ""
    champion, challenger = ratio.segment.counts
    asked = 100.0 * ratio.segment.shares[1]
    got = 100.0 * challenger / max(1, champion + challenger)
    return (
        f"the challenger got {got:.2f} % of {champion + challenger} requests where the route says {asked:.0f} %; log "
        f"evidence {ratio.log_e:.1f}, threshold {-math.log(float(case.spec.evidence.alpha.srm)):.1f}"
    )


def _dark(case: Case, reading: Reading) -> str:
    numbers = reading.numbers
    which = "both arms" if numbers.champion_dark and numbers.challenger_dark else (
        "the champion, and nothing is sent to the challenger" if both_dark(numbers)
        else "the champion" if numbers.champion_dark else "the challenger"
    )  # fmt: skip
    told = f": {case.world.health.message}" if case.world.health.message else ""
    hold = case.spec.no_data.max_hold
    return f"no fresh series of {which} for {DARK_AFTER} block closings or more, noData.maxHold is {hold}{told}"


def _recorded(case: Case, _: Reading) -> str:
    recorded = case.world.recorded
    if recorded is None:
        return ""
    gone = recorded.rolled_back
    if gone is not None:
        before = f"before it, {recorded.verdict} was record {recorded.sequence}"
        return f"RollBack is record {gone.sequence}: {gone.message}; {before}"
    return f"{recorded.verdict} is record {recorded.sequence}: {recorded.message}"


def _deleting(case: Case, _: Reading) -> str:
    if case.started:
        return "the experiment was deleted after it began: what it spent and saw is recorded, the champion is kept"
    return "the experiment was deleted before it began"


def _superseded(case: Case, _: Reading) -> str:
    return superseded(case) or ""


def _by_person(case: Case, _: Reading) -> str:
    act = (case.acts("Abort") or case.acts("Reject"))[-1]
    return f"ended by {act.spec.approver} (ModelApproval {act.metadata.name}, {act.spec.decision}): {act.spec.reason}"


def _impossible(_: Case, reading: Reading) -> str:
    return reading.impossible or ""


def _relabelled(case: Case, _: Reading) -> str:
    return (
        f"purpose is Refresh, but version {case.spec.challenger.version} was trained by another configuration than the "
        "champion: only a retrain of the same one needs no superiority; create the experiment with purpose Improve"
    )


def _queued(case: Case, _: Reading) -> str:
    active, ahead = case.world.model.active, case.world.model.ahead
    if case.world.model.moving:
        return (
            f"the model's requests move to backend {case.world.model.moving}, and evidence is of one place: it begins "
            "there, once that is proven (the model's condition Reconciling says how far it is)"
        )
    follows = "none yet" if active is None else active[0]
    return f"the model follows one experiment at a time, now {follows}" + (
        f"; before this: {', '.join(ahead)}" if ahead else ""
    )


def _refused(case: Case, _: Reading) -> str:
    return case.refusal or ""


def _excess(case: Case, _: Reading) -> str:
    return f"{case.world.health.excess_series} series too many: {case.world.health.message}"


def _misrouted(_: Case, reading: Reading) -> str:
    return (
        f"{reading.numbers.misrouted} sticky requests went to the arm that their bucket does not belong to; tolerance 0"
    )


def _missing(_: Case, reading: Reading) -> str:
    return (
        f"{100 * reading.numbers.missing_share:.1f} % of outcomes have the challenger's prediction only, limit "
        f"{100 * MISSING_LIMIT:.0f} %"
    )


def _unread(case: Case, _: Reading) -> str:
    return f"the champion's last seven days are being read: {case.world.unread}"


def _capacity(case: Case, reading: Reading) -> str:
    route = case.world.route
    return f"{route.challenger_ready} pods of the challenger are ready, {route.champion_ready} of the champion"


def _entered(case: Case, reading: Reading) -> str:
    step = case.spec.traffic.steps[reading.numbers.step + 1]
    return f"step {step.name}: weight {step.weight} %, mirror {step.mirror} %, at least {step.min_blocks} blocks"


def _unconfirmed(case: Case, reading: Reading) -> str:
    route, step = case.world.route, case.spec.traffic.steps[reading.numbers.step]
    return (
        f"step {step.name} asks for weight {step.weight} and mirror {step.mirror}, in force are {route.weight} and "
        f"{route.mirror}" + ("" if route.confirmed else ", not confirmed by probes")
    )


def _steps_left(case: Case, state: State) -> str:
    steps, course = case.spec.traffic.steps, state.course
    if course.step < 0:
        return ""
    step = steps[course.step]
    return f"step {step.name}: {min(course.blocks, step.min_blocks)} of {step.min_blocks} blocks"


def _gathering(case: Case, _: Reading) -> str:
    state = case.state
    parts = [_steps_left(case, state)] if state is not None else []
    return "; ".join(part for part in (*parts, *missing(case)) if part)


def _outcomes_first(case: Case, reading: Reading) -> str:
    step = case.spec.traffic.steps[reading.numbers.step + 1]
    return (
        f"step {step.name} splits requests, and outcomes are compared while all of them go to both arms: it waits "
        f"until the objectives are shown; {'; '.join(missing(case))}"
    )


def _not_shown(case: Case, reading: Reading) -> str:
    left = missing(case) or ("everything, but what was seen is not trusted",)
    underpowered = [one for one in forecast.expected(case) if forecast.late(case, one)]
    ways = f"; {forecast.WAYS_OUT}" if underpowered else ""
    return f"maxDuration {case.spec.stopping.max_duration} is over and not shown is {'; '.join(left)}{ways}"


def _expired(case: Case, reading: Reading) -> str:
    grace = (longest(case) - case.max_duration) // 60
    return (
        f"maxDuration {case.spec.stopping.max_duration} is over (signatures, the calendar and pods are waited for "
        f"up to {grace} minutes more); all is shown, and what held the promotion is: {held(case, reading)}"
    )


def _never_started(case: Case, reading: Reading) -> str:
    return (
        f"the model has followed this experiment for maxDuration {case.spec.stopping.max_duration} and it could not "
        f"start: {held(case, reading)}"
    )


def _early(case: Case, _: Reading) -> str:
    return f"all is shown; stopping.minDuration is {case.spec.stopping.min_duration}"


def _advised(case: Case, _: Reading) -> str:
    return f"all is shown and mode is {case.spec.mode}: nothing is promoted; {shown(case)}"


def shown(case: Case) -> str:
    """The evidence of everything that was shown, or that people sign."""
    state = case.state
    if state is None:
        return ""
    parts = [
        f"{one.name} {one.log_e:.2f} (threshold {one.threshold:.2f}, {one.n} sessions)"
        if one.margin is None
        else f"{one.name} not worse {one.log_e:.2f} (threshold {one.threshold:.2f})"
        for one in claims(case, state)
    ]
    how = "prequential evidence" if state.terms.prequential and state.evidence.objectives else "evidence"
    return f"log {how}: {'; '.join(parts)}"


def _unsigned(case: Case, reading: Reading) -> str:
    numbers, request = reading.numbers, None if case.state is None else case.state.course.request
    digest = case.evidence_digest if request is None else request.digest
    objections = [told[1] for act in case.acts("Approve") if (told := case.objection(act)) is not None]
    more = f"; {objections[-1]}" if objections else ""
    return (
        f"{numbers.approvals} of {numbers.approvals_needed} approvals; create a ModelApproval {{decision: Approve, "
        f"experiment: {case.name}, evidenceDigest: {digest}}}{more}; {shown(case)}"
    )


def _replay(case: Case, _: Reading) -> str:
    return "" if case.replay is None else f"{case.replay.reason}: {case.replay.message}"


def _calendar(case: Case, _: Reading) -> str:
    return case.closure.unknown or ""


def _closed(case: Case, _: Reading) -> str:
    closure = case.closure
    until = "" if closure.until is None else f" until {closure.until:%Y-%m-%d %H:%M %Z}"
    return f"all is shown; {closure.freeze or closure.window} forbids promotions{until}"


def _promoted(case: Case, _: Reading) -> str:
    return shown(case)


WORDS: dict[str, Callable[[Case, Reading], str]] = {
    reasons.HARM_AFTER_PROMOTION: _harm_after_promotion,
    reasons.VERDICT_RECORDED: _recorded,
    reasons.PODS_FAILED: _pods,
    reasons.BREAKER_TRIPPED: _breaker,
    reasons.HARM_SHOWN: _harm_shown,
    reasons.REQUESTS_LOST: _requests,
    reasons.CHALLENGER_DARK: _dark,
    reasons.DELETING: _deleting,
    reasons.SUPERSEDED: _superseded,
    reasons.ABORTED: _by_person,
    reasons.REJECTED_BY_PERSON: _by_person,
    reasons.INFEASIBLE: _impossible,
    reasons.NOT_A_REFRESH: _relabelled,
    reasons.QUEUED: _queued,
    reasons.NO_DATA: _dark,
    reasons.BOTH_DARK: _dark,
    reasons.PODS_NOT_READY: _pods_away,
    reasons.CHAMPION_DARK: _dark,
    reasons.NEVER_STARTED: _never_started,
    reasons.NOT_SHOWN: _not_shown,
    reasons.EXPIRED: _expired,
    reasons.EVIDENCE_REFUSED: _refused,
    reasons.TOO_MANY_SERIES: _excess,
    reasons.MISROUTED: _misrouted,
    reasons.SAMPLE_RATIO_MISMATCH: _requests,
    reasons.CHAMPION_MISSING: _missing,
    reasons.REPLAY_FAILED: _replay,
    reasons.READING_HISTORY: _unread,
    reasons.WAITING_FOR_CAPACITY: _capacity,
    reasons.GATHERING_OUTCOMES: _outcomes_first,
    reasons.STEP_ENTERED: _entered,
    reasons.ROUTE_NOT_CONFIRMED: _unconfirmed,
    reasons.GATHERING_EVIDENCE: _gathering,
    reasons.MIN_DURATION: _early,
    reasons.PROMOTION_ADVISED: _advised,
    reasons.AWAITING_APPROVAL: _unsigned,
    reasons.CALENDAR_UNKNOWN: _calendar,
    reasons.IN_FREEZE: _closed,
    reasons.NO_PROMOTE_WINDOW: _closed,
    reasons.PROMOTED: _promoted,
}
