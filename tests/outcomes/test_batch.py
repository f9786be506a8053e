"""What runtimes send: the quick way and the careful way read the same, and the careful way names what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary_outcomes import batch as module
from fiduciary_outcomes.batch import Layout, read_batch, read_outcomes
from fiduciary_outcomes.document import Field, Refused
from tests.outcomes.worlds import MODEL, NAMESPACE, PATIENT, batch, outcome, record

LAYOUT = Layout(None, ("a", "b"), (9, 0), 4)
anything = st.none() | st.booleans() | st.integers(-3, 12) | st.floats(allow_nan=False, allow_infinity=False) | st.text(
    max_size=3
)  # fmt: skip
records = st.fixed_dictionaries(
    {
        "predictionId": st.text(max_size=4) | anything,
        "entity": st.text(max_size=4) | anything,
        "time": st.sampled_from(["2018-01-02", "2018-01-02T10:00:00Z", "x", ""]) | anything,
        "prediction": st.floats(-10, 10) | anything,
        "bins": st.lists(st.none() | st.integers(-1, 11), min_size=1, max_size=3) | anything,
    },
    optional={
        **dict.fromkeys(("predictionBin", "jointBin", "requestId", "labelEnd", "x"), anything),
        "missing": st.just([1]),
    },
)


@PATIENT
@given(records)
def test_the_quick_way_reads_what_the_careful_way_reads(item: dict[str, Any]) -> None:
    def careful() -> Any:
        try:
            return module._slow_record(Field("records[0]", item), LAYOUT, 3)
        except Refused as refused:
            return refused.message

    def quick() -> Any:
        try:
            return module._record(Field("records", [item]), 0, item, LAYOUT, 3)
        except Refused as refused:
            return refused.message

    assert quick() == careful()


trees = st.recursive(
    anything, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=8
)


@PATIENT
@given(trees, st.sampled_from(sorted(module.BATCH | module.BATCH_OPTIONAL)))
def test_whatever_comes_is_read_or_refused(value: Any, field: str) -> None:
    document = batch("champion", [record("2018-01-01", -4.0)]) | {field: value}
    statuses = {200}
    try:
        read_batch(json.dumps(document).encode(), NAMESPACE)
    except Refused as refused:
        statuses = {refused.status}
    assert statuses <= {200, 400, 413}


def test_a_batch() -> None:
    only = record("2018-01-01T10:00:00+01:00", -4.0, "A", requestId="r", labelEnd="2018-01-01T16:00:00Z")
    document = batch("champion", [only], dropped=[{"count": 2}, {"time": "2018-01-01", "count": 1}])
    found = read_batch(json.dumps(document).encode(), NAMESPACE)
    assert found.layout == Layout("ab" * 32, ("rv_d", "rv_w"), (9, 9), 9)
    assert found.dropped == (("", 2), ("2018-01-01", 1))
    (taken,) = found.records
    assert (taken.time, taken.label_end, taken.request) == ("2018-01-01T09:00:00Z", "2018-01-01T16:00:00Z", "r")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": ["a", "a"]}, "names that differ"),
        ({"edges": [9]}, "edges has 1 items; expected one for each of 2 features"),
        ({"edges": [9, 256]}, r"edges\[1\] is 256"),
        ({"reference": "zz"}, "reference is 'zz'"),
        ({"features": [str(i) for i in range(80)], "edges": [255] * 80}, "at most 20000 bins"),
        ({"predictionEdges": None}, "predictionEdges in the batch, which says how many bins there are"),
        ({"jointEdges": None}, "jointEdges in the batch, which says how many bins there are"),
        ({"jointEdges": 3}, r"jointBin is 4; expected an integer from 0 to 3"),
        ({"dropped": [{"count": 0}]}, r"dropped\[0\].count is 0"),
        ({"arm": "champion"}, "the document has the unknown arm"),
        ({"sender": ""}, "sender is ''"),
    ],
)
def test_what_is_wrong_with_a_batch(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        read_batch(json.dumps(batch("champion", [record("2018-01-01", -4.0)]) | changes).encode(), NAMESPACE)


def test_one_bad_outcome_does_not_hold_up_the_others() -> None:
    items = [
        outcome("2018-01-02", -4.0),
        {"entity": "A", "value": 1.0},
        {"requestId": "r", "value": 1, "labelEnd": "2018-01-02"},
        {"requestId": "r", "value": "1"},
        {"requestId": "r", "value": 1},
        7,
    ]
    body = json.dumps({"contractVersion": 1, "model": MODEL, "outcomes": items}).encode()
    model, found = read_outcomes(body, NAMESPACE)
    assert model == MODEL
    assert [isinstance(each, Refused) for each in found] == [False, True, True, True, False, True]
