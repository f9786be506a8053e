"""What a policy that nobody kills finds in rows, window by window: an oracle for those that are killed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from fiduciary.api.versions import StandingVersion
from fiduciary.decide.drift.calibrate import Calibrated, calibrated
from fiduciary.decide.drift.state import FeatureCounts, Reading, State
from fiduciary.decide.drift.world import ModelFacts, World
from fiduciary.decide.driftpolicy import decide
from tests.unit.decide.drift.watch import QUIET, reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary.api.driftpolicy import DriftPolicy


def folded(policy: DriftPolicy, digest: str, windows: Sequence[np.ndarray], weights: np.ndarray) -> State:
    """The state after these windows of rows (features in columns) on the reference of the watch."""
    its = reference()
    found = calibrated(policy.spec, policy.metadata.uid, digest, "Volatility", its)
    assert isinstance(found, Calibrated), found
    now = datetime(2026, 11, 1, tzinfo=UTC)
    facts = ModelFacts("Volatility", StandingVersion(version="1", digest=digest, since=now))
    world = World(policy, facts, QUIET, found, reference=its.edges_digest)
    counts = [np.zeros(len(one.edges) + 1, dtype=int) for one in (*its.features, its.prediction)]
    rows = 0
    for raw in windows:
        for row in raw:
            values = (*row, float(row @ weights))
            for one, bins, value in zip((*its.features, its.prediction), counts, values, strict=True):
                bins[int(np.searchsorted(one.edges, value, side="left"))] += 1
        rows, now = rows + len(raw), now + timedelta(days=1)
        features = tuple(
            FeatureCounts(one.name, tuple(map(int, bins))) for one, bins in zip(its.features, counts, strict=False)
        )
        reading = Reading(int(now.timestamp() * 1000), rows, features, tuple(map(int, counts[3])))
        world = replace(world, readings=(reading,), state=decide(replace(world, readings=(reading,)), now).state)
    assert world.state is not None
    return world.state
