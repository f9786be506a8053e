"""The trainer's reference as it is read: merged, scored leave-block-out, refused where it is another thing."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary.api.driftpolicy import DriftPolicySpec
from fiduciary.decide.drift.calibrate import Calibrated, calibrated
from fiduciary.decide.drift.reference import Reference, parsed
from fiduciary.evidence import histograms
from fiduciary.evidence.cusum import threshold
from fiduciary.evidence.refusal import Refusal
from tests.unit.decide.drift.watch import UID, VERSION, document, policy, reference


def made(spec: dict[str, Any], rows: int = 2100, label: Any = "Volatility") -> Calibrated:
    found = calibrated(policy(spec).spec, UID, VERSION, label, reference(rows))
    assert isinstance(found, Calibrated), found
    return found


def test_what_the_trainer_writes_is_what_the_operator_reads() -> None:
    its = reference()
    assert (its.rows, its.entities, its.dates, its.blocks) == (2100, 1, 7, 300)
    assert [one.memory for one in its.features] == [1, 1, 66]
    assert sum(map(sum, its.features[0].blocks)) == 2100
    assert its.joint is not None
    assert len(its.loss) == 300


def test_blocks_are_merged_at_the_end_and_scored_against_the_rest() -> None:
    found = made({"window": {"rows": 42}})
    assert found.blocks == 50
    gauge = found.gauges[0]
    assert gauge.calibration is not None
    blocks = np.array(reference().features[0].blocks).reshape(50, 6, -1).sum(axis=1)
    scores = []
    for block in blocks:
        value = histograms.psi((blocks.sum(axis=0) - block).tolist(), block.tolist())
        assert not isinstance(value, Refusal)
        scores.append(float(f"{value / (1 / (2100 - 42) + 1 / 42):.6g}"))
    assert list(gauge.calibration.ordered) == sorted(scores)
    assert gauge.typical == sorted(scores)[25]


def test_blocks_are_aligned_at_the_newest_date() -> None:
    gauge = made({}, rows=2107).gauges[0]  # 301 base blocks: the oldest one is left over
    assert gauge.calibration is not None
    assert sum(gauge.total) == 2107
    newest = np.array(reference(2107).features[0].blocks[1:]).reshape(100, 3, -1).sum(axis=1)
    value = histograms.psi((np.array(gauge.total) - newest[0]).tolist(), newest[0].tolist())
    assert not isinstance(value, Refusal)
    assert float(f"{value / (1 / (2107 - 21) + 1 / 21):.6g}") in list(gauge.calibration.ordered)
    assert len(gauge.calibration.ordered) == 100


def test_the_threshold_is_for_all_detectors_together() -> None:
    monitors = [
        {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "KS", "actions": ["Alert"]},
        {"name": "score", "histogram": {"metric": "prediction"}, "statistic": "JS", "actions": ["Alert"]},
        {"name": "joint", "histogram": {"metric": "joint"}, "statistic": "PSI", "actions": ["Alert"]},
        {"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["Alert"]},
        {"name": "worse", "realisedLoss": {}, "actions": ["RollBack"]},
        {"name": "gone", "missing": {}, "actions": ["Alert"]},
        {"name": "query", "query": "up", "below": "1", "actions": ["Alert"]},
    ]
    found = made({"monitors": monitors})
    # fast and heavy (slow is too slow for 21 rows), prediction, joint, loss, the previous version, missing rows
    assert found.judged == 7
    assert found.run_time == 1400.0
    assert {gauge.name: gauge.blind[:23] for gauge in found.gauges if gauge.blind} == {
        "slow": "it averages over 66 row"
    }
    for gauge in found.gauges:
        if gauge.calibration is not None:
            assert gauge.calibration.height == threshold(1400.0, gauge.calibration.correlation)


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (
            {"rows": 20},
            "window.rows is 20; the reference keeps blocks of 7 dates, so that windows are multiples of it: 14",
        ),
        ({"rows": None, "length": "1h"}, "window.length 1h holds about 0.0417 rows"),
    ],
)
def test_windows_that_cannot_be_compared_are_refused(window: dict[str, Any], said: str) -> None:
    found = calibrated(policy({"window": window}).spec, UID, VERSION, "Volatility", reference())
    assert isinstance(found, Refusal)
    assert said in found.message


def test_a_length_is_turned_into_rows_by_how_dense_they_were() -> None:
    grid = made({"window": {"rows": None, "length": "21d", "minCount": 15}}).grid
    assert (grid.rows, grid.per_entity, grid.least, grid.most) == (21, 21, 15, 31)


def test_below_fifty_blocks_and_above_a_correlation_of_three_tenths_it_is_descriptive() -> None:
    few = made({"window": {"rows": 49}}).gauges[0]
    assert few.calibration is None
    assert "42 blocks of 49 rows, 50 are needed" in few.blind
    slow = json.loads(document())
    level = np.repeat(np.sin(np.arange(100) / 8.0), 3)  # each window of 21 like the one before it
    for block, height in enumerate(level):
        counts = [0] * 10
        counts[int(4.5 + 4.4 * height)] = 7
        slow["features"]["fast"]["counts"][block] = counts
    its = parsed(slow)
    assert isinstance(its, Reference)
    found = calibrated(policy().spec, UID, VERSION, "Volatility", its)
    assert isinstance(found, Calibrated)
    assert found.gauges[0].calibration is None
    assert "correlate" in found.gauges[0].blind


def test_returns_are_ranked_so_their_loss_has_no_reference() -> None:
    loss = {"monitors": [{"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["Alert"]}]}
    assert made(loss).gauges[0].calibration is not None
    assert "ranked" in made(loss, label="Return").gauges[0].blind


def test_a_version_without_a_reference_can_be_watched_by_queries_over_lengths_only() -> None:
    rows = calibrated(policy().spec, UID, VERSION, "Volatility", None)
    assert isinstance(rows, Refusal)
    assert "no drift reference" in rows.message
    lengths = calibrated(policy({"window": {"rows": None, "length": "1h"}}).spec, UID, VERSION, "Volatility", None)
    assert isinstance(lengths, Calibrated)
    assert "no drift reference" in lengths.gauges[0].blind


def test_actions_and_guards_are_not_part_of_the_question() -> None:
    base = made({}).key
    monitor = {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert"]}
    assert made({"monitors": [monitor], "guards": {"dryRun": True}}).key == base
    assert made({"monitors": [{**monitor, "statistic": "KS"}]}).key != base
    assert made({"falseAlarms": {"ertWindows": 300}}).key != base


BAD: list[tuple[tuple[str, ...], Any, str]] = [
    (("schemaVersion",), 2, "this operator reads 1"),
    (("edgesSha256",), "", "edgesSha256"),
    (("block", "count"), 299, "are not 299 blocks"),
    (("features", "fast", "edges"), [1.0, 1.0], "not increasing"),
    (("features", "fast", "memory"), 0, "fast.memory"),
    (("features", "fast", "missing", "blocks"), {"300": 1}, "names block '300' of 300"),
    (("features", "fast", "counts"), [[1]], "are not 300 blocks"),
    (("prediction", "edges"), [math.nan], "finite"),
    (("prediction", "counts"), None, "expected a list"),
    (("loss", "blocks"), [10**400], "finite"),
    (("through",), "yesterday", "expected a date"),
    (("through",), "0001-01-01T00:00:00+23:00", "expected a date"),
    (("joint",), [], "expected an object"),
]


@pytest.mark.parametrize(
    ("path", "value", "said"), BAD, ids=[" ".join(path) + f"-{k}" for k, (path, _, _) in enumerate(BAD)]
)
def test_what_is_no_reference_is_refused_with_the_field(path: tuple[str, ...], value: Any, said: str) -> None:
    content = copy.deepcopy(json.loads(document()))
    place = content
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    found = parsed(content)
    assert isinstance(found, Refusal)
    assert said in found.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from(sorted(json.loads(document()))))
def test_reading_is_total(value: Any, name: str) -> None:
    assert isinstance(parsed(value), Refusal)
    content = {**json.loads(document()), name: value}
    found = parsed(content)
    assert isinstance(found, Reference | Refusal)
    if isinstance(found, Reference):
        assert calibrated(DriftPolicySpec.model_validate(policy().spec.body()), UID, VERSION, "Volatility", found)
