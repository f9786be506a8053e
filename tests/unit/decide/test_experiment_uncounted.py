"""Experiments on a backend whose requests nobody counts: nothing is pretended, and people promote."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fiduciary.decide.case import Case
from fiduciary.decide.experiment.preflight import objection
from fiduciary.decide.history import History
from fiduciary.decide.notyet import inactive_fields
from fiduciary.decide.serving.following import experiments_decide
from tests.unit.decide import worlds
from tests.unit.decide.experiment.trials import experiment

GATEWAY = {"parentRefs": [{"name": "public", "namespace": "infra"}]}
COUNTED = {"Gateway": True, "KServe": True, "Seldon": False}


@pytest.mark.parametrize(("backend", "counted"), COUNTED.items())
def test_where_requests_are_counted_an_experiment_decides(backend: str, counted: bool) -> None:
    serving = {"backend": backend, "gateway": GATEWAY} | ({"seldon": {"server": "fiduciary"}} if not counted else {})
    spec = {"serving": serving, "promotion": {"experiment": {}}}
    world = worlds.world(spec, platform=replace(worlds.PLATFORM, experiments=True))
    assert experiments_decide(Case(world, worlds.T0)) is counted
    assert any("Seldon" in field for field in inactive_fields(world.model.spec, world.platform)) is not counted
    told = objection(experiment({"challenger": {"version": "2"}}), world.model, History(), None, seen=True)
    assert told is not None
    assert (told.reason == "NotYetActive") is not counted, told
