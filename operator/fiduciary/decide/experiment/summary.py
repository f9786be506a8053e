"""What the record of a verdict keeps: enough to rebuild what the model's life has used up (protocols §1).

Numbers travel as texts, as everywhere in states and hashes. One entry a guardrail and objective keeps it below 3 KiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api.modeldecision import Reason
from fiduciary.decide import reasons
from fiduciary.decide.experiment.claims import claims
from fiduciary.decide.experiment.rows import decimal

if TYPE_CHECKING:
    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.decision import Ruling
    from fiduciary.decide.experiment.state import Claim, GuardrailEvidence, State


def summary(case: Case, state: State | None) -> dict[str, Any]:
    """``evidence.summary`` of the record; nothing but its name for an experiment that has not begun."""
    about: dict[str, Any] = {"experiment": case.name, "purpose": case.spec.purpose}
    if state is None:
        return about
    terms, evidence, course = state.terms, state.evidence, state.course
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
        "guardrails": {guardrail.name: _guardrail(guardrail) for guardrail in evidence.guardrails},
        "objectives": {
            objective.name: {"logE": decimal(log), "n": objective.folded}
            for objective in evidence.objectives
            if (log := objective.log_e) is not None
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


def _guardrail(one: GuardrailEvidence) -> dict[str, str]:
    """Log evidence, and what a promotion would cost: the challenger's rate and its difference at the final weight."""
    kept = {"harm": decimal(one.harm_log_e)}
    noninferiority = one.noninferiority_log_e
    if noninferiority is not None:
        kept["notWorse"] = decimal(noninferiority)
    champion, challenger = one.final_champion, one.final_challenger
    if champion.trials and challenger.trials:
        rate = challenger.bad / challenger.trials
        kept |= {"rate": decimal(rate, 9), "difference": decimal(rate - champion.bad / champion.trials, 9)}
    return kept
