"""The samples that newcomers apply first are accepted as they are written, strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.controlplane.server import Server

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "deploy" / "samples").glob("*.yaml"))


def test_there_are_samples() -> None:
    assert {sample.name for sample in SAMPLES} >= {
        "spx-volatility.yaml",
        "spx-volatility-linear.yaml",
        "spx-direction.yaml",
    }


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_sample_is_accepted_with_strict_validation(server: Server, sample: Path) -> None:
    kubectl = server.kubectl("default")
    manifests = sample.read_text()
    for namespace in {line.split(":", 1)[1].strip() for line in manifests.splitlines() if "namespace:" in line}:
        kubectl.run("create", "namespace", namespace.strip("{}, "))
    applied = kubectl.run("apply", "--validate=strict", "--dry-run=server", "-f", str(sample))
    if "the namespace from the provided object" in applied.stderr:
        applied = server.kubectl("quant").run("apply", "--validate=strict", "--dry-run=server", "-f", str(sample))
    assert applied.returncode == 0, applied.stderr
