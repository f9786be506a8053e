"""Where requests cannot be counted nothing is pretended, and people promote; on every backend they can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fiduciary.decide.case import Case
from fiduciary.decide.experiment.preflight import objection
from fiduciary.decide.history import History
from fiduciary.decide.notyet import inactive_fields
from fiduciary.decide.serving.following import experiments_decide
from tests.unit.decide import worlds
from tests.unit.decide.backends import ALL
from tests.unit.decide.experiment.trials import experiment


@pytest.mark.parametrize("backend", list(ALL))
@pytest.mark.parametrize("counted", [True, False])
def test_where_requests_are_counted_an_experiment_decides(backend: str, counted: bool) -> None:
    spec = worlds.merged(ALL[backend], {"promotion": {"experiment": {}}})
    world = worlds.world(spec, platform=replace(worlds.PLATFORM, experiments=counted))
    assert experiments_decide(Case(world, worlds.T0)) is counted
    told = inactive_fields(world.model.spec, world.platform)
    assert any("Prometheus" in field for field in told) is not counted
    why = objection(experiment({"challenger": {"version": "2"}}), world.model, History(), None, seen=counted)
    assert why is not None
    assert why.reason == ("UnknownVersion" if counted else "PrometheusNotConfigured"), why
