"""What is computed while serving has the bits that the trainer computed, in another image with another Python."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fiduciary_features import FeatureSpec
from fiduciary_server.version import Version
from tests.server.served import message, serving, tensor, window

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NEEDED = {"har": 22, "linear": 66, "lstm": 85}
"""Rows that one prediction needs."""
ASKED = {"har": 66, "linear": 66, "lstm": 85}
"""Rows of the form: of the feature set at least."""


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and left.astype("<f8").tobytes() == right.astype("<f8").tobytes()


@pytest.mark.parametrize("name", NEEDED)
def test_the_whole_history_gives_the_trainers_bits(versions: Path, bars: Mapping[str, np.ndarray], name: str) -> None:
    spec = FeatureSpec.from_json(json.loads((versions / name / "features.json").read_bytes()))
    with np.load(versions / f"{name}.npz") as stored:
        trained = stored["features"]
    assert same_bits(spec.of_series({column: bars[column] for column in spec.columns}), trained)


@pytest.mark.parametrize("name", NEEDED)
def test_a_serving_window_gives_the_trainers_bits(versions: Path, bars: Mapping[str, np.ndarray], name: str) -> None:
    version = Version.load(versions / name, threads=1)
    assert (version.rows, version.form.rows) == (NEEDED[name], ASKED[name])
    with np.load(versions / f"{name}.npz") as stored:
        trained, rows = stored["features"], stored["rows"]
    kept = version.window or 1
    for row in rows:
        columns = {column: bars[column][row - version.rows + 1 : row + 1] for column in version.features.columns}
        served = version.features.of_series(columns)[-kept:]
        assert same_bits(served, trained[row - kept + 1 : row + 1])


@pytest.mark.parametrize("name", NEEDED)
def test_predictions_over_rest_and_grpc_are_the_trainers(
    versions: Path, bars: Mapping[str, np.ndarray], name: str
) -> None:
    """Bars as they are go in; out comes what the trainer's ONNX session gave for its own features."""
    with np.load(versions / f"{name}.npz") as stored:
        rows, expected = stored["rows"], stored["prediction"]
    with serving(versions / name) as served:
        for row, value in list(zip(rows, expected, strict=True))[-60:]:
            body = window(bars, row, ASKED[name])
            over_rest = served.infer(body).json()["outputs"][0]["data"][0]
            assert np.float32(over_rest) == value
        # The same with more history than is needed, with raw contents, and all at once.
        assert served.infer(window(bars, row, 300)).json()["outputs"][0]["data"] == [over_rest]
        answer = served.call(message(body, raw=True))
        assert np.frombuffer(answer.raw_output_contents[0], "<f4")[0] == value
        assert served.call(message(body)).outputs[0].contents.fp32_contents[0] == value
        many = [window(bars, each, ASKED[name]) for each in rows[-40:]]
        names = [given["name"] for given in body["inputs"]]
        batch = {"inputs": [tensor(n, [one["inputs"][i]["data"] for one in many]) for i, n in enumerate(names)]}
        np.testing.assert_allclose(served.infer(batch).json()["outputs"][0]["data"], expected[-40:], rtol=1e-6)


@pytest.mark.parametrize("name", NEEDED)
def test_feature_rows_give_the_same_as_bars(versions: Path, bars: Mapping[str, np.ndarray], name: str) -> None:
    version = Version.load(versions / name, threads=1)
    with np.load(versions / f"{name}.npz") as stored:
        features, rows, expected = stored["features"], stored["rows"], stored["prediction"]
    last, kept = rows[-1], version.window or 1
    raw = features[last - kept + 1 : last + 1] if version.window else features[last]
    with serving(versions / name) as served:
        answer = served.infer({"inputs": [tensor("features", raw[None])]}).json()
    assert np.float32(answer["outputs"][0]["data"][0]) == expected[-1]


def test_a_version_is_what_the_trainer_hashed(versions: Path) -> None:
    manifest = json.loads((versions / "linear" / "manifest.json").read_bytes())
    for file, digest in manifest["files"].items():
        assert hashlib.sha256((versions / "linear" / file).read_bytes()).hexdigest() == digest
