"""The ledger of a version that serves, beside the one before it where there is one."""

from __future__ import annotations

from typing import Any

import pytest

from fiduciary_outcomes.cleaning import clean
from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.metrics import watched
from fiduciary_outcomes.realised import realised
from fiduciary_outcomes.session import Outcome, Prediction
from tests.outcomes.worlds import DAY, Scorer, at, live, outcome, record


def watch(**changes: Any) -> dict[str, Any]:
    return live(kind="Watch", **changes)


def test_a_version_alone_is_scored_on_all_that_it_predicted(scorer: Scorer) -> None:
    scorer.put("x", watch(challenger=None))
    scorer.records("champion", [record("2018-01-01", -4.0, "A"), record("2018-01-01", -4.4, "B")])
    scorer.to("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", -4.5, name) for name in ("A", "B", "C")])
    assert scorer.to("2018-01-04") == 1
    (row,) = scorer.rows()
    own = row["own"]
    assert set(own) == {"champion"}
    assert (own["champion"]["entities"], float(own["champion"]["loss"])) == (2, pytest.approx(0.25 + 0.01))
    assert (row["entities"], row["missing"], row["unpredicted"]) == (0, {"champion": 0, "challenger": 0}, 1)
    assert row["dropped"] == {"champion": 0, "challenger": 0}


def test_both_versions_are_paired_and_each_is_scored_by_itself(scorer: Scorer) -> None:
    scorer.put("x", watch())
    scorer.records("champion", [record("2018-01-01", -4.0, "A"), record("2018-01-01", -4.4, "B")])
    scorer.records("challenger", [record("2018-01-01", -4.5, "A")])
    scorer.to("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", -4.5, name) for name in ("A", "B")])
    scorer.to("2018-01-04")
    (row,) = scorer.rows()
    assert (row["entities"], row["sum"], row["missing"]["challenger"]) == (1, "0.25", 1)
    assert {arm: its["entities"] for arm, its in row["own"].items()} == {"champion": 2, "challenger": 1}
    scorer.restart()
    units, loss = watched(scorer.memory)
    assert [(one.labels["version"], one.value) for one in units.samples] == [("7", 2.0), ("8", 1.0)]
    assert [one.value for one in loss.samples] == pytest.approx([0.26, 0.0])


def test_a_watched_direction_is_traded_on_paper_after_costs(scorer: Scorer) -> None:
    label = {"kind": "Direction", "horizon": 1}
    paper = {"notional": "1000", "costBps": "10"}
    scorer.put("x", watch(challenger=None, label=label, paper=paper))
    scorer.records("champion", [record("2018-01-01", 0.7)])
    scorer.to("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", 1.0, **{"return": 0.02})])
    scorer.to("2018-01-04")
    (row,) = scorer.rows()
    assert float(row["profit"]["champion"]) == pytest.approx(20.0 - 1.0), "2 % of 1000, less 10 bp of what was bought"
    assert row["profit"]["challenger"] == "0.0"
    assert row["own"]["champion"]["calibration"] == [[7, 1, "0.7", 1]]


def test_a_watch_that_begins_late_finds_what_was_predicted_and_known_before(scorer: Scorer) -> None:
    scorer.records("champion", [record(f"2018-01-0{day}", -4.0) for day in range(1, 5)])
    scorer.now = at("2018-01-06")
    scorer.outcomes([outcome(f"2018-01-0{day}", -4.5) for day in range(2, 6)])
    scorer.put("x", watch(challenger=None, firstSession="2018-01-02"))
    scorer.to("2018-01-10")
    assert [row["session"] for row in scorer.rows()] == ["2018-01-02", "2018-01-03", "2018-01-04"]
    scorer.restart()
    assert scorer.memory.ledgers["x"].broken is None


def test_an_experiment_needs_both_versions(scorer: Scorer) -> None:
    with pytest.raises(Refused, match="challenger"):
        scorer.put("x", live(challenger=None))


def test_probabilities_are_counted_by_bins_of_equal_width() -> None:
    predicted = [0.1, 0.1, 0.9, 1.0, 1.7]
    found = realised(
        "Direction",
        {(str(k), "e", ""): Prediction(p, 1) for k, p in enumerate(predicted)},
        {(str(k), "e", ""): Outcome(y, None, 2 if k < 4 else 1) for k, y in enumerate([0.0, 1.0, 1.0, 1.0, 1.0])},
    )
    assert found["calibration"] == [[1, 2, "0.2", 1], [9, 2, "1.9", 2]], "the last one came after its outcome"
    assert float(found["loss"]) == pytest.approx(0.01 + 0.81 + 0.01)


def test_a_watched_panel_of_returns_is_ranked() -> None:
    units = {(str(k), "e", ""): Prediction(float(k), 1) for k in range(6)}
    outcomes = {unit: Outcome(its.value, None, 2) for unit, its in units.items()}
    found = realised("Return", units, outcomes)
    assert (found["entities"], float(found["loss"]) / 6) == (6, pytest.approx(-1.0))
    assert realised("Return", dict(list(units.items())[:4]), outcomes) == {"entities": 0, "loss": "0.0"}


def test_what_was_revised_is_kept_with_the_time_at_which_it_came_and_changes_nothing(scorer: Scorer) -> None:
    scorer.put("x", watch(challenger=None))
    scorer.records("champion", [record("2018-01-01", -4.0)])
    scorer.to("2018-01-03")
    scorer.outcomes([outcome("2018-01-02", -4.5)])
    for clock, value in (("01:00:00", -4.6), ("02:00:00", -4.6), ("03:00:00", -4.7)):
        scorer.to("2018-01-03", clock)
        assert scorer.outcomes([outcome("2018-01-02", value)])["revised"] == 1
    scorer.to("2018-01-04")
    (row,) = scorer.rows()
    assert row["own"]["champion"]["loss"] == "0.25", "the first value counts"
    kept = scorer.memory.db.execute("SELECT value, arrived_at FROM revisions ORDER BY arrived")
    assert [tuple(one) for one in kept] == [(-4.6, at("2018-01-03", "01:00:00")), (-4.7, at("2018-01-03", "03:00:00"))]
    scorer.now += 401 * DAY
    with scorer.memory.transaction():
        clean(scorer.memory, scorer.now, 400 * DAY)
    assert scorer.memory.db.execute("SELECT COUNT(*) FROM revisions")[0][0] == 0
