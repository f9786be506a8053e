"""What a promotion rests on: each claim with its numbers at the evaluation that showed it.

Where people sign, that evaluation is the one of the request: they are told, and the record says, what they signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide.experiment.read import noninferiority_threshold, objective_threshold
from fiduciary.decide.experiment.state import Claim

if TYPE_CHECKING:
    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.state import State


def claims(case: Case, state: State) -> tuple[Claim, ...]:
    """Those that people sign, if they were asked; else as they are now. Objectives first."""
    request = state.course.request
    return present(case, state) if request is None else request.shown


def present(case: Case, state: State) -> tuple[Claim, ...]:
    """As they are now; a test without evidence makes none."""
    terms, evidence = state.terms, state.evidence
    threshold = objective_threshold(terms, case.world.spending.configurations)
    better = [
        Claim(one.name, "Superiority", log, threshold, one.folded)
        for one in evidence.objectives
        if (log := one.log_e) is not None
    ]
    threshold = noninferiority_threshold(terms)
    not_worse = [
        Claim(one.name, "NonInferiority", log, threshold, one.final_challenger.trials, one.noninferiority.margin)
        for one in evidence.guardrails
        if one.noninferiority is not None and (log := one.noninferiority_log_e) is not None
    ]
    return (*better, *not_worse)
