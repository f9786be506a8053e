"""What is fixed when an experiment starts: levels, margins, plug-ins. A refusal says why it cannot start."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide.experiment.state import (
    Course,
    Evidence,
    GuardrailEvidence,
    GuardrailTerms,
    ObjectiveEvidence,
    ObjectiveTerms,
    State,
    Terms,
)
from fiduciary.decide.experiment.times import first_edge
from fiduciary.decide.experiment.world import TRANSPORT, History
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.dispersion import Dispersion
from fiduciary.evidence.harm import Harm
from fiduciary.evidence.noninferiority import NonInferiority
from fiduciary.evidence.refusal import Refusal
from fiduciary.evidence.spending import Margins, e_lond_level

if TYPE_CHECKING:
    from fiduciary.api.experiment import Guardrail, Objective
    from fiduciary.api.modelexperiment import ModelExperimentSpec
    from fiduciary.decide.experiment.world import Carried, Spending, World

DAY = 86_400


def begin(world: World, now: int) -> State | Refusal:
    """The state before the first block. ``now``: seconds since 1970; block 0 begins at the next wall-clock edge."""
    terms = _terms(world, now)
    if isinstance(terms, Refusal):
        return terms
    histories = {history.name: history for history in world.history}
    guardrails: list[GuardrailEvidence] = []
    for its in terms.guardrails:
        started = _guardrail(terms, its, histories.get(its.name))
        if isinstance(started, Refusal):
            return started
        guardrails.append(started)
    if terms.transport:
        started = _transport(terms, histories.get(TRANSPORT), _carried(world, TRANSPORT, "Harm", TRANSPORT))
        if isinstance(started, Refusal):
            return started
        guardrails.append(started)
    objectives = tuple(ObjectiveEvidence(o.name, carried=o.carried, through=o.through) for o in terms.objectives)
    return State(terms, Evidence(-1, tuple(guardrails), objectives), Course())


def replays(spec: ModelExperimentSpec, *, known: bool) -> bool:
    """Whether objectives are judged on replayed days. ``known``: both procedures can be replayed.

    Replayed days have losses and trade nothing.
    """
    how = spec.evidence.outcomes
    losses = all(objective.metric == "PairedLoss" for objective in spec.objectives)
    return how == "Prequential" or (how == "Auto" and known and losses)


def seconds_of(duration: str) -> int:
    """Whole seconds of a duration of the spec, at least 0."""
    return round(timedelta_of(duration).total_seconds())


def recorded_margin(margin: float) -> float:
    """As a record keeps it: six digits."""
    return float(f"{margin:.6g}")


def _terms(world: World, now: int) -> Terms | Refusal:
    spec = world.experiment.spec
    plan = spec.evidence
    prequential = replays(spec, known=world.procedures_known)
    block = max(1, seconds_of(plan.block))
    alpha = float(plan.alpha.promote)
    # A retrain of the same spec cannot beat itself: it claims no superiority and spends nothing of the sequence.
    improves = spec.purpose == "Improve"
    objectives = tuple(_objective_terms(world, its, prequential) for its in spec.objectives) if improves else ()
    spending = _spending(world.spending, objectives)
    level = e_lond_level(alpha, spending.test, spending.discoveries) if improves else alpha
    if isinstance(level, Refusal):
        return level
    guardrails: list[GuardrailTerms] = []
    for guardrail in spec.guardrails:
        its = _guardrail_terms(world, guardrail)
        if isinstance(its, Refusal):
            return its
        guardrails.append(its)
    return Terms(
        origin=first_edge(now, block),
        block=block,
        planned=max(1, seconds_of(spec.stopping.max_duration) // block),
        dispersion=float(plan.dispersion),
        least_blocks=math.ceil(DAY / block),
        sticky=spec.traffic.sticky is not None,
        transport=world.transport,
        final_weight=spec.traffic.steps[-1].weight,
        prequential=prequential,
        horizon=max(1, world.model.horizon),
        promote=alpha,
        rollback=float(plan.alpha.rollback),
        ratio=float(plan.alpha.srm),
        test=spending.test,
        discoveries=spending.discoveries,
        configurations=spending.configurations,
        level=level,
        guardrails=tuple(guardrails),
        objectives=objectives,
    )


def _spending(spending: Spending, objectives: tuple[ObjectiveTerms, ...]) -> Spending:
    """An earlier test on this pair goes on if each of its objectives is asked for again, unchanged: it is one test, at
    its level, chosen from all configurations seen. Any other question is a new test (rules 15 and 18)."""
    resumed = spending.resumed
    asked = {(its.name, its.what) for its in objectives}
    before = {(one.name, one.what) for one in spending.carried if one.side == "Superiority"}
    if resumed is None or not before <= asked:
        return spending
    tried = max(resumed.configurations, spending.configurations)
    return replace(spending, test=resumed.test, discoveries=resumed.discoveries, configurations=tried)


def _guardrail_terms(world: World, guardrail: Guardrail) -> GuardrailTerms | Refusal:
    anchor = next((anchor for anchor in world.spending.anchors if anchor.name == guardrail.name), None)
    history = next((history for history in world.history if history.name == guardrail.name), None)
    # The first champion is the first anchor; without either only the floor of the margin is sure.
    seen = 0.0 if history is None or not history.counts.trials else history.counts.bad / history.counts.trials
    margins = Margins.of_anchor(seen if anchor is None else anchor.rate)
    if isinstance(margins, Refusal):
        return margins
    lost = margins.promoted(0.0 if anchor is None else anchor.differences)
    if isinstance(lost, Refusal):
        return lost
    left = lost.left(float(guardrail.margin.absolute))
    if isinstance(left, Refusal):
        return left
    what = _what(guardrail)
    harm, noninferiority = (_carried(world, guardrail.name, side, what) for side in ("Harm", "NonInferiority"))
    # To be within a margin is to be within each larger one, and says nothing of a smaller one. As the record rounds.
    if noninferiority is not None and recorded_margin(left) < noninferiority.margin:
        noninferiority = None
    return GuardrailTerms(
        guardrail.name,
        what,
        margin=left,
        anchor_rate=lost.anchor_rate,
        consumed=lost.consumed,
        carried_harm=0.0 if harm is None else harm.log_e,
        carried_noninferiority=0.0 if noninferiority is None else noninferiority.log_e,
    )


def _what(guardrail: Guardrail) -> str:
    if guardrail.threshold is None:
        return guardrail.metric
    return f"{guardrail.metric} {timedelta_of(guardrail.threshold).total_seconds():g}s"


def _objective_terms(world: World, objective: Objective, prequential: bool) -> ObjectiveTerms:
    margin = float(objective.margin)
    bound = None if objective.loss_bound is None else float(objective.loss_bound)
    what = objective.metric + (f" margin {margin:g}" if margin else "")
    what += ("" if bound is None else f" lossBound {bound:g}") + ("" if prequential else " Live")
    carried = _carried(world, objective.name, "Superiority", what)
    return ObjectiveTerms(
        objective.name,
        what,
        objective.metric,
        margin,
        bound,
        carried=0.0 if carried is None else carried.log_e,
        through=-1 if carried is None else carried.through,
    )


def _guardrail(terms: Terms, its: GuardrailTerms, history: History | None) -> GuardrailEvidence | Refusal:
    unseen = Dispersion.start(block=terms.block)
    known = history or History(its.name, Counts(0, 0), unseen)
    harm = Harm.start(known.counts, terms.planned)
    noninferiority = NonInferiority.start(known.counts, its.margin)
    if isinstance(harm, Refusal):
        return harm
    if isinstance(noninferiority, Refusal):
        return noninferiority
    return GuardrailEvidence(
        its.name,
        harm,
        noninferiority,
        champion=known.dispersion,
        challenger=unseen,
        carried_harm=its.carried_harm,
        carried_noninferiority=its.carried_noninferiority,
    )


def _transport(terms: Terms, history: History | None, carried: Carried | None) -> GuardrailEvidence | Refusal:
    unseen = Dispersion.start(block=terms.block)
    known = history or History(TRANSPORT, Counts(0, 0), unseen)
    harm = Harm.start(known.counts, terms.planned)
    if isinstance(harm, Refusal):
        return harm
    before = 0.0 if carried is None else carried.log_e
    return GuardrailEvidence(TRANSPORT, harm, None, known.dispersion, unseen, carried_harm=before)


def _carried(world: World, name: str, side: str, what: str) -> Carried | None:
    """Evidence on the same question only: not what went by the same name."""
    kept = world.spending.carried
    return next((one for one in kept if (one.name, one.side, one.what) == (name, side, what)), None)
