"""The trainer's pairing of two ledger.csv beside the scorer's own arithmetic for live sessions: the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary_outcomes.document import digest
from fiduciary_outcomes.ledgers import read_ledger
from fiduciary_outcomes.session import Outcome, Prediction, settle
from fiduciary_trainer.comparison import pairing
from fiduciary_trainer.outcome import BadContract, DataRefused

if TYPE_CHECKING:
    from fiduciary_trainer.comparison.pairing import Ledger

HEADER = "entity,decision_time,label_end,fold,prediction,outcome,loss,config_key\n"
DAYS = ["2018-01-02", "2018-01-03", "2018-01-04", "2018-01-05"]
NUMBER = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 0.3, 1.0, 3.5])


def ledger(text: str) -> Ledger:
    return pairing.read((HEADER + text).encode(), "champion")


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[Ledger, Ledger]:
    entities = draw(st.sampled_from([[""], ["a", "b"], ["a", "b", "c", "d", "e", "f"]]))
    both: tuple[Ledger, Ledger] = ({}, {})
    for day in DAYS:
        for entity in entities:
            outcome = draw(NUMBER)
            for its in both:
                # each has the first and the last day, so that the stretch is known
                if day in (DAYS[0], DAYS[-1]) or draw(st.integers(0, 3)):
                    its[day, entity] = pairing.Row("2018-01-08", 0, draw(NUMBER), outcome)
    return both


@pytest.mark.parametrize("label", ["Volatility", "Direction", "Return"])
@given(both=ledgers())
def test_a_replayed_session_is_what_the_scorer_would_have_closed(label: Any, both: tuple[Ledger, Ledger]) -> None:
    compared = pairing.compare(*both, label, str)
    assert [row["session"] for row in compared.rows] == sorted({day for its in both for day, _ in its})
    for row in compared.rows:
        units = [{e: r for (day, e), r in its.items() if day == row["session"]} for its in both]
        predictions = {
            arm: {(entity, "x", ""): Prediction(found.prediction, 1) for entity, found in its.items()}
            for arm, its in zip(pairing.ARMS, units, strict=True)
        }
        outcomes = {(e, "x", ""): Outcome(found.outcome, None, 2) for its in units for e, found in its.items()}
        closed = settle(label, predictions, outcomes, {})
        assert {**row, **closed} == {**closed, **row}
    # and the scorer takes it as a ledger
    head = {
        "contractVersion": 1, "kind": "Prequential", "model": "quant.spx", "label": {"kind": label, "horizon": 1},
        "champion": {"version": "7", "digest": "sha256:" + "7" * 64}, "calendar": "24/7", "provenance": {},
        "challenger": {"version": "8", "digest": "sha256:" + "8" * 64}, "rows": compared.rows,
    }  # fmt: skip
    definition, rows = read_ledger({**head, "digest": digest(head)}, "quant")
    assert (definition.kind, rows) == ("Prequential", compared.rows)


def test_only_the_stretch_in_which_both_were_tested_counts() -> None:
    one = ledger("".join(f",{day},2018-02-01,0,1,0,1,c\n" for day in DAYS[:3]))
    two = ledger("".join(f",{day},2018-02-01,0,2,0,4,d\n" for day in DAYS[1:] if day != DAYS[2]))
    compared = pairing.compare(one, two, "Volatility", str)
    assert [(row["session"], row["sum"], row["missing"]) for row in compared.rows] == [
        (DAYS[1], "-3.0", {"champion": 0, "challenger": 0}),
        (DAYS[2], "0.0", {"champion": 0, "challenger": 1}),
    ]
    assert (compared.entities, compared.first, compared.last) == (1, DAYS[1], DAYS[2])


@pytest.mark.parametrize("change", ["2018-02-01,0,2,0.1", "2018-02-02,0,2,0"])
def test_other_outcomes_are_other_data(change: str) -> None:
    one = ledger(",2018-01-02,2018-02-01,0,1,0,1,c\n")
    with pytest.raises(DataRefused, match=r"1 of 1 common rows have another outcome.*2018-01-02"):
        pairing.compare(one, ledger(f",2018-01-02,{change},4,d\n"), "Volatility", str)


def test_a_ledger_that_is_none() -> None:
    with pytest.raises(BadContract, match="columns nothing"):
        pairing.read(b"", "challenger")
    with pytest.raises(BadContract, match="two rows of 2018-01-02"):
        ledger(",2018-01-02,2018-02-01,0,1,0,1,c\n" * 2)


def test_stretches_are_the_days_between_refits() -> None:
    found = ledger("a,2018-01-02,x,0,1,0,1,c\nb,2018-01-03,x,0,1,0,1,c\na,2018-01-04,x,1,1,0,1,c\n")
    assert pairing.stretches(found) == [("2018-01-02", "2018-01-03"), ("2018-01-04", "2018-01-04")]
