"""What a verdict rests on keeps its error probability: exact enumeration of small trees, and fixed seeds.

Both go through the experiment's own folding: mirrored copies, changes of weight, gaps, several guardrails.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from fiduciary.decide.experiment.begin import begin
from fiduciary.decide.experiment.fold import fold_block
from fiduciary.decide.experiment.read import harm, noninferiority_over, watch
from fiduciary.decide.experiment.watch import watched
from fiduciary.decide.experiment.world import Anchor, ArmCounts, Carried, ClosedBlock, Spending
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.refusal import Refusal
from tests.unit.decide.experiment.trials import T0, Trial, past

if TYPE_CHECKING:
    from fiduciary.decide.experiment.state import State

NAMES = ("errors", "client-errors")
GUARDRAILS: list[dict[str, Any]] = [
    {"name": name, "metric": metric, "margin": {"absolute": "0.2"}}
    for name, metric in zip(NAMES, ("ErrorRate", "ClientErrorRate"), strict=True)
]
SHAPES = (
    # (weight, merged, trials of champion, trials of challenger, copies to the challenger)
    (0, False, 3, 0, 3),
    (50, True, 2, 2, 0),
)


def ok(value: Any) -> Any:
    assert not isinstance(value, Refusal), value
    return value


def start(names: tuple[str, ...] = NAMES, anchor: float = 0.8, **parts: Any) -> State:
    guardrails = [g for g in GUARDRAILS if g["name"] in names]
    spending = Spending(anchors=tuple(Anchor(name, anchor) for name in names), **parts)
    history = tuple(past(0.25, 2, each=20, name=name) for name in names)
    trial = Trial(spec={"guardrails": guardrails}, spending=spending, history=history)
    return ok(begin(trial.world(), int(T0.timestamp())))


def outcomes(n: int, rate: float) -> list[tuple[int, float]]:
    return [(y, float(stats.binom.pmf(y, n, rate))) for y in range(n + 1) if rate > 0 or y == 0]


def mean_of_rollback(state: State, rates: tuple[tuple[float, float], ...]) -> float:
    """E[Σ wᵢ Eᵢ] over two guardrails that fail together: any dependence between them is allowed."""

    def walk(state: State, k: int, first: int) -> float:
        if k == len(SHAPES):
            return math.exp(harm(state.evidence).log_e)
        weight, merged, na, nb, copies = SHAPES[k]
        pa, pb = rates[k]
        total = 0.0
        for (ya, qa), (yb, qb), (yc, qc) in itertools.product(outcomes(na, pa), outcomes(nb, pb), outcomes(copies, pb)):
            tests = tuple(
                ArmCounts(name, Counts(na, ya), Counts(nb, yb), challenger_mirror=Counts(copies, yc)) for name in NAMES
            )
            last = first + (2 if merged else 0)
            block = ClosedBlock(first, last, weight, 100, (na, nb), tests)
            after = replace(state, evidence=ok(fold_block(state.terms, state.evidence, block)))
            total += qa * qb * qc * walk(after, k + 1, last + 1)
        return total

    return walk(state, 0, 0)


@pytest.mark.parametrize("rates", [((0.3, 0.3), (0.3, 0.3)), ((0.05, 0.05), (0.7, 0.7)), ((0.5, 0.2), (0.1, 0.1))])
def test_the_average_of_all_harm_tests_has_mean_at_most_one_through_copies_gaps_and_weights(rates: Any) -> None:
    assert mean_of_rollback(start(), rates) <= 1.0 + 1e-12


def test_the_enumeration_sees_harm() -> None:
    assert mean_of_rollback(start(), ((0.1, 0.9), (0.1, 0.9))) > 1.5


def test_resumed_harm_is_the_product() -> None:
    carried = tuple(Carried(g["name"], "Harm", g["metric"], math.log(0.5)) for g in GUARDRAILS)
    rates = ((0.3, 0.3), (0.3, 0.3))
    assert mean_of_rollback(start(carried=carried), rates) == pytest.approx(0.5 * mean_of_rollback(start(), rates))


def noninferiority_mean(state: State, weights: tuple[int, ...], rates: tuple[float, float]) -> float:
    def walk(state: State, k: int) -> float:
        if k == len(weights):
            return math.exp(noninferiority_over(state.terms, state.evidence) - math.log(state.terms.promote))
        total = 0.0
        for (ya, qa), (yb, qb) in itertools.product(outcomes(3, rates[0]), outcomes(3, rates[1])):
            tests = (ArmCounts("errors", Counts(3, ya), Counts(3, yb)),)
            block = ClosedBlock(k, k, weights[k], 0, (3, 3), tests)
            after = replace(state, evidence=ok(fold_block(state.terms, state.evidence, block)))
            total += qa * qb * walk(after, k + 1)
        return total

    return walk(state, 0)


@pytest.mark.parametrize("rates", [(0.2, 0.4), (0.5, 0.7), (0.1, 0.9)])
def test_non_inferiority_has_mean_at_most_one_at_and_beyond_the_margin_that_is_left(rates: Any) -> None:
    state = start(("errors",))
    assert state.terms.guardrails[0].margin == pytest.approx(0.2)
    assert noninferiority_mean(state, (10, 50, 50), rates) <= 1.0 + 1e-12


def test_blocks_at_another_weight_say_nothing_about_non_inferiority() -> None:
    assert noninferiority_mean(start(("errors",)), (10, 10), (0.1, 0.2)) == pytest.approx(1.0)


def test_the_watch_after_a_promotion_has_mean_at_most_one_at_the_old_rate() -> None:
    state = start(("errors",))
    seen = ClosedBlock(0, 0, 50, 0, (9, 9), (ArmCounts("errors", Counts(9, 3), Counts(9, 3)),))
    state = replace(state, evidence=ok(fold_block(state.terms, state.evidence, seen)))
    state = replace(state, evidence=watched(state.terms, state.evidence))
    process: Any = state.evidence.guardrails[0].watch
    total = 0.0
    for (y, p), (z, q) in itertools.product(outcomes(6, process.allowed), outcomes(6, process.allowed)):
        after = state
        for k, bad in enumerate((y, z)):
            block = ClosedBlock(k + 1, k + 1, 100, 0, (0, 6), (ArmCounts("errors", Counts(0, 0), Counts(6, bad)),))
            after = replace(after, evidence=ok(fold_block(after.terms, after.evidence, block)))
        total += p * q * math.exp(watch(after.evidence).log_e)
    assert total <= 1.0 + 1e-12
    assert watched(state.terms, state.evidence) == state.evidence  # begun once


# --- fixed seeds: a correct implementation fails each with probability below 1e-6 ------------------------------------

RUNS, BLOCKS = 100, 90


def played(seed: int, rates: tuple[float, float], cv: float = 0.0) -> tuple[bool, bool]:
    """(harm shown, non-inferiority shown) at any time in 90 minutes at half each, 300 requests a minute."""
    rng = np.random.default_rng(seed)
    spending = Spending(anchors=(Anchor("errors", 0.02),))
    trial = Trial(spending=spending, history=(past(rates[0], 60),), spec={"evidence": {"dispersion": "1"}})
    state = ok(begin(trial.world(), int(T0.timestamp())))
    harmed = shown = False
    for k in range(BLOCKS):
        common = float(rng.lognormal(-0.5 * cv * cv, cv)) if cv else 1.0
        na, nb = (int(n) for n in rng.poisson(150, 2))
        ya, yb = int(rng.binomial(na, min(1.0, rates[0] * common))), int(rng.binomial(nb, min(1.0, rates[1] * common)))
        tests = (ArmCounts("errors", Counts(na, ya), Counts(nb, yb)),)
        evidence = ok(fold_block(state.terms, state.evidence, ClosedBlock(k, k, 50, 0, (na, nb), tests)))
        state = replace(state, evidence=evidence)
        harmed = harmed or harm(evidence).log_e >= -math.log(state.terms.rollback)
        shown = shown or noninferiority_over(state.terms, evidence) >= 0.0
    return harmed, shown


def most(runs: int, alpha: float) -> int:
    """The smallest count that a size of ``alpha`` reaches with probability below 1e-6."""
    return int(stats.binom.isf(1e-6, runs, alpha)) + 1


def test_size_of_a_rollback_of_an_equal_challenger() -> None:
    assert sum(played(seed, (0.005, 0.005))[0] for seed in range(RUNS)) < most(RUNS, 0.05)


def test_size_of_a_rollback_where_rates_drift_in_both_arms() -> None:
    assert sum(played(1000 + seed, (0.005, 0.005), cv=1.0)[0] for seed in range(RUNS // 2)) < most(RUNS // 2, 0.05)


def test_size_of_non_inferiority_at_its_margin() -> None:
    assert sum(played(2000 + seed, (0.02, 0.025))[1] for seed in range(RUNS)) < most(RUNS, 0.05)


def test_power_a_challenger_with_ten_times_the_errors_is_found_and_one_without_is_shown() -> None:
    assert all(played(3000 + seed, (0.005, 0.05))[0] for seed in range(10))
    assert sum(played(4000 + seed, (0.005, 0.001))[1] for seed in range(10)) >= 9
