"""What travels with a version reads back to the same bits, and means the same here as where it was trained."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from fiduciary_features import FeatureSpec, Transform, signature


def test_z_scores_of_training_rows_clipped() -> None:
    x = np.column_stack([np.arange(100.0), np.linspace(-3, 7, 100)])
    fitted = Transform.fit(x, ["a", "b"])
    z = fitted.apply(x)
    assert z.mean(axis=0) == pytest.approx(0.0, abs=1e-12)
    assert z.std(axis=0) == pytest.approx(1.0)
    assert fitted.apply(np.array([[1e9, -1e9]])).tolist() == [[4.0, -4.0]]
    assert np.isnan(fitted.apply(np.array([[np.nan, 0.0]]))[0, 0]), "missing stays missing"


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_feature_that_was_constant_in_training_stays_silent(value: float) -> None:
    fitted = Transform.fit(np.full((1000, 1), value), ["flat"])
    assert fitted.apply(np.array([[value + 5.0]])).tolist() == [[0.0]]


def test_json_keeps_every_bit() -> None:
    draw = np.random.default_rng(1)
    fitted = Transform.fit(draw.normal(size=(500, 6)) * 10.0 ** draw.integers(-9, 9, 6), list("abcdef"))
    read = Transform.from_json(json.loads(json.dumps(fitted.to_json())))
    x = draw.normal(size=(50, 6))
    assert read.apply(x).tobytes() == fitted.apply(x).tobytes()
    assert read.names == fitted.names


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 names, 1 means and 2 scales"):
        Transform.from_json({"names": ["a", "b"], "mean": [0.0], "scale": [1.0, 1.0], "clip": 4.0})


def test_features_read_back_only_if_they_mean_the_same() -> None:
    for spec in (FeatureSpec.of_set("ohlcv-v1"), FeatureSpec.of_columns(["signal", "close"])):
        document = json.loads(json.dumps(spec.to_json()))
        assert FeatureSpec.from_json(document).to_json() == spec.to_json()
    document["features"][0]["lookback"] = 7
    with pytest.raises(ValueError, match="signal"):
        FeatureSpec.from_json(document)


def test_signature_says_how_many_rows_a_prediction_needs() -> None:
    spec = FeatureSpec.of_set("ohlcv-v1")
    row = signature(spec, "Volatility", "close", 1, None)
    assert row["inputs"][0]["shape"] == [-1, 14]
    assert row["raw"] == {"columns": ["open", "high", "low", "close", "volume"], "rows": 66, "dtype": "float64"}
    window = signature(spec, "Direction", "close", 1, 20)
    assert window["inputs"][0]["shape"] == [-1, 20, 14]
    assert window["raw"]["rows"] == 85
    assert window["output"]["unit"] == "probability"


def test_the_feature_code_needs_numpy_alone() -> None:
    """The server has neither torch nor pandas."""
    code = "import sys, fiduciary_features; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "pandas", "scipy", "pyarrow", "fiduciary_trainer", "fiduciary"}
