"""The job document: what is refused before any data is read, and what the message says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fiduciary_trainer import contract
from fiduciary_trainer.outcome import BadContract
from tests.trainer.contracts import document

if TYPE_CHECKING:
    from pathlib import Path

BAD: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"contractVersion": 2}, "UnsupportedContractVersion", ["2", "1"]),
    ({"contractVersion": ...}, "InvalidValue", ["contractVersion", "missing", "integer"]),
    ({"training": 3}, "InvalidValue", ["training", "3", "object"]),
    ({"asOf": "Rolling"}, "InvalidValue", ["asOf", "Rolling", "YYYY-MM-DD"]),
    ({"asOf": "2017-02-30"}, "InvalidValue", ["2017-02-30"]),
    ({"training__architecture": "XGBoost"}, "UnknownArchitecture", ["XGBoost", "Linear"]),
    ({"training__search": {"trials": 3}}, "InvalidValue", ["training.search.space", "expected an object"]),
    ({"training__validation__scheme": "CombinatorialPurged"}, "InvalidValue", ["testFolds"]),
    ({"training__validation__scheme": "KFold"}, "InvalidValue", ["KFold", "WalkForward"]),
    ({"training__validation__folds": 1}, "InvalidValue", ["folds", "1", "2 to 50"]),
    ({"training__validation__folds": "6"}, "InvalidValue", ["folds", "integer"]),
    ({"training__validation__costBps": "much"}, "InvalidValue", ["costBps", "much"]),
    ({"training__seed": -1}, "InvalidValue", ["seed", "-1"]),
    ({"training__seed": True}, "InvalidValue", ["seed", "true"]),
    ({"training__hyperparameters": {"hidden": 8}}, "UnknownHyperparameter", ["HAR", "hidden", "none"]),
    ({"data__source": {}}, "InvalidValue", ["data.source", "dataset", "files"]),
    ({"data__source": {"feast": {"featureService": "x"}}}, "InvalidValue", ["data.source.feast.entityUri"]),
    (
        {"data__source": {"feast": {"featureService": "x", "entityUri": "pvc://a/b"}, "dataset": {"name": "arch/vix"}}},
        "InvalidValue",
        ["exactly one of dataset, files and feast"],
    ),
    ({"data__source": {"files": {"uri": "s3://b/x", "format": "XLS"}}}, "InvalidValue", ["XLS", "Parquet"]),
    ({"data__features": {"set": "magic-v9"}}, "UnknownFeatureSet", ["magic-v9", "ohlcv-v1"]),
    ({"data__features": {}}, "InvalidValue", ["data.features", "set", "columns"]),
    ({"data__features": {"columns": ["a", "a"]}}, "InvalidValue", ["columns"]),
    ({"data__label__kind": "Price"}, "InvalidValue", ["Price", "Volatility"]),
    ({"data__label__column": "adj_close"}, "LabelNotSupported", ["adj_close", "close"]),
    ({"data__label__kind": "Direction"}, "LabelNotSupported", ["HAR", "Direction", "Logistic"]),
    ({"data__label__horizon": 0}, "InvalidValue", ["horizon", "0"]),
    ({"data__checks__maxMissing": "1.5"}, "InvalidValue", ["maxMissing", "1.5"]),
    ({"data__checks__maxStaleness": "soon"}, "InvalidValue", ["maxStaleness", "soon", "5d"]),
    ({"training__validation__embargo": 21}, "EmbargoTooSmall", ["21", "22"]),
    ({"training__quantiles": ["0.05", "0.95"]}, "QuantilesNotSupported", ["0.05, 0.95", "HAR", "MLP", "Ensemble"]),
]


LEVELS = (["0.95", "0.05"], ["0.5", "0.50"], [], ["0"], ["0.0001"], ["1"], [0.05], ["half"], ["0.5"] * 16, "0.5")


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_levels_that_are_none(levels: Any) -> None:
    with pytest.raises(BadContract, match=r"training\.quantiles is .*; expected .*(ascending|a list)") as caught:
        contract.parse(document("MLP", training__quantiles=levels))
    assert caught.value.exit_code == 64


def test_quantiles_of_a_probability_are_refused() -> None:
    with pytest.raises(BadContract, match=r"0 or 1 has no quantiles.*use the label Volatility or Return") as caught:
        contract.parse(document("MLP", "Direction", training__quantiles=["0.5"]))
    assert caught.value.reason == "QuantilesNotSupported"


def test_quantiles_are_read_and_left_out_where_the_point_alone_counts() -> None:
    job = contract.parse(document("MLP", training__quantiles=["0.05", "0.5", "0.95"]))
    assert job.training.quantiles == (0.05, 0.5, 0.95)
    assert (
        job.without_quantiles()
        == contract.parse(document("MLP", training__quantiles=["0.05", "0.5", "0.95"])).without_quantiles()
    )
    assert contract.parse(document("MLP")).training.quantiles == job.without_quantiles().training.quantiles == ()


@pytest.mark.parametrize(("changes", "reason", "words"), BAD, ids=[f"{b[1]}-{i}" for i, b in enumerate(BAD)])
def test_what_cannot_be_carried_out_is_refused_by_name(changes: dict[str, Any], reason: str, words: list[str]) -> None:
    with pytest.raises(BadContract) as caught:
        contract.parse(document(**changes))
    assert caught.value.reason == reason
    assert caught.value.exit_code == 64
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hidden": 0}, ["hidden", "1 to 1024"]),
        ({"hidden": "sixteen"}, ["hidden", "sixteen", "integer"]),
        ({"hidden": "16.5"}, ["hidden", "integer"]),
        ({"learningRate": "2"}, ["learningRate", "1e-06 to 1"]),
        ({"learningRate": "NaN"}, ["learningRate"]),
    ],
)
def test_hyperparameters_have_bounds(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(BadContract) as caught:
        contract.parse(document("MLP", training__hyperparameters=given))
    assert caught.value.reason == "InvalidHyperparameter"
    for word in words:
        assert word in caught.value.message


def test_defaults_fill_what_the_user_left_out() -> None:
    settings = contract.parse(document("LSTM", training__hyperparameters={"hidden": "8"})).training.settings
    assert settings["hidden"] == 8
    assert settings["window"] == 20
    assert settings["penalty"] is None, "chosen inside the training rows"


@pytest.mark.parametrize(
    ("architecture", "label", "needed"),
    [("HAR", "Volatility", 22), ("EWMA", "Volatility", 66), ("Linear", "Volatility", 66), ("LSTM", "Return", 85)],
)
def test_the_embargo_covers_all_that_a_prediction_reads(architecture: str, label: str, needed: int) -> None:
    """A window of 20 rows of features that look 66 back reads 85 rows."""
    contract.parse(document(architecture, label, training__validation__embargo=needed))
    with pytest.raises(BadContract) as caught:
        contract.parse(document(architecture, label, training__validation__embargo=needed - 1))
    assert caught.value.reason == "EmbargoTooSmall"
    assert str(needed) in caught.value.message


def test_reference_models_read_their_own_terms() -> None:
    """So ``ols_skill`` compares HAR with a regression on HAR's terms, whatever set the resource names."""
    assert contract.parse(document("HAR")).features.names == ("rv_1", "rv_5", "rv_22")
    assert contract.parse(document("Linear")).features.name == "ohlcv-v1"
    assert contract.parse(document("HAR")).data.columns == contract.parse(document("Linear")).data.columns


def test_as_of_includes_its_day() -> None:
    assert contract.parse(document()).cutoff == np.datetime64("2017-12-30")


def test_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    with pytest.raises(BadContract, match="NoContract"):
        contract.load(path)
    path.write_text("{")
    with pytest.raises(BadContract, match="InvalidJson"):
        contract.load(path)
    path.write_text("[]")
    with pytest.raises(BadContract, match="InvalidValue"):
        contract.load(path)
