"""DriftPolicies for tests of the engine, and what their detectors have come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api.driftpolicy import DriftPolicy
from fiduciary.decide.drift.report import stored
from fiduciary.decide.drift.state import State
from tests.controlplane.server import path_of

if TYPE_CHECKING:
    from tests.controlplane.server import Api


def dp(api: Api, namespace: str, name: str = "spx") -> DriftPolicy:
    return DriftPolicy.model_validate(api.get(path_of("DriftPolicy", namespace, name)))


def state(api: Api, namespace: str) -> State | None:
    evidence = dp(api, namespace).status.evidence
    found = None if evidence is None else stored(evidence)
    assert found is None or isinstance(found, State), found
    return found
