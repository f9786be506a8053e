"""How often gates accept what has no skill, at the boundary of their null (facts G4), on fixed seeds.

The benchmark draws 2,000 seeds for every gate that tests a hypothesis (``make bench-training``). Here the skill gates,
which decide, have all 2,000; the others few, which would notice a gate that lost its bound.
"""

from __future__ import annotations

import numpy as np
import pytest

from bench.gates import nulls, screens, sizes
from fiduciary.decide import gates
from fiduciary.decide.measurement import Measurement, Metric
from fiduciary.evidence.bounds import Folds
from fiduciary_trainer.measure.hac import skill, skill_se
from fiduciary_trainer.measure.losses import squared_error

SEEDS = 2_000
FEW = 100
NULLS = [(nulls.direction, "base_rate", "Direction"), (nulls.volatility, "ewma", "Volatility"),
         (nulls.drifting, "base_rate", "Direction")]  # fmt: skip


@pytest.mark.parametrize(("null", "name", "label_kind"), NULLS, ids=[null[0].__name__ for null in NULLS])
def test_skill_gates_keep_their_level(null, name: str, label_kind: str) -> None:
    accepted = 0
    for seed in range(SEEDS):
        rows = null(np.random.default_rng(seed))
        loss, rival = (squared_error(rows.y, each) for each in (rows.prediction, rows.baselines[name]))
        folds = [skill(loss[rows.fold == fold], rival[rows.fold == fold]) for fold in range(nulls.FOLDS)]
        metric = Metric(skill(loss, rival), skill_se(loss, rival), Folds.of(folds), nulls.DAYS)
        equal = Metric(0.5, 1e-6, Folds.of([0.5] * nulls.FOLDS), nulls.DAYS)  # the others are not what is tested
        measured = Measurement(
            label_kind, {"har_skill": equal, "ols_skill": equal, f"{name}_skill": metric}, {}, {}, {}
        )
        accepted += all(result.passed for result in gates.skill(gates.Subject(measured, "MLP", 1)))
    assert accepted / SEEDS <= sizes.largest(SEEDS)
    assert accepted > 0, "a gate that accepts nothing at its boundary is broken, not strict"


CHEAP = [case for case in sizes.CASES if not case.best and "rank_ic" not in case.name]


@pytest.mark.parametrize("case", CHEAP, ids=[f"{case.name}, {case.market}" for case in CHEAP])
def test_every_gate_with_a_bound_keeps_its_level(case: sizes.Case) -> None:
    accepted = sum(sizes.accepted(case, seed) for seed in range(FEW))
    assert accepted / FEW <= sizes.largest(FEW)


def test_the_best_of_ten_configurations_is_no_better_than_one() -> None:
    """N counts: at α/N the luckiest of ten is accepted as rarely as a single one."""
    for case in sizes.CASES:
        if case.best:
            accepted = sum(sizes.accepted(case, seed) for seed in range(20))
            assert accepted / 20 <= sizes.largest(20), case.name


def test_screens_stop_what_they_are_for_and_nothing_honest() -> None:
    found = {str(row["what"]): row["accepted"] for row in screens.rows(4)}
    assert found["column with 0% of the next return"] == 1.0
    assert found["column with 40% of the next return"] == 0.0
    assert found["column that tells the next direction in 90%"] == 0.0
    assert found[f"{nulls.DAYS} days, labels of 1"] == 1.0
    assert found[f"{nulls.DAYS} days, labels of 20"] == 0.0
    assert found["always up, by a lean that never crosses one half"] == 0.0
    assert found["a constant for each fold"] == 0.0
