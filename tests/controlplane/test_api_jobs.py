"""The training Jobs of the golden worlds are what the API server takes: no field is dropped or refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.controlplane.server import Server

WORLDS = Path(__file__).resolve().parents[1] / "golden" / "worlds"


def made(world: str) -> dict[str, Any]:
    decided = yaml.safe_load((WORLDS / f"{world}.out.yaml").read_text())
    return next(body for child in decided["children"] for body in child.values() if body["kind"] == "Job")


@pytest.mark.parametrize("world", ["02-claimed", "40-search-claimed"])
def test_a_training_job_is_stored_as_it_was_made(server: Server, namespace: str, world: str) -> None:
    body = made(world)
    body["metadata"]["namespace"] = namespace
    stored = server.admin.create(body, namespace=namespace)["spec"]
    given = body["spec"]
    assert {name: stored[name] for name in given if name != "template"} == {
        name: value for name, value in given.items() if name != "template"
    }
