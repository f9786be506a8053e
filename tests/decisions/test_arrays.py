"""The simulator's evidence as arrays is the operator's evidence: same numbers on random streams."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.decisions import proportions, scatter, wealth
from fiduciary.evidence.betting import Betting
from fiduciary.evidence.blocks import Block, Counts
from fiduciary.evidence.breaker import Breaker, circuit_breaker
from fiduciary.evidence.dispersion import Dispersion
from fiduciary.evidence.harm import Harm
from fiduciary.evidence.noninferiority import NonInferiority
from fiduciary.evidence.refusal import Refusal
from fiduciary.evidence.samples import SampleRatio

CLOSE = 1e-9
Rng = np.random.Generator


def ok(value: Any) -> Any:
    assert not isinstance(value, Refusal), value
    return value


def arms(counts: Any, k: int, r: int) -> tuple[Counts, Counts]:
    """Champion's and challenger's counts of replication r in block k."""
    n, y = counts
    return Counts(int(n[0, k, r]), int(y[0, k, r])), Counts(int(n[1, k, r]), int(y[1, k, r]))


def array_arms(counts: Any, k: int) -> list[proportions.Counts]:
    n, y = counts
    return [proportions.Counts(n[arm, k].astype(float), y[arm, k].astype(float)) for arm in (0, 1)]


def streams(rng: Rng, blocks: int, replications: int) -> Any:
    """Traffic from none to much, rates from 0 to 1, empty blocks among them."""
    per_block = 10.0 ** rng.uniform(-1, 4, (2, 1, replications))
    rate = np.clip(10.0 ** rng.uniform(-4, 0.2, (2, 1, replications)), 0.0, 1.0)
    n = rng.poisson(np.broadcast_to(per_block, (2, blocks, replications)))
    n[:, rng.random(blocks) < 0.1] = 0
    return n, rng.binomial(n, rate)


def cuts(rng: Rng, blocks: int) -> list[tuple[int, int]]:
    """Base blocks covered by each block: mostly one, sometimes a merged gap."""
    edges, at = [], 0
    for length in np.where(rng.random(blocks) < 0.1, rng.integers(2, 90, blocks), 1).tolist():
        edges.append((at, at + length - 1))
        at += length
    return edges


@pytest.mark.parametrize("seed", range(8))
def test_harm_and_noninferiority(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks, replications = 60, 25
    counts, edges = streams(rng, blocks, replications), cuts(rng, blocks)
    history = rng.poisson(50_000, replications) * rng.integers(0, 2, replications)
    before = rng.binomial(history, 0.004)
    phi = 1.0 + rng.exponential(1.0, replications)
    margin = rng.uniform(0.001, 0.2, replications)
    array_history = proportions.Counts(history.astype(float), before.astype(float))
    harm = proportions.Harm.start(array_history, 4320)
    noninferior = proportions.NonInferiority.start(array_history, margin)
    single = [Counts(int(n), int(y)) for n, y in zip(history, before, strict=True)]
    harms = [ok(Harm.start(one, 4320)) for one in single]
    others = [ok(NonInferiority.start(one, float(d))) for one, d in zip(single, margin, strict=True)]
    for k, (first, last) in enumerate(edges):
        champion, challenger = array_arms(counts, k)
        block = proportions.Block(first, last, champion, challenger)
        harm, noninferior = harm.fold(block, phi), noninferior.fold(block, phi)
        for r in range(replications):
            one = Block(first, last, *arms(counts, k, r))
            harms[r], others[r] = ok(harms[r].fold(one, float(phi[r]))), ok(others[r].fold(one, float(phi[r])))
        expected = np.array([[a.log_e, b.log_e] for a, b in zip(harms, others, strict=True)])
        seen, huge = harm.log_e(), expected[:, 0] > 600.0  # decided long before: the array form may say inf
        np.testing.assert_allclose(seen[~huge], expected[~huge, 0], rtol=1e-11, atol=CLOSE)
        assert (seen[huge] > 600.0).all()
        np.testing.assert_allclose(noninferior.log_e, expected[:, 1], rtol=1e-11, atol=CLOSE)


@pytest.mark.parametrize("seed", range(4))
def test_dispersion(seed: int) -> None:
    rng = np.random.default_rng([1, seed])
    blocks, replications = 400, 12
    counts, edges = streams(rng, blocks, replications), cuts(rng, blocks)
    array, single = scatter.Dispersion.start(replications), [Dispersion.start() for _ in range(replications)]
    for k, (first, last) in enumerate(edges):
        array = array.fold(first, last, array_arms(counts, k)[0])
        single = [ok(one.fold(first, last, arms(counts, k, r)[0])) for r, one in enumerate(single)]
        if k % 50 == 49:
            for r, one in enumerate(single):
                expected = one.estimate(100)
                got = array.estimate(100)[r]
                assert math.isnan(got) if isinstance(expected, Refusal) else got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_sample_ratio(seed: int) -> None:
    rng = np.random.default_rng([2, seed])
    replications, share = 20, float(rng.uniform(0.02, 0.5))
    array = scatter.SampleRatio.start(replications)
    single = [ok(SampleRatio.start((1 - share, share))) for _ in range(replications)]
    shares = np.full(replications, share)
    for k in range(80):
        if k == 40:
            shares = np.full(replications, 0.5)
            single = [ok(one.reweigh((0.5, 0.5))) for one in single]
        all_requests = rng.poisson(300, replications)
        challenger = rng.binomial(all_requests, share + 0.01)
        array = array.fold(shares, (all_requests - challenger).astype(float), challenger.astype(float))
        single = [
            ok(one.fold(k, k, (int(n - y), int(y)))) for one, n, y in zip(single, all_requests, challenger, strict=True)
        ]
        np.testing.assert_allclose(array.log_e(), [one.log_e for one in single], rtol=1e-9, atol=1e-8)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.integers(0, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.sampled_from([0.05, 0.25, 0.5]),
    st.sampled_from([0.005, 0.02]),
)
def test_breaker(challenger: tuple[int, int], champion: tuple[int, int], above: float, normal: float) -> None:
    expected = circuit_breaker(Counts(*challenger), Counts(*champion), above, normal, 5760)
    assert isinstance(expected, Breaker)
    a, b = (proportions.Counts(np.array([float(n)]), np.array([float(y)])) for n, y in (challenger, champion))
    assert bool(scatter.breaker_trips(a, b, above, normal, 5760)[0]) == expected.trips


@pytest.mark.parametrize("seed", range(3))
def test_betting(seed: int) -> None:
    rng = np.random.default_rng([3, seed])
    replications, sessions = 8, 400
    differences = rng.standard_t(3, (replications, sessions)) + 0.1
    scale = rng.uniform(0.5, 2.0, replications)
    single = [ok(Betting.start(float(s), -0.05)) for s in scale]
    state = wealth.Betting.start(scale, -0.05)
    for k in range(sessions):
        state.fold(differences[:, k])
        single = [ok(one.fold(k, float(differences[r, k]))) for r, one in enumerate(single)]
        if k % 20 == 0 or k > 370:
            np.testing.assert_allclose(state.log_e(), [one.log_e for one in single], rtol=1e-11, atol=CLOSE)
            np.testing.assert_allclose(state.dispersion(), [one.dispersion for one in single], rtol=1e-11)
