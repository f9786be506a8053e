"""What a promotion lacks, in words: tests that are not shown, and what holds one of which everything is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide.experiment.read import noninferiority_threshold, objective_threshold

if TYPE_CHECKING:
    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.read import Reading


def missing(case: Case) -> tuple[str, ...]:
    """What is not shown yet, each with its evidence and threshold."""
    state = case.state
    if state is None:
        return ("nothing was counted yet",)
    found: list[str] = []
    terms = state.terms
    threshold = objective_threshold(terms, case.world.spending.configurations)
    for objective in state.evidence.objectives:
        log = objective.log_e
        if objective.void is not None:
            found.append(f"objective {objective.name}: {objective.void}")
        elif log is None:
            found.append(f"objective {objective.name}: {objective.burn_in.count} of 250 sessions that set the scale")
        elif log < threshold:
            found.append(
                f"objective {objective.name}: log e {log:.2f} of {threshold:.2f} after {objective.folded} sessions"
            )
    if case.replay is not None and case.replay.phase != "Posted":
        found.append(case.replay.message)
    needed = noninferiority_threshold(terms)
    for guardrail in state.evidence.guardrails:
        log = guardrail.noninferiority_log_e
        if log is not None and log < needed:
            trials = guardrail.final_challenger.trials
            found.append(
                f"non-inferiority of {guardrail.name}: log e {log:.2f} of {needed:.2f} after {trials} requests"
            )
    return tuple(found)


def held(case: Case, reading: Reading) -> str:
    """What keeps a promotion of which everything is shown, or a start."""
    numbers, route = reading.numbers, case.world.route
    found = (
        (numbers.killed, "the kill switch is engaged"),
        (numbers.pinned, "the model's promotion.mode is Pinned"),
        (numbers.suspended, "the experiment or its model is suspended"),
        (case.refusal is not None, case.refusal or ""),
        (numbers.unread, case.world.unread),
        (numbers.step >= 0 and not numbers.enforced, f"mode is {case.spec.mode}"),
        (not numbers.confirmed, "the weights that were asked for are not in force"),
        (
            numbers.approvals < numbers.approvals_needed and numbers.step >= 0,
            f"{numbers.approvals} of {numbers.approvals_needed} people have signed",
        ),
        (numbers.calendar_unknown, case.closure.unknown or ""),
        (numbers.in_freeze or numbers.in_window, f"{case.closure.freeze or case.closure.window} forbids promotions"),
        (
            not (numbers.capacity if numbers.step < 0 else numbers.capacity_full),
            f"{route.challenger_ready} pods of the challenger are ready, {route.champion_ready} of the champion",
        ),
    )
    return "; ".join(words for holds, words in found if holds) or "nothing any more, but time is over"
