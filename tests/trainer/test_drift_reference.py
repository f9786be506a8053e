"""The drift reference is exact in its counts, bounded in size, and the same bytes each time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from fiduciary_trainer import drift_reference as drift
from fiduciary_trainer.forecast_reference import Forecasts, calibration


def reference(days: int = 1000, entities: int = 1, features: int = 4) -> drift.Reference:
    rng = np.random.default_rng(1)
    calendar = (np.datetime64("2010-01-04") + np.arange(days)).astype("datetime64[ns]")
    raw = rng.standard_t(4, size=(days * entities, features))
    raw[:, 1] = (raw[:, 1] > 0).astype(float)
    raw[0, 0] = raw[-1, 0] = np.nan
    inputs = np.clip(raw, -4, 4)
    return drift.Reference(
        dates=np.repeat(calendar, entities),
        entity=np.tile([f"S{number}" for number in range(entities)], days),
        names=[f"f{number}" for number in range(features)],
        memory=list(range(1, features + 1)),
        raw=raw,
        inputs=inputs,
        prediction=raw[:, 2] * 0.5,
    )


def written(given: drift.Reference, days: np.ndarray, losses: np.ndarray, *, probabilities: bool = False) -> bytes:
    """One row a day, of the errors that the losses say."""
    prediction = np.linspace(-1.0, 1.0, len(days))
    walk = Forecasts(np.arange(len(days)), prediction + np.sqrt(losses), prediction, probabilities)
    return drift.drift_reference(given, days, losses, walk)


def build(given: drift.Reference) -> dict:
    days = np.unique(given.dates)
    return json.loads(written(given, days[-300:], np.linspace(0.1, 0.4, min(300, len(days)))))


def test_counts_are_those_of_the_rows_in_each_block() -> None:
    given = reference()
    document = build(given)
    assert document["block"]["dates"] == 7
    assert document["block"]["count"] == 1000 // 7
    entry = document["features"]["f2"]
    edges, counts = np.array(entry["edges"]), np.array(entry["counts"])
    assert len(edges) == 9
    assert counts.sum(axis=1).tolist() == [7] * 142
    for block in (0, 77, 141):
        start = 1000 - 142 * 7 + block * 7
        values = given.raw[start : start + 7, 2]
        expected = [int(np.sum((values > low) & (values <= high)))
                    for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True)]  # fmt: skip
        assert counts[block].tolist() == expected
    assert document["block"]["through"][-1] == document["through"]


def test_edges_are_deciles_and_atoms_are_merged() -> None:
    document = build(reference())
    total = np.sum(document["features"]["f2"]["counts"], axis=0)
    assert total.min() >= 0.08 * total.sum()
    assert document["features"]["f1"]["edges"] == [0.0, 1.0]
    assert np.sum(document["features"]["f1"]["counts"], axis=0)[2] == 0


def test_missing_values_are_counted_and_in_no_bin() -> None:
    document = build(reference())
    entry = document["features"]["f0"]
    assert entry["missing"]["rate"] == 0.002
    assert entry["missing"]["blocks"] == {"141": 1}, "the other one lies in the oldest rows, which fill no block"
    assert sum(entry["counts"][141]) == 6


def test_the_joint_distance_can_be_recomputed_from_the_document() -> None:
    given = reference()
    joint = build(given)["joint"]
    whole = np.all(np.isfinite(given.inputs), axis=1)
    z = given.inputs[whole] - np.array(joint["center"])
    distance = np.linalg.norm(z @ np.array(joint["whiten"]).T, axis=1)
    assert np.mean(distance**2) == pytest.approx(4, rel=0.01), "a whitened vector of 4 has mean square 4"
    assert joint["max"] == pytest.approx(distance.max())
    correlated = given.inputs.copy()
    moved = replace(given, inputs=np.column_stack([correlated[:, :3], correlated[:, 2]]))
    assert len(build(moved)["joint"]["whiten"]) == 3, "a copied column adds no direction"


def test_unequal_edges_have_unequal_hashes() -> None:
    given = reference()
    first, second = build(given), build(replace(given, raw=given.raw * 1.01))
    assert first["edgesSha256"] != second["edgesSha256"]
    edges = {
        "features": {name: entry["edges"] for name, entry in first["features"].items()},
        "prediction": first["prediction"]["edges"],
        "joint": first["joint"]["edges"],
    }
    canonical = json.dumps(edges, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert first["edgesSha256"] == hashlib.sha256(canonical).hexdigest()


def test_the_bytes_do_not_change() -> None:
    days = np.unique(reference().dates)
    one = written(reference(), days, np.ones(1000))
    assert one == written(reference(), days, np.ones(1000))


def test_a_panel_counts_every_entity_of_a_block() -> None:
    document = build(reference(days=70, entities=5))
    assert document["entities"] == 5
    assert sum(document["features"]["f3"]["counts"][0]) == 35


def test_a_long_wide_reference_stays_bounded() -> None:
    given = reference(days=20_000, features=60)
    size = len(written(given, np.unique(given.dates), np.ones(20_000)))
    assert build(given)["block"]["dates"] == 21
    assert size < 3_000_000


def test_losses_of_the_walk_forward_are_kept_per_block() -> None:
    loss = build(reference())["loss"]
    assert len(loss["blocks"]) == 300 // 7
    assert loss["mean"] == pytest.approx(0.25)
    assert loss["blocks"][-1] > loss["blocks"][0]


def test_a_short_reference_is_one_block() -> None:
    given = reference(days=5)
    document = json.loads(written(given, np.unique(given.dates), np.ones(5)))
    assert document["block"]["count"] == 1


def test_losses_are_kept_by_how_the_forecast_was() -> None:
    document = build(reference())
    kept = document["loss"]["byPrediction"]
    assert len(kept["rows"]) == len(kept["mean"]) == len(document["prediction"]["edges"]) + 1
    assert sum(kept["rows"]) == 300
    told = [mean for mean in kept["mean"] if mean is not None]
    assert np.average(told, weights=[n for n in kept["rows"] if n]) == pytest.approx(0.25, rel=1e-4)
    assert document["loss"]["calibration"] is None, "a volatility is no event"


def test_probabilities_are_kept_beside_what_happened() -> None:
    predicted = np.array([0.55, 0.58, 0.42, 0.97, 1.0, 0.5])
    happened = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    walk = Forecasts(np.arange(6), happened, predicted, probabilities=True)
    found = calibration(walk, np.array([-1, 0, 0, 0, 1, 1]), 2)
    assert found == {"bins": 10, "blocks": [[[4, 1, 0.42, 0], [5, 1, 0.58, 0], [9, 1, 0.97, 1]],
                                            [[5, 1, 0.5, 0], [9, 1, 1.0, 1]]]}  # fmt: skip
