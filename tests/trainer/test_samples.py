"""The samples as they stand, on the data that ships in the image: what the demo shows is what is measured."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="runs in the trainer image")
pytest.importorskip("yaml", reason="reads the samples")
pytest.importorskip("fiduciary", reason="operator/ is not mounted beside the tests")
import yaml

from fiduciary_trainer import contract as contracts
from fiduciary_trainer import pipeline
from fiduciary_trainer.data import Locations
from tests.trainer.judged import refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLES = Path(__file__).parents[2] / "deploy" / "samples"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="only tests/ is mounted here, deploy/samples is not")

CONFIDENT = 2.0
"""Standard errors; gates use 1.64 for the first configuration, more for later ones."""


def measured(tmp_path: Path, sample: str, refused_for: set[str], trials: int = 1) -> Mapping[str, Any]:
    """Metrics of a sample, of which the operator's gates must say exactly ``refused_for``."""
    *_, manifest = yaml.safe_load_all((SAMPLES / sample).read_text())
    spec = manifest["spec"]
    document = {
        "contractVersion": 1,
        "model": {"cluster": "sandbox", **manifest["metadata"]},
        "trainingKey": "sha256:" + "7e" * 32, "specKey": "sha256:51", "configKey": "sha256:c0", "attempt": 1,
        "trigger": {}, "asOf": spec["data"].pop("asOf"), "data": {"entity": None, **spec["data"]},
        "training": {"hyperparameters": {}, "search": None, **spec["training"]},
        "checkpoint": None, "mlflow": {"trackingUri": "http://127.0.0.1:1", "experiment": "x"},
        "provenance": {"image": "fiduciary-trainer:test", "operatorVersion": "0.1.0"},
    }  # fmt: skip
    work = tmp_path / "work"
    work.mkdir()
    contract = contracts.parse(document)
    done = pipeline.train(contract, Locations(), work / "state", work, lambda **_: None, threading.Event())
    checks = done.result["checks"]
    assert done.result["dataThrough"] == "2017-12-29"
    assert checks["leakage_max_score"] < 0.4
    assert checks["onnx_max_diff"] <= 1e-5
    assert checks["future_cut_max_diff"] == 0.0
    assert set(refusals(done, spec["training"]["architecture"], trials)) == refused_for
    return done.result["metrics"]


def test_har_is_as_good_as_the_tuned_ewma(tmp_path: Path) -> None:
    skill = measured(tmp_path, "spx-volatility.yaml", set())["ewma_skill"]
    assert skill["e"] - CONFIDENT * skill["se"] > -0.02
    assert abs(skill["e"]) < 0.01, "facts F: tuned EWMA equals HAR here"


def test_linear_beats_the_tuned_ewma_honestly(tmp_path: Path) -> None:
    metrics = measured(tmp_path, "spx-volatility-linear.yaml", set(), trials=2)
    skill = metrics["ewma_skill"]
    assert skill["e"] == pytest.approx(0.07, abs=0.015), "facts G2: .070 with an embargo of 66 days"
    assert skill["e"] - CONFIDENT * skill["se"] > 0.03
    assert min(skill["f"]) > 0.0


def test_direction_shows_no_skill_over_the_base_rate(tmp_path: Path) -> None:
    metrics = measured(tmp_path, "spx-direction.yaml", {"NoSkill"})
    skill = metrics["base_rate_skill"]
    assert skill["e"] - CONFIDENT * skill["se"] < 0.0
    assert abs(skill["e"]) < 0.01
    assert metrics["accuracy"]["e"] < 0.56


def test_a_searched_model_is_measured_together_with_its_search(tmp_path: Path) -> None:
    metrics = measured(tmp_path, "spx-volatility-search.yaml", set(), trials=3)
    skill = metrics["ewma_skill"]
    assert skill["e"] == pytest.approx(0.07, abs=0.015), "as the linear model whose penalty the trainer chooses itself"
    assert skill["e"] - CONFIDENT * skill["se"] > 0.03
    assert 0.0 <= metrics["pbo"]["e"] <= 1.0


def test_intervals_hold_and_beat_filtered_simulation(tmp_path: Path) -> None:
    metrics = measured(tmp_path, "spx-volatility-intervals.yaml", set())
    skill = metrics["filtered_pinball_skill"]
    assert skill["e"] - CONFIDENT * skill["se"] > 0.0, "what the sample's own gate demands"
    assert metrics["residual_pinball_skill"]["e"] > 0.0
    [validated] = (tmp_path / "work").rglob("validation/results.json")
    widest = json.loads(validated.read_bytes())["quantiles"]["intervals"][0]
    assert (widest["from"], widest["to"]) == (0.05, 0.95)
    assert widest["observed"] == pytest.approx(0.9, abs=0.03)
