"""The Secret with which versions are fetched: nothing that mounts it is made before its owner released it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.case import Case
from fiduciary.decide.serving.storage import secret_obstacle
from fiduciary.decide.world import ReferenceView
from fiduciary.engine.observe import references
from tests.unit.decide.backends import SELDON
from tests.unit.decide.lives import calm, trained
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import SERVED, T0, merged, model, world

OURS = merged(SERVED, {"serving": {"storageSecretRef": {"name": "models-s3"}}})
SELDONS = merged(SELDON, {"serving": {"seldon": {"storageSecretRef": {"name": "models-s3"}}}})
RELEASED = ReferenceView("Secret", "models-s3", "Found", consumable=True)


@pytest.mark.parametrize("spec", [OURS, SELDONS])
@pytest.mark.parametrize(
    ("view", "reason", "words"),
    [
        (None, reasons.REFERENCE_MISSING, "create it"),
        (ReferenceView("Secret", "models-s3", "Missing"), reasons.REFERENCE_MISSING, "create it"),
        (ReferenceView("Secret", "models-s3", "Forbidden"), reasons.REFERENCE_FORBIDDEN, "deploy/kustomize/namespace"),
        (ReferenceView("Secret", "models-s3", "Found"), reasons.REFERENCE_NOT_CONSUMABLE, "fiduciary.dev/consumable"),
    ],
)
def test_a_secret_that_may_not_be_used(spec: dict[str, Any], view: Any, reason: str, words: str) -> None:
    note = secret_obstacle(Case(world(spec, references=() if view is None else (view,)), T0))
    assert note is not None
    assert (note.reason, note.stalled) == (reason, True)
    assert "models-s3" in note.message
    assert words in note.message


@pytest.mark.parametrize("spec", [OURS, SELDONS])
def test_a_secret_that_is_released(spec: dict[str, Any]) -> None:
    assert secret_obstacle(Case(world(spec, references=(RELEASED,)), T0)) is None
    assert ("Secret", "models-s3") in references(model(spec)), "it is looked at"


def test_nothing_is_loaded_before_it_is_released_and_then_it_is() -> None:
    sim = SimulatedWorld(OURS)
    trained(sim)
    calm(sim, 20)
    assert sim.serving.names("Deployment") == []
    assert sim.condition("Stalled")[:2] == ("True", reasons.REFERENCE_MISSING)
    sim.world = replace(sim.world, references=(RELEASED,))
    calm(sim)
    assert sim.condition("Ready")[0] == "True"


def test_none_is_needed_where_none_is_named() -> None:
    assert secret_obstacle(Case(world(SERVED), T0)) is None
    assert references(model(SERVED)) == []
