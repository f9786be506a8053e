"""The simulator's objectives are the operator's: same sessions folded, same verdict at the same session."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.decisions import wealth
from bench.decisions.outcome import PROMOTED
from bench.decisions.session_rules import Betting
from bench.decisions.sessions import Drawn, SessionWorld, autoregressive, garch, short_volatility, student
from fiduciary.decide.experiment.begin import begin
from fiduciary.decide.experiment.read import objectives_over
from fiduciary.decide.experiment.sessions import fold_session
from fiduciary.decide.experiment.state import State
from fiduciary.decide.experiment.world import LedgerRow
from fiduciary.evidence.bernstein import Bernstein
from fiduciary.evidence.refusal import Refusal
from tests.unit.decide.experiment.trials import T0, Trial

SESSIONS = 900
KINDS = {
    "t3": SessionWorld(student(0.25)),
    "AR": SessionWorld(autoregressive(0.3, 0.2)),
    "GARCH": SessionWorld(garch(0.25)),
    "null": SessionWorld(student()),
    "late": SessionWorld(student(0.3), late=0.2),
    "silent where it would lose most": SessionWorld(student(0.35), hides=2.0),
    "silent and late": SessionWorld(student(0.4), hides=2.5, late=0.3),
    "profit": SessionWorld(short_volatility(), loss_bound=20.0),
    "profit, bound too small": SessionWorld(short_volatility(), loss_bound=2.0),
    "profit, better": SessionWorld(student(1.5), loss_bound=30.0),
}


def start(loss_bound: float | None) -> State:
    objective: dict[str, Any] = {"name": "loss", "metric": "PairedLoss"}
    if loss_bound is not None:
        objective = {"name": "profit", "metric": "PaperPnL", "lossBound": f"{loss_bound}"}
    spec = {"purpose": "Improve", "objectives": [objective], "evidence": {"outcomes": "Prequential"}}
    state = begin(Trial(spec).world(), int(T0.timestamp()))
    assert isinstance(state, State)
    return state


def rows(drawn: Drawn, r: int, *, profit: bool) -> list[LedgerRow]:
    """The ledger as the scorer writes it: a session without an outcome in time has no pair."""
    made = []
    for k, d in enumerate(drawn.differences[r].tolist()):
        empty = LedgerRow(k, f"session {k}", "Prequential", 0, 0.0, 0.0)
        if drawn.unanswered[r, k]:
            made.append(replace(empty, missing_challenger=1))
        elif math.isnan(d):
            made.append(replace(empty, late=1))
        elif profit:
            made.append(replace(empty, entities=1, profit=(0.0, d)))
        else:
            made.append(replace(empty, entities=1, total=d, squares=d * d))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_same_session(kind: str) -> None:
    world = KINDS[kind]
    drawn = world.play(np.random.default_rng(11), 3, SESSIONS)
    outcome = Betting().run(drawn)
    state = start(world.loss_bound)
    for r in range(3):
        evidence, first = state.evidence, None
        for row in rows(drawn, r, profit=world.loss_bound is not None):
            folded = fold_session(state.terms, evidence, row)
            assert not isinstance(folded, Refusal), folded
            evidence = folded
            if first is None and objectives_over(state.terms, evidence, 1) >= 0.0:
                first = row.number + 1
        assert (outcome.verdict[r] == PROMOTED) == (first is not None), (kind, r)
        if first is not None:
            assert outcome.minutes[r] == first


def test_empirical_bernstein() -> None:
    rng = np.random.default_rng(2)
    profits = np.maximum(-8.0, rng.standard_t(3, (5, 300)) + 0.4)
    scale = np.full(5, 1.3)
    for threshold in (0.5, 2.0, 4.0):
        first = wealth.bounded_crossings(profits, scale, 8.0, threshold)
        for r in range(5):
            state: Any = Bernstein.start(0.0, -8.0, 8.0, 250.0 * 1.3**2)
            expected = math.inf
            for k, x in enumerate(profits[r].tolist()):
                state = state.fold(k, k, 1, x, x * x)
                if state.log_e >= threshold:
                    expected = k + 1
                    break
            assert first[r] == expected
