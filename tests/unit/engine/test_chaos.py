"""Whatever people, time and machines do to a trial, in whatever order, the following never happens:

- a challenger has a share of the requests, or copies of them, and no experiment watches it (for more than 40 s);
- a sample ratio alarm, though the router did what the log says: blocks were counted at weights that were not in force;
- a ruling of an experiment that began is never recorded, or an experiment has more than two verdicts;
- an experiment that was deleted never goes;
- records without end;
- an InternalError, of the model or of an experiment.

Drawn are pins, kills, resumes, suspensions, rollbacks, rejections, aborts, retrains, versions that begin to fail, wiped
statuses of both kinds, deleted experiments, a Prometheus that is away, outages of the operator of up to ten minutes,
and deaths of its process at any numbered write. Then everything is repaired, and a quarter of an hour passes.

The seeds are fixed; FIDUCIARY_FUZZ=1 draws new ones, and a number draws that many. What they find becomes a test of its
own, its seed is added here.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.unit.engine.chaos import QUICK, Chaos
from tests.unit.engine.experiment_story import ExperimentStory

FIXED = (2, 9, 11, 14, 15, 16)
FUZZ = int(os.environ.get("FIDUCIARY_FUZZ") or 0)
NEW = 10
SEEDS = FIXED if not FUZZ else tuple(random.SystemRandom().randrange(2**32) for _ in range(max(FUZZ, NEW)))


@pytest.fixture(scope="module")
def begun() -> ExperimentStory:
    return ExperimentStory.begun(QUICK)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_never_happens(seed: int, begun: ExperimentStory) -> None:
    chaos = Chaos(seed, begun)
    chaos.run()
    assert not chaos.bad, (seed, chaos.told, [record["action"] for record in chaos.story.log()])
