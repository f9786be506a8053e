"""What the record of a verdict keeps: enough to rebuild what the model's life has used up (protocols §1).

Numbers travel as texts, as everywhere in states and hashes. Rows without names for
their columns keep the largest experiment below 3 KiB.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fiduciary.api.modeldecision import Reason
from fiduciary.decide import reasons
from fiduciary.decide.experiment.begin import recorded_margin
from fiduciary.decide.experiment.claims import claims
from fiduciary.decide.experiment.rows import decimal
from fiduciary.decide.experiment.world import TRANSPORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.decision import Ruling
    from fiduciary.decide.experiment.state import Claim, GuardrailEvidence, GuardrailTerms, State


COLUMNS = ("what", "harm", "notWorse", "margin", "rate", "difference")
"""Of the rows of ``guardrails``: metric, log evidence of both tests, margin, the challenger's rate, its difference."""


def summary(case: Case, state: State | None) -> dict[str, Any]:
    """``evidence.summary`` of the record; nothing but its name for an experiment that has not begun."""
    about: dict[str, Any] = {"experiment": case.name, "purpose": case.spec.purpose}
    if state is None:
        return about
    terms, evidence, course = state.terms, state.evidence, state.course
    known = {its.name: its for its in terms.guardrails}
    return {
        **about,
        "test": terms.test,
        "discoveries": terms.discoveries,
        "configurations": max(terms.configurations, case.world.spending.configurations),
        "level": repr(terms.level),
        "outcomes": "Prequential" if terms.prequential else "Live",
        "step": case.spec.traffic.steps[course.step].name if course.step >= 0 else None,
        "blocks": evidence.last + 1,
        "through": evidence.sessions.last,
        "columns": list(COLUMNS),
        "guardrails": {
            guardrail.name: _guardrail(guardrail, known.get(guardrail.name)) for guardrail in evidence.guardrails
        },
        "objectives": {
            its.name: {"what": its.what, "logE": decimal(log), "n": one.folded}
            for its, one in zip(terms.objectives, evidence.objectives, strict=True)
            if (log := -math.inf if one.void is not None else one.log_e) is not None  # void stays void
        },
        "chains": [evidence.chain, evidence.sessions.chain],
        **({} if course.request is None else {"signed": course.request.digest}),
    }


def grounds(case: Case, ruling: Ruling, state: State | None) -> tuple[Reason, ...]:
    """``cause.reasons`` of the record: for a promotion each claim that was shown, else the one reason."""
    if ruling.verdict != "Promote" or state is None:
        return (Reason(reason=ruling.reason, message=ruling.message),)
    how = reasons.PREQUENTIAL_EVIDENCE if state.terms.prequential else reasons.LIVE_EVIDENCE
    return tuple(_ground(claim, how) for claim in claims(case, state))


def _ground(claim: Claim, how: str) -> Reason:
    told = f"{claim.name}: log e {claim.log_e:.2f}, threshold {claim.threshold:.2f}"
    if claim.margin is None:
        return Reason(reason=how, message=f"{told}, {claim.n} sessions")
    return Reason(reason=reasons.NOT_WORSE, message=f"{told}, margin {claim.margin:.6g}, {claim.n} requests")


def _guardrail(one: GuardrailEvidence, its: GuardrailTerms | None) -> list[str | None]:
    """One row of COLUMNS. Rates are those at the final weight: what a promotion would cost."""
    log = one.noninferiority_log_e
    champion, challenger = one.final_champion, one.final_challenger
    rate = difference = None
    if champion.trials and challenger.trials:
        rate = challenger.bad / challenger.trials
        difference = rate - champion.bad / champion.trials
    return [
        TRANSPORT if its is None else its.what,
        decimal(one.harm_log_e),
        None if log is None else decimal(log),
        None if its is None else f"{recorded_margin(its.margin):g}",
        None if rate is None else decimal(rate, 9),
        None if difference is None else decimal(difference, 9),
    ]


def rows(summary: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """``guardrails`` of a summary, by name and column; what is not known is left out."""
    return {
        name: {column: value for column, value in zip(COLUMNS, row, strict=True) if value is not None}
        for name, row in summary["guardrails"].items()
    }
