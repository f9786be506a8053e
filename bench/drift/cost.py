"""Processor time of the judgement of one model and window: fold, judge, report and serialise."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from fiduciary.api.driftpolicy import DriftPolicy
from fiduciary.api.versions import StandingVersion
from fiduciary.decide.drift.calibrate import Calibrated, calibrated
from fiduciary.decide.drift.reference import Histogram, Reference
from fiduciary.decide.drift.state import FeatureCounts, Reading
from fiduciary.decide.drift.world import ModelFacts, World
from fiduciary.decide.driftpolicy import decide
from fiduciary.decide.world import Platform

DIGEST = "sha256:" + "8" * 64
ROWS, BLOCKS, BINS = 21, 714, 10
DAY = datetime(2020, 1, 1, tzinfo=UTC)


def benched(features: int) -> tuple[DriftPolicy, Calibrated]:
    """A policy over this many features, and its calibration on blocks of noise."""
    rng = np.random.default_rng(1)
    edges = tuple(float(k) for k in range(BINS - 1))

    def histogram(name: str) -> Histogram:
        counts = rng.multinomial(7, [1 / BINS] * BINS, size=BLOCKS)
        return Histogram(name, edges, tuple(tuple(map(int, row)) for row in counts), (0,) * BLOCKS, 1)

    reference = Reference(
        "e", 7 * BLOCKS, 1, 7, DAY - timedelta(days=7 * BLOCKS), DAY,
        tuple(histogram(f"f{k}") for k in range(features)), histogram(""), None, "none", 7, (1.0,) * BLOCKS,
    )  # fmt: skip
    monitor = {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert"]}
    policy = DriftPolicy.model_validate({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"modelRef": {"name": "m"}, "window": {"rows": ROWS}, "monitors": [monitor]},
    })  # fmt: skip
    its = calibrated(policy.spec, "u", DIGEST, "Volatility", reference)
    assert isinstance(its, Calibrated), its
    return policy, its


def cost(features: int = 20, windows: int = 300) -> dict[str, float]:
    """Milliseconds of calibration (once a version) and of each window, and bytes of the state, by a processor clock."""
    rng, day = np.random.default_rng(1), DAY
    begun = time.process_time()
    policy, its = benched(features)
    once = time.process_time() - begun
    facts = ModelFacts(label="Volatility", champion=StandingVersion(version="1", digest=DIGEST, since=day))
    world = World(policy, facts, Platform("c", "i", "v", {}, ()), its, reference="e")
    counts, spent, now = np.zeros((features, BINS), dtype=int), 0.0, day
    for window in range(windows):
        counts += rng.multinomial(ROWS, [1 / BINS] * BINS, size=features)
        now += timedelta(days=ROWS)
        bins = tuple(FeatureCounts(f"f{k}", tuple(row)) for k, row in enumerate(counts.tolist()))
        world = replace(world, readings=(Reading(int(now.timestamp() * 1000), ROWS * (window + 1), bins),))
        begun = time.process_time()
        decision = decide(world, now)
        spent += time.process_time() - begun
        world = replace(world, state=decision.state, policy=policy.model_copy(update={"status": decision.status}))
    evidence = world.policy.status.evidence
    return {
        "calibrate_ms": 1000.0 * once,
        "judge_ms_per_model_window": 1000.0 * spent / windows,
        "state_bytes": float(len(evidence.state)) if evidence is not None else 0.0,
    }
