"""Whether a verdict can be expected, and when (statistics.md rule 16). No error probability depends on a forecast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.decide.experiment.begin import replays
from fiduciary.decide.experiment.course import together
from fiduciary.decide.experiment.fold import dispersions
from fiduciary.decide.experiment.read import noninferiority_threshold, objective_threshold
from fiduciary.evidence import feasibility
from fiduciary.evidence.refusal import Refusal

if TYPE_CHECKING:
    from fiduciary.decide.experiment.case import Case
    from fiduciary.decide.experiment.state import (
        GuardrailEvidence,
        GuardrailTerms,
        ObjectiveEvidence,
        ObjectiveTerms,
        State,
    )

DAY = 86_400
SESSIONS_A_YEAR = 252
OPTIMISTIC = 0.2
"""Effect in sd that is assumed while few sessions were seen: the best case of statistics.md rule 14."""
LEAST_SEEN = 63
LEAST_BLOCKS, FEW_BLOCKS = 60, 5
WAYS_OUT = (
    "ways out: outcomes: Prequential (both procedures replayed over past days), a panel of entities, labels within "
    "the day, more traffic or a larger final weight, a longer maxDuration"
)


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one test. ``needed``: blocks or sessions still to come; None: it cannot be shown as things are."""

    name: str
    side: str
    unit: str  # blocks | sessions
    needed: int | None
    at: int | None  # seconds since 1970
    why: str


def objective(case: Case, state: State, its: ObjectiveTerms, evidence: ObjectiveEvidence) -> Expected | None:
    """Sessions until an objective is expected to be shown; None while nothing is known."""
    threshold = objective_threshold(state.terms, case.world.spending.configurations)
    reached = evidence.log_e
    if reached is not None and reached >= threshold:
        return Expected(its.name, "Superiority", "sessions", 0, case.now, "shown")
    if evidence.void is not None:
        return Expected(its.name, "Superiority", "sessions", None, None, evidence.void)
    moments = evidence.mean if evidence.mean.count >= LEAST_SEEN else evidence.burn_in
    sd = moments.sd()
    if isinstance(sd, Refusal):
        return None
    seen = moments.count >= LEAST_SEEN
    effect = moments.mean - its.margin if seen else OPTIMISTIC * sd
    missing = max(0.1, threshold - max(0.0, reached or 0.0))
    if its.loss_bound is not None:
        forecast = feasibility.bounded_mean(effect, sd, its.margin + its.loss_bound, missing)
    else:
        phi = 1.0 if evidence.betting is None else evidence.betting.dispersion
        forecast = feasibility.superiority(effect, sd, phi, missing)
    if isinstance(forecast, Refusal):
        return None
    size = f"{effect / sd:+.3f} sd a session" if seen else f"{OPTIMISTIC} sd a session, the best case"
    if forecast.blocks is None:
        return Expected(its.name, "Superiority", "sessions", None, None, f"with {size} it is never shown")
    # Replayed sessions come all at once; live ones come as the market opens.
    waits = 0 if state.terms.prequential else math.ceil(forecast.blocks * state.terms.horizon * 365 / SESSIONS_A_YEAR)
    when = None if state.terms.prequential else case.now + waits * DAY
    return Expected(its.name, "Superiority", "sessions", forecast.blocks, when, f"with {size}")


def noninferiority(case: Case, state: State, its: GuardrailTerms, evidence: GuardrailEvidence) -> Expected | None:
    """Blocks until equal arms are expected to be shown within the margin that is left."""
    name, terms = its.name, state.terms
    reached = evidence.noninferiority_log_e or 0.0
    missing = noninferiority_threshold(terms) - max(0.0, reached)
    if missing <= 0.0:
        return Expected(name, "NonInferiority", "blocks", 0, case.now, "shown")
    each = _requests_a_block(case, state, its.name)
    if each is None:
        return None
    share = terms.final_weight / 100.0
    arms = round(each * (1.0 - share)), round(each * share)
    if terms.sticky:
        arms = round(each), round(each)
    beliefs = evidence.harm.slow
    phi = dispersions(terms, evidence)[1]
    forecast = feasibility.noninferiority(arms, beliefs.champion(), its.margin, phi, math.exp(-missing))
    if isinstance(forecast, Refusal):
        return None
    before = _blocks_before(case, state)
    traffic = f"{arms[0]} and {arms[1]} requests a block, margin {its.margin:.6g}, dispersion {phi:.3g}"
    if forecast.blocks is None:
        return Expected(name, "NonInferiority", "blocks", None, None, f"with {traffic} it is never shown")
    needed = before + forecast.blocks
    return Expected(name, "NonInferiority", "blocks", needed, case.now + needed * terms.block, f"with {traffic}")


