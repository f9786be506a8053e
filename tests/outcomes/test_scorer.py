"""The scorer's work on a real SQLite store: what is folded, what is only counted."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from fiduciary_outcomes import closing
from fiduciary_outcomes.chain import broken
from fiduciary_outcomes.cleaning import clean
from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.memory import WrongStore
from fiduciary_outcomes.sql import Busy, Postgresql
from fiduciary_outcomes.trading import mark
from tests.outcomes.worlds import DAY, MODEL, Scorer, at, live, outcome, prequential, record


def after(scorer: Scorer, name: str = "x") -> dict[str, int]:
    """What came too late, where anything did."""
    return {what: count for what, count in scorer.memory.ledgers[name].after.items() if count}


def results(scorer: Scorer, version: str = "7") -> dict[str, int]:
    found = next(arm for arm in scorer.memory.arms.values() if arm.version == version)
    return {what: count for what, count in found.results.items() if count}


def test_a_session_from_prediction_to_row(scorer: Scorer) -> None:
    scorer.put("x", live())
    scorer.records("champion", [record("2018-01-01", -4.0)])
    scorer.records("challenger", [record("2018-01-01", -4.4)])
    scorer.to("2018-01-03")
    assert scorer.outcomes([outcome("2018-01-02", -4.5)])["accepted"] == 1
    assert scorer.to("2018-01-03", "23:59:59") == 0
    assert scorer.to("2018-01-04") == 1
    (row,) = scorer.rows()
    digests = row.pop("previous"), row.pop("digest")
    assert row == {
        "sequence": 0, "session": "2018-01-01", "labelEnd": "2018-01-02", "entities": 1, "paired": 1,
        "sum": repr(0.25 - (-4.5 + 4.4) ** 2), "sumSquares": repr((0.25 - (-4.5 + 4.4) ** 2) ** 2),
        "loss": {"champion": "0.25", "challenger": repr((-4.5 + 4.4) ** 2)},
        "qlike": {"champion": "0.36787944117144233", "challenger": row["qlike"]["challenger"]},
        "missing": {"champion": 0, "challenger": 0}, "late": {"champion": 0, "challenger": 0},
        "dropped": {"champion": 0, "challenger": 0}, "unpredicted": 0, "withoutOutcome": 0,
    }  # fmt: skip
    ledger = scorer.memory.ledgers["x"]
    assert digests == (ledger.definition.digest, ledger.head)


def test_only_the_first_prediction_counts_and_copies_are_counted(scorer: Scorer) -> None:
    scorer.put("x", live())
    scorer.records("champion", [record("2018-01-01", -4.0), record("2018-01-01", -4.0), record("2018-01-01", -9.0)])
    scorer.records("champion", [record("2018-01-01", -4.0 + 1e-7), record("2018-01-02", -4.0)])
    assert results(scorer) == {"first": 2, "duplicate": 2, "conflicting": 1}
    arm = scorer.memory.arms[MODEL, "7", "sha256:" + "7" * 64]
    assert (arm.rows, arm.bins[0][1], arm.bins[1][2], arm.prediction_bins[3], arm.joint_bins[4]) == (2, 2, 2, 2, 2)
    scorer.now = at("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", -4.0)])
    scorer.to("2018-01-04")
    assert scorer.rows()[0]["missing"] == {"champion": 0, "challenger": 1}


def test_what_was_incomplete_counts_in_the_histograms_once_and_is_no_prediction(scorer: Scorer) -> None:
    """A request without a feature was refused; the client came again with all of them."""
    scorer.put("x", live())
    lacking = record("2018-01-01", 0.0) | {
        "prediction": None,
        "bins": [None, 2],
        "predictionBin": None,
        "jointBin": None,
    }
    scorer.records("champion", [lacking, lacking])
    scorer.restart()
    scorer.records("champion", [record("2018-01-01", -4.0), record("2018-01-01", -4.0), lacking])
    scorer.records("challenger", [lacking, record("2018-01-01", -4.5)])
    scorer.records("champion", [record("2018-01-01", -4.0) | {"time": None}])
    assert results(scorer) == {"first": 1, "duplicate": 1, "incomplete": 3, "untimed": 1}
    assert results(scorer, "8") == {"first": 1, "incomplete": 1}
    champion, challenger = scorer.memory.arms.values()
    assert (champion.rows, champion.missing, champion.bins[1][2], sum(champion.prediction_bins)) == (1, [1, 0], 1, 0)
    assert (challenger.rows, sum(challenger.prediction_bins)) == (1, 1)
    scorer.now = at("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", -4.5)])
    scorer.to("2018-01-04")
    assert [(row["entities"], row["loss"]["champion"]) for row in scorer.rows()] == [(1, "0.25")]


def test_a_runtime_of_before_sends_no_joint_distance_and_its_successor_does(scorer: Scorer) -> None:
    """The version and its layout are the same; the rows of before are in no bin of it."""
    scorer.records("champion", [record("2018-01-01", -4.0, jointBin=None)], jointEdges=None)
    (arm,) = scorer.memory.arms.values()
    assert arm.joint_bins == []
    scorer.restart()
    scorer.records("champion", [record("2018-01-02", -4.0)])
    (arm,) = scorer.memory.arms.values()
    assert (arm.rows, sum(arm.joint_bins), len(arm.joint_bins)) == (2, 1, 10)
    with pytest.raises(Refused, match="came with 5 edges of the joint distance, at first with 9"):
        scorer.records("champion", [record("2018-01-03", -4.0)], jointEdges=5)


def test_only_incomplete_records_are_a_missing_prediction(scorer: Scorer) -> None:
    scorer.put("x", live())
    scorer.records("champion", [record("2018-01-01", -4.0)])
    scorer.records("challenger", [record("2018-01-01", 0.0) | {"prediction": None, "predictionBin": None}])
    scorer.now = at("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", -4.5)])
    scorer.to("2018-01-04")
    assert [row["missing"] for row in scorer.rows()] == [{"champion": 0, "challenger": 1}]


def test_copies_are_known_after_a_restart(scorer: Scorer) -> None:
    scorer.records("champion", [record("2018-01-01", -4.0)])
    scorer.restart()
    scorer.records("champion", [record("2018-01-01", -4.0), record("2018-01-01", -3.0)])
    assert results(scorer) == {"first": 1, "duplicate": 1, "conflicting": 1}


def test_a_batch_is_applied_once_and_answered_the_same(scorer: Scorer) -> None:
    first = scorer.records("champion", [record("2018-01-01", -4.0)], sequence=3)
    second = scorer.records("champion", [record("2018-01-02", -4.0)], sequence=4)
    scorer.restart()
    assert scorer.records("champion", [record("2018-01-02", -4.0)], sequence=4) == second
    assert scorer.records("champion", [record("2018-01-01", -4.0)], sequence=3) == {"sequence": 3, "repeated": True}
    assert first["first"] == second["first"] == 1
    assert results(scorer) == {"first": 2}


def test_a_prediction_after_its_outcome_is_late_and_missing(scorer: Scorer) -> None:
    scorer.put("x", live())
    scorer.records("champion", [record("2018-01-01", -4.0)])
    scorer.to("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", -4.5)])
    scorer.records("challenger", [record("2018-01-01", -4.5)])
    scorer.to("2018-01-04")
    (row,) = scorer.rows()
    assert (row["entities"], row["late"], row["missing"]) == (
        0, {"champion": 0, "challenger": 1}, {"champion": 0, "challenger": 1},
    )  # fmt: skip


def test_what_comes_after_the_close_is_counted_and_changes_nothing(scorer: Scorer) -> None:
    scorer.put("x", live())
    scorer.records("champion", [record("2018-01-01", -4.0)])
    scorer.to("2018-01-04")
    before = scorer.rows()
    assert before[0]["withoutOutcome"] == 1
    assert scorer.outcomes([outcome("2018-01-02", -4.5)])["late"] == 1
    scorer.records("challenger", [record("2018-01-01", -4.0)], dropped=[{"time": "2018-01-01", "count": 2}])
    scorer.restart()
    scorer.to("2018-01-09")
    assert scorer.rows() == before
    assert after(scorer) == {"predictions": 1, "outcomes": 1, "dropped": 2}


def test_a_late_session_does_not_come_back_after_a_restart(scorer: Scorer) -> None:
    """Nothing was there when the session ended, so no row was written, and none may appear later."""
    scorer.put("x", live())
    scorer.to("2018-01-06")
    scorer.records("champion", [record("2018-01-01", -4.0)])
    scorer.restart()
    scorer.to("2018-01-07")
    assert scorer.rows() == []
    assert after(scorer) == {"predictions": 1}


def test_open_sessions_survive_a_restart_between_two_closes(scorer: Scorer) -> None:
    scorer.put("x", live())
    for day in ("2018-01-01", "2018-01-02", "2018-01-03"):
        scorer.records("champion", [record(day, -4.0)])
    commit, left = scorer.memory.commit, [1]

    def dying() -> None:
        if not left:
            scorer.memory._rollback = lambda: None  # the dead roll nothing back
            raise KeyboardInterrupt
        left.pop()
        commit()

    scorer.memory.commit = dying
    with pytest.raises(KeyboardInterrupt):
        scorer.to("2018-01-09")
    scorer.restart()
    assert [row["session"] for row in scorer.rows()] == ["2018-01-01"]
    scorer.to("2018-01-09")
    assert [row["session"] for row in scorer.rows()] == ["2018-01-01", "2018-01-02", "2018-01-03"]


def test_outcomes_again_revised_conflicting_refused(scorer: Scorer) -> None:
    scorer.put("x", live(label={"kind": "Direction", "horizon": 1}))
    scorer.now = at("2018-01-03")
    answer = scorer.outcomes(
        [
            outcome("2018-01-02", 1.0, "A"),
            outcome("2018-01-02", 1.0, "A"),
            outcome("2018-01-02", 0.0, "A"),
            outcome("2018-01-02", 0.3, "B"),
            outcome("2018-01-03", 1.0, "A"),
            {"entity": "C", "value": 1.0},
        ]
    )
    refusals = answer.pop("refusals")
    assert answer == {"accepted": 1, "duplicate": 1, "revised": 1, "conflicting": 0, "late": 0, "refused": 3}
    assert [(each["index"], each["reason"]) for each in refusals] == [
        (3, "BadOutcome"),
        (4, "TooEarly"),
        (5, "BadField"),
    ]
    assert scorer.outcomes([outcome("2018-01-02", 0.0, "A")], writer="another")["conflicting"] == 1
    scorer.records("champion", [record("2018-01-01", 0.7, "A")])
    scorer.to("2018-01-04")
    assert scorer.memory.models[MODEL].results["revised"] == 1


def test_the_first_outcome_is_the_one_that_is_used(scorer: Scorer) -> None:
    scorer.put("x", live())
    for arm in ("champion", "challenger"):
        scorer.records(arm, [record("2018-01-01", -4.0)])
    scorer.now = at("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", -5.0)])
    scorer.outcomes([outcome("2018-01-02", -4.0)])
    scorer.to("2018-01-04")
    assert scorer.rows()[0]["loss"]["champion"] == "1.0"


def test_drops_are_charged_to_their_session_and_once(scorer: Scorer) -> None:
    scorer.put("x", live())
    lost = [{"time": "2018-01-01", "count": 2}, {"time": "2018-01-02", "count": 1}]
    scorer.records("champion", [record("2018-01-01", -4.0)], sequence=1, dropped=lost)
    scorer.records("champion", [record("2018-01-01", -4.0)], sequence=1, dropped=lost)
    scorer.records("champion", [], sequence=2, dropped=[{"count": 4}])
    scorer.restart()
    scorer.to("2018-01-09")
    assert [(row["session"], row["dropped"]["champion"], row["entities"]) for row in scorer.rows()] == [
        ("2018-01-01", 6, 0),
        ("2018-01-02", 1, 0),
    ]


def test_exchange_sessions(scorer: Scorer) -> None:
    """Friday's decision ends on Tuesday after a holiday, at the exchange's close in winter time."""
    scorer.put("x", live(calendar="XNYS", firstSession="2018-01-12", graceSeconds=3600))
    scorer.now = at("2018-01-12", "22:00:00")
    scorer.records("champion", [record("2018-01-12", -4.0)])
    # Saturday, New York: the decision still rests on Friday's session
    scorer.records("challenger", [record("2018-01-13T17:00:00+00:00", -4.2)])
    scorer.to("2018-01-16", "21:30:00")
    scorer.outcomes([outcome("2018-01-16", -4.5)])
    assert scorer.to("2018-01-16", "21:59:59") == 0
    assert scorer.to("2018-01-16", "22:00:00") == 1
    (row,) = scorer.rows()
    assert (row["session"], row["labelEnd"], row["entities"]) == ("2018-01-12", "2018-01-16", 1)


def test_horizon_of_more_than_a_session(scorer: Scorer) -> None:
    scorer.put("x", live(label={"kind": "Volatility", "horizon": 5}, calendar="XNYS", firstSession="2018-01-02"))
    scorer.records("champion", [record("2018-01-02", -4.0)])
    scorer.records("challenger", [record("2018-01-02", -4.0)])
    scorer.to("2018-01-10")
    scorer.outcomes([outcome("2018-01-09", -4.0)])
    scorer.to("2018-01-11")
    assert [(row["labelEnd"], row["entities"]) for row in scorer.rows()] == [("2018-01-09", 1)]


def test_pairing_by_request(scorer: Scorer) -> None:
    scorer.put("x", live(pairing="RequestId", label={"kind": "Direction", "horizon": 1}))
    for arm, probability in (("champion", 0.5), ("challenger", 0.75)):
        scorer.records(
            arm,
            [record("2018-01-01", probability, "A", requestId=f"r{i}") for i in range(3)]
            + [record("2018-01-01", 0.1, "A")],
        )
    scorer.now = at("2018-01-02")
    scorer.outcomes([{"requestId": "r0", "value": 1}, {"requestId": "r1", "value": 0}, {"requestId": "r9", "value": 0}])
    scorer.to("2018-01-04")
    (row,) = scorer.rows()
    assert (row["entities"], row["withoutOutcome"]) == (2, 1)
    assert float(row["sum"]) == pytest.approx((0.25 - 0.0625) + (0.25 - 0.5625))
    # one entity and time is one row of the histograms, whatever the number of requests
    assert [arm.rows for arm in scorer.memory.arms.values()] == [1, 1]


def test_rows_are_not_counted_anew_when_requests_are_no_longer_paired(scorer: Scorer) -> None:
    scorer.records("champion", [record("2018-01-01", 0.5, "A", requestId="r0")])
    scorer.put("x", live(pairing="RequestId", label={"kind": "Direction", "horizon": 1}))
    scorer.records("champion", [record(day, 0.5, "A", requestId="r1") for day in ("2018-01-01", "2018-01-02")])
    scorer.end("x", "2018-01-01")
    scorer.to("2018-01-09")
    scorer.restart()
    for day in ("2018-01-01", "2018-01-02"):
        scorer.records("champion", [record(day, 0.5, "A", requestId=f"r{i}") for i in range(4)])
    champion = scorer.memory.arms[MODEL, "7", "sha256:" + "7" * 64]
    assert (champion.rows, champion.bins[0][1]) == (2, 2)


def test_a_replay_closes_by_its_outcomes(scorer: Scorer) -> None:
    scorer.now = at("2026-11-26")
    scorer.put("x", live(clock="Outcomes", calendar="XNYS", firstSession="2018-01-02"))
    days = ["2018-01-02", "2018-01-03", "2018-01-04", "2018-01-05"]
    for day, ends in pairwise(days):
        scorer.records("champion", [record(day, -4.0)])
        scorer.records("challenger", [record(day, -4.5)])
        scorer.outcomes([outcome(ends, -4.5)])
    # a label end far ahead that no prediction belongs to moves no clock
    scorer.outcomes([outcome("2019-01-02", -4.5)])
    scorer.restart()
    assert [row["session"] for row in scorer.rows()] == ["2018-01-02", "2018-01-03"]
    assert scorer.memory.ledgers["x"].after["predictions"] == 0


def test_paper_profit_stands_in_the_row(scorer: Scorer) -> None:
    terms = {"notional": "10000", "costBps": "10"}
    scorer.put("x", live(label={"kind": "Direction", "horizon": 1}, paper=terms))
    scorer.records("champion", [record("2018-01-01", 0.9)])
    scorer.records("challenger", [record("2018-01-01", 0.1)])
    scorer.now = at("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", 0.0, **{"return": -0.02})])
    scorer.to("2018-01-04")
    profit = scorer.rows()[0]["profit"]
    assert float(profit["champion"]) == pytest.approx(-210.0)
    assert profit["challenger"] == "0.0"
    scorer.restart()
    assert scorer.memory.ledgers["x"].books["champion"].drawdown == pytest.approx(210.0)


def test_an_account_is_marked_before_its_session_is_closed(scorer: Scorer) -> None:
    """A breaker on the drawdown does not wait for the grace."""
    terms = {"notional": "10000", "costBps": "0"}
    scorer.put("x", live(label={"kind": "Direction", "horizon": 1}, paper=terms, graceSeconds=30 * 86400))
    scorer.records("champion", [record("2018-01-01", 0.9), record("2018-01-02", 0.9)])
    scorer.now = at("2018-01-04")
    ledger = scorer.memory.ledgers["x"]
    assert mark(scorer.memory, ledger)["champion"].drawdown == 0.0
    scorer.outcomes([outcome("2018-01-02", 0.0, **{"return": -0.02})])
    assert mark(scorer.memory, ledger)["champion"].drawdown == pytest.approx(200.0)
    scorer.outcomes([outcome("2018-01-03", 0.0, **{"return": -0.01})])
    marked = mark(scorer.memory, ledger)["champion"]
    assert marked.drawdown == pytest.approx(300.0)
    assert (ledger.books["champion"].sessions, scorer.rows()) == (0, [])
    scorer.to("2018-02-03")
    assert mark(scorer.memory, ledger)["champion"] == ledger.books["champion"] == marked


def test_a_definition_is_immutable_and_the_same_again_is_nothing_new(scorer: Scorer) -> None:
    scorer.put("x", live())
    assert scorer.put("x", live())["length"] == 0
    with pytest.raises(Refused, match="immutable") as refused:
        scorer.put("x", live(graceSeconds=0))
    assert refused.value.status == 409
    with pytest.raises(Refused, match="expected a session of XNYS, as 2018-01-05"):
        scorer.put("y", live(calendar="XNYS", firstSession="2018-01-07"))
    with pytest.raises(Refused, match="covers"):
        scorer.put("y", live(calendar="XNYS", firstSession="1990-01-02"))
    with pytest.raises(Refused, match="knows 24/7, XNYS"):
        scorer.put("y", live(calendar="XLON"))


def test_an_ended_ledger_takes_no_later_session(scorer: Scorer) -> None:
    scorer.put("x", live())
    for day in ("2018-01-01", "2018-01-02", "2018-01-03"):
        scorer.records("champion", [record(day, -4.0)])
    scorer.end("x", "2018-01-02")
    assert scorer.end("x", "2018-01-02")["length"] == 0
    scorer.records("champion", [record("2018-01-04", -4.0)])
    scorer.restart()
    scorer.to("2018-01-20")
    assert [row["session"] for row in scorer.rows()] == ["2018-01-01", "2018-01-02"]
    with pytest.raises(Refused, match="was ended with 2018-01-02"):
        scorer.end("x", "2018-01-03")
    scorer.put("y", live(firstSession="2018-01-03"))
    scorer.to("2018-01-21")
    with pytest.raises(Refused, match="holds rows up to 2018-01-04"):
        scorer.end("y", "2018-01-03")
    with pytest.raises(Refused, match="no ledger z"):
        scorer.end("z", "2018-01-03")


def test_a_ledger_that_begins_later_uses_what_came_in_time(scorer: Scorer) -> None:
    for day in ("2018-01-01", "2018-01-02"):
        scorer.records("champion", [record(day, -4.0)])
        scorer.records("challenger", [record(day, -4.0)])
    scorer.now = at("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", -4.0), outcome("2018-01-03", -4.0)])
    scorer.now = at("2018-02-01")
    scorer.put("x", live(firstSession="2018-01-02"))
    assert [(row["session"], row["entities"]) for row in scorer.rows()] == [("2018-01-02", 1)]


ROW = {"session": "2017-01-03", "entities": 2, "sum": "0.5", "sumSquares": "0.25"}


def test_a_prequential_ledger_comes_once(scorer: Scorer) -> None:
    document = prequential([ROW, {**ROW, "session": "2017-01-04", "missing": {"champion": 0, "challenger": 1}}])
    first = scorer.put("p", document)
    assert first["length"] == 2
    scorer.restart()
    assert scorer.put("p", document) == first
    with pytest.raises(Refused, match="immutable"):
        scorer.put("p", prequential([ROW]))
    with pytest.raises(Refused, match="immutable"):
        scorer.put("p", live())
    assert scorer.rows("p")[1]["missing"] == {"champion": 0, "challenger": 1}
    with pytest.raises(Refused, match="came complete"):
        scorer.end("p", "2017-01-04")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sum": "0.50"}, r"rows\[0\].sum is '0.50'; expected the shortest decimal"),
        ({"sum": 0.5}, "shortest decimal"),
        ({"sum": "nan"}, "shortest decimal"),
        ({"sum": "3.0"}, "sumSquares is '0.25'; expected at least"),
        ({"sumSquares": "-0.25"}, "expected at least"),
        ({"session": "2017-02-30"}, "a date such as"),
        ({"entities": -1}, "an integer from 0"),
        ({"extra": 1}, r"rows\[0\] has the unknown extra"),
        ({"missing": {"champion": 1}}, "lacks challenger"),
    ],
)
def test_a_row_that_cannot_be_is_refused(scorer: Scorer, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        scorer.put("p", prequential([{**ROW, **changes}]))
    assert scorer.memory.ledgers == {}


def test_sessions_out_of_order_and_wrong_digests_are_refused(scorer: Scorer) -> None:
    with pytest.raises(Refused, match="expected a day after 2017-01-03"):
        scorer.put("p", prequential([ROW, ROW]))
    with pytest.raises(Refused, match="expected an object that says whose"):
        scorer.put("p", prequential([ROW], provenance="me"))
    with pytest.raises(Refused, match=r"expected sha256:.*canonical document without it"):
        scorer.put("p", {**prequential([ROW]), "digest": "sha256:" + "0" * 64})


def test_a_version_cannot_change_its_bins(scorer: Scorer) -> None:
    scorer.records("champion", [record("2018-01-01", -4.0)])
    with pytest.raises(Refused, match="differ from those of its first batch") as refused:
        scorer.records("champion", [record("2018-01-02", -4.0)], reference="cd" * 32)
    assert refused.value.reason == "ReferenceChanged"
    assert results(scorer) == {"first": 1}


def test_what_is_old_goes_and_its_copies_are_expired(scorer: Scorer) -> None:
    scorer.put("x", live())
    scorer.records("champion", [record("2018-01-01", -4.0)])
    scorer.outcomes([outcome("2018-01-01", -4.0)])
    scorer.to("2018-03-01")
    scorer.records("champion", [record("2018-03-01", -4.0)])
    with scorer.memory.transaction():
        clean(scorer.memory, scorer.now, 30 * DAY)
    scorer.restart()
    assert scorer.memory.db.execute("SELECT time FROM predictions") == [("2018-03-01",)]
    assert scorer.memory.db.execute("SELECT * FROM outcomes") == []
    scorer.records("champion", [record("2018-01-01", -4.0)])
    assert results(scorer) == {"first": 2, "expired": 1}
    assert len(scorer.rows()) == 1


@pytest.mark.parametrize("pairing", ["EntityTime", "RequestId"])
def test_what_an_open_session_needs_stays(scorer: Scorer, pairing: str) -> None:
    scorer.put("x", live(graceSeconds=60 * 86400, pairing=pairing))
    scorer.records("champion", [record("2018-01-01", -4.0, requestId="r")])
    scorer.records("challenger", [record("2018-01-01", -4.0, requestId="r")])
    scorer.now = at("2018-01-03")
    item = outcome("2018-01-02", -4.0) if pairing == "EntityTime" else {"requestId": "r", "value": -4.0}
    assert scorer.outcomes([item])["accepted"] == 1
    scorer.to("2018-02-15")
    with scorer.memory.transaction():
        clean(scorer.memory, scorer.now, 30 * DAY)
    scorer.to("2018-03-05")
    assert [row["entities"] for row in scorer.rows()] == [1]
    with scorer.memory.transaction():
        clean(scorer.memory, at("2018-05-01"), 30 * DAY)
    assert scorer.memory.db.execute("SELECT * FROM outcomes") == []


def test_rows_cannot_be_changed_or_removed(scorer: Scorer) -> None:
    scorer.put("p", prequential([ROW]))
    for statement in ("UPDATE entries SET digest = 'x'", "DELETE FROM entries", "DELETE FROM ledgers",
                      "UPDATE ledgers SET digest = 'x'"):  # fmt: skip
        with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match="immutable"):
            scorer.memory.db.execute(statement)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        ("UPDATE entries SET document = replace(document, '\"sum\":\"0.5\"', '\"sum\":\"9.5\"') WHERE sequence = 0",
         "its content hashes to"),
        ("DELETE FROM entries WHERE sequence = 0", "row 0 is missing"),
        ("DELETE FROM entries WHERE sequence = 1", "1 rows end in"),
    ],
)  # fmt: skip
def test_a_store_that_somebody_edited_is_found_at_the_start(scorer: Scorer, tamper: str, said: str) -> None:
    scorer.put("p", prequential([ROW, {**ROW, "session": "2017-01-04"}]))
    scorer.put("q", prequential([ROW]))
    for trigger in ("entries_fixed", "entries_kept"):
        on = " ON entries" if isinstance(scorer.memory.db, Postgresql) else ""
        scorer.memory.db.execute(f"DROP TRIGGER {trigger}{on}")
    scorer.memory.db.execute(tamper)
    scorer.restart()
    assert said in str(scorer.memory.ledgers["p"].broken)
    assert (scorer.memory.ledgers["q"].broken is None) == ("sequence = 0" not in tamper and "sequence = 1" in tamper)


def test_a_ledger_that_cannot_go_on_stops_no_other(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("w", "x", "y"):
        scorer.put(name, live())
    scorer.records("champion", [record("2018-01-01", -4.0)])
    original = closing.close

    def failing(memory: Any, ledger: Any, session: str) -> None:
        original(memory, ledger, session)
        if ledger.name == "x":
            raise ZeroDivisionError("of the test")

    monkeypatch.setattr(closing, "close", failing)
    scorer.to("2018-01-04")
    assert [len(scorer.rows(name)) for name in ("w", "x", "y")] == [1, 0, 1]
    assert scorer.memory.ledgers["x"].broken == "a session cannot be closed: ZeroDivisionError: of the test"
    scorer.records("champion", [record("2018-01-02", -4.0)])
    monkeypatch.undo()
    scorer.restart()
    scorer.to("2018-01-09")
    assert [len(scorer.rows(name)) for name in ("w", "x", "y")] == [2, 2, 2]


def test_one_writer_and_one_namespace(scorer: Scorer) -> None:
    with pytest.raises(Busy, match="another scorer holds"):
        Scorer(scorer.store)
    scorer.memory.db.execute("UPDATE meta SET value = 'other' WHERE key = 'namespace'")
    with pytest.raises(WrongStore, match="namespace is 'other'; this scorer's is 'quant'"):
        scorer.restart()


def test_the_chain_is_checked_from_the_definition(scorer: Scorer) -> None:
    scorer.put("p", prequential([ROW]))
    ledger, rows = scorer.memory.ledgers["p"], list(scorer.memory.rows("p"))
    assert broken(ledger.definition.digest, rows, 1, ledger.head) is None
    assert "follows" in str(broken("sha256:" + "0" * 64, rows, 1, ledger.head))
