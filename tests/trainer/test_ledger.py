"""The ledger's bytes are a function of its numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fiduciary_trainer.ledger import iso, ledger, number
from fiduciary_trainer.measure import Rows


def rows(entities: int = 1) -> Rows:
    days = np.array(["2017-12-27", "2017-12-28"], dtype="datetime64[ns]").repeat(entities)
    count = len(days)
    return Rows(
        dates=days,
        label_end=days + np.timedelta64(1, "D"),
        entity=np.tile(["B", "A"][:entities] if entities == 2 else [""], 2),
        fold=np.full(count, 5),
        y=np.arange(count) / 3,
        prediction=np.arange(count) / 7,
        baselines={},
        returns=np.zeros(count),
    )


def test_golden_bytes() -> None:
    assert ledger(rows(2), "sha256:ab").decode() == (
        "entity,decision_time,label_end,fold,prediction,outcome,loss,config_key\n"
        "A,2017-12-27,2017-12-28,5,0.1428571429,0.3333333333,0.03628117911,sha256:ab\n"
        "B,2017-12-27,2017-12-28,5,0,0,0,sha256:ab\n"
        "A,2017-12-28,2017-12-29,5,0.4285714286,1,0.3265306122,sha256:ab\n"
        "B,2017-12-28,2017-12-29,5,0.2857142857,0.6666666667,0.1451247166,sha256:ab\n"
    )


def test_a_single_series_has_no_entity() -> None:
    assert ledger(rows(), "k").decode().splitlines()[1].startswith(",2017-12-27,")


def test_the_last_bits_do_not_show() -> None:
    given = rows(2)
    assert ledger(given, "k") == ledger(replace(given, prediction=given.prediction * (1 + 1e-15)), "k")


def test_order_of_rows_does_not_show() -> None:
    given = rows(2)
    back = slice(None, None, -1)
    turned = Rows(
        given.dates[back], given.label_end[back], given.entity[back], given.fold[back], given.y[back],
        given.prediction[back], {}, given.returns[back],
    )  # fmt: skip
    assert ledger(given, "k") == ledger(turned, "k")


@pytest.mark.parametrize(("value", "text"), [(-0.0, "0"), (1e-9, "1e-09"), (0.1 + 0.2, "0.3"), (1e22, "1e+22")])
def test_one_format_of_a_float(value: float, text: str) -> None:
    assert number(value) == text


def test_a_hole_is_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        ledger(replace(rows(), prediction=np.array([np.nan, 0.0])), "k")


def test_times_within_a_day_keep_their_time() -> None:
    assert iso(np.datetime64("2017-12-27T00:00:00")) == "2017-12-27"
    assert iso(np.datetime64("2017-12-27T20:00:00")) == "2017-12-27T20:00:00Z"