def expected(case: Case) -> tuple[Expected, ...]:
    """All forecasts that can be made; once the verdict is recorded there is nothing to foretell."""
    state = case.state
    if state is None or case.world.recorded is not None:
        return ()
    evidence, terms = state.evidence, state.terms
    found = [objective(case, state, its, one) for its, one in zip(terms.objectives, evidence.objectives, strict=True)]
    named = {guardrail.name: guardrail for guardrail in evidence.guardrails}
    found += [noninferiority(case, state, its, named[its.name]) for its in terms.guardrails]
    return tuple(one for one in found if one is not None)


def deadline(case: Case) -> int:
    """When maxDuration is over, were it to start now if it has not."""
    state = case.state
    started = None if state is None else state.course.started
    return (case.now if started is None else started) + case.max_duration


def late(case: Case, one: Expected) -> bool:
    """Not to be expected within maxDuration."""
    return one.needed is None or (one.at is not None and one.at > deadline(case))


def impossible(case: Case) -> str | None:
    """Why an objective can never be shown here, so that the experiment is refused before it costs a request."""
    if case.spec.purpose != "Improve":
        return None
    paired = any(objective.metric == "PairedLoss" for objective in case.spec.objectives)
    if paired and case.world.model.label == "Return" and not case.world.model.panel:
        return (
            "a Return model is compared by panel rank IC, which a single series does not have; give the data an entity "
            "column with more than one entity, or use label kind Direction or Volatility"
        )
    if case.spec.evidence.outcomes == "Prequential":
        traded = [objective.name for objective in case.spec.objectives if objective.metric == "PaperPnL"]
        if traded:
            return (
                f"objective {', '.join(traded)} (PaperPnL) needs live sessions: replayed days have losses and trade "
                "nothing; set evidence.outcomes to Live, or use PairedLoss"
            )
    steps = case.spec.traffic.steps
    live = bool(case.spec.objectives) and not replays(case.spec, known=case.world.procedures_known)
    shown = any(one.side == "Superiority" for one in case.world.spending.carried)
    if live and not shown and not any(together(steps, index) for index in range(len(steps))):
        return (
            "outcomes of live predictions are compared while every request goes to both arms, and no step of the "
            "traffic has mirror 100 and weight 0: begin with one, or set evidence.outcomes to Prequential"
        )
    for one in expected(case):
        bounded = next((o for o in case.spec.objectives if o.name == one.name and o.loss_bound is not None), None)
        if bounded is not None and one.side == "Superiority" and late(case, one):
            return (
                f"objective {one.name} (PaperPnL, lossBound {bounded.loss_bound}) cannot be shown within maxDuration "
                f"{case.spec.stopping.max_duration}: {one.why}; use PairedLoss, or a smaller lossBound if it is true"
            )
    return None


def _blocks_before(case: Case, state: State) -> int:
    """Blocks of the steps before the last one that are still to come."""
    steps, course = case.spec.traffic.steps, state.course
    ahead = sum(step.min_blocks for step in steps[max(course.step, 0) : -1])
    return max(0, ahead - (course.blocks if 0 <= course.step < len(steps) - 1 else 0))


def _requests_a_block(case: Case, state: State, name: str) -> float | None:
    """Mean requests of a base block, of both arms and empty blocks included; in the first hour of the history, if it is
    longer than that. A champion of a few minutes says nothing of what comes."""
    blocks = state.evidence.last + 1
    if blocks >= LEAST_BLOCKS:
        return state.evidence.requests / blocks
    history = next((history for history in case.world.history if history.name == name), None)
    scatters = () if history is None else history.dispersion.scatters
    if scatters and scatters[0].blocks >= LEAST_BLOCKS:
        for scatter in reversed(scatters):
            if scatter.blocks:
                return scatter.trials / (scatter.blocks * scatter.scale)
    return state.evidence.requests / blocks if blocks >= FEW_BLOCKS else None
