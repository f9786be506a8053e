"""What is kept of a result, and what is believed of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary.decide import identity, measurement
from tests.unit.decide.worlds import result

KEY = "sha256:" + "b" * 64


def test_a_termination_message_is_parsed_or_is_none() -> None:
    assert measurement.parse_result(json.dumps(result(KEY))) == result(KEY)
    for text in ("", "Traceback (most recent call last):", "[1]", "null", '{"contractVersion": 2}', "{"):
        assert measurement.parse_result(text) is None


@pytest.mark.parametrize("value", [None, True, "0.1", [], {}, float("nan"), float("inf")])
def test_what_is_no_finite_number_is_missing(value: Any) -> None:
    read = measurement.read({"metrics": {"mse": {"e": value}}, "checks": {"onnx_max_diff": value}})
    assert read.metrics == {}
    assert read.checks == {}
    assert read.why_missing("mse") == "the trainer reported no such number"


def test_texts_among_the_checks_are_names() -> None:
    read = measurement.read(result(KEY))
    assert read.names == {"leakage_feature": "rv_1"}
    assert read.checks["leakage_max_score"] == 0.12


def test_what_is_kept_fits_into_a_record_whatever_the_number_of_folds() -> None:
    folds = [0.012345 + number / 1000 for number in range(50)]
    metrics = {name: {"f": folds} for name in result(KEY, "Direction")["metrics"] if name != "max_drawdown"}
    kept = measurement.kept(result(KEY, "Direction", {"metrics": metrics, "unavailable": {"pnl": "x" * 500}}))
    assert len(identity.canonical(kept)) <= measurement.SUMMARY_BYTES
    assert kept["metrics"]["base_rate_skill"]["e"] == 0.02
    assert kept["checks"]["onnx_max_diff"] == 2e-7


def test_what_is_kept_can_be_stored_and_hashes_the_same() -> None:
    kept = measurement.kept(result(KEY))
    assert identity.digest(json.loads(json.dumps(kept))) == identity.digest(kept)
    assert None not in kept["metrics"]["mse"].values()


Noise = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
Parts = st.sampled_from(["metrics", "checks", "unavailable", "labelKind", "code", "runId", "digest", "seed"])


@given(st.dictionaries(Parts, Noise))
def test_any_document_is_read(document: dict[str, Any]) -> None:
    """The document comes from a pod that runs anybody's image."""
    measurement.read(document)


@given(st.dictionaries(Parts, Noise))
def test_any_document_is_kept(document: dict[str, Any]) -> None:
    assert len(identity.canonical(measurement.kept(document))) <= measurement.SUMMARY_BYTES
