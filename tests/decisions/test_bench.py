"""The benchmark itself, small: our levels hold with room for chance, and what it publishes is complete."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import binom

from bench.decisions import market, plots, report, sessions
from bench.decisions.cells import ALL, Cell
from bench.decisions.experiments import RULES, Piece, pieces
from bench.decisions.outcome import Outcomes
from bench.decisions.score import Row
from bench.decisions.sweep import Point, front, point

SIZE = 150
LEVEL = 0.05
SMOKE = (
    "errors_2pct",
    "errors_5pct",
    "errors_all",
    "outage_5pct",
    "dark",
    "eaten",
    "rpm_3000",
    "t3",
    "hides",
    "pnl_bound",
)


def cell(name: str) -> Cell:
    return next(cell for cell in ALL if cell.name == name)


def played(name: str, rule: str = "fiduciary", size: int = SIZE) -> Row:
    return Row.of(cell(name), "requests", rule, Piece(cell(name), (rule,), 0, size).run()[rule])


@pytest.mark.parametrize("name", SMOKE)
def test_wrong_decisions_stay_at_their_level(name: str) -> None:
    """A rule with P(wrong) = α fails here with probability below 1e-6."""
    row = played(name)
    assert row.claimed
    assert row.wrong is not None
    assert round(row.wrong * SIZE) <= binom.isf(1e-6, SIZE, LEVEL)


def test_five_percent_errors_are_rolled_back_in_three_minutes() -> None:
    """The median of 150 is above 3 minutes with probability below 1e-6 if four fifths are rolled back by then."""
    row = played("errors_5pct")
    assert row.rolled_back == 1.0
    assert row.median <= 3.0


def test_a_good_challenger_is_promoted() -> None:
    row = played("rpm_3000")
    assert round(row.promoted * SIZE) >= binom.ppf(1e-6, SIZE, 0.98)


def test_same_seed_same_outcome() -> None:
    one, other = (Piece(cell("errors_2pct"), ("fiduciary",), 3, 40).run()["fiduciary"] for _ in range(2))
    np.testing.assert_array_equal(one.minutes, other.minutes)
    np.testing.assert_array_equal(one.excess_bad, other.excess_bad)


def test_pieces_are_all_replications_of_all_rules() -> None:
    made = pieces(cell("equal"), 12_000)
    assert {rule for piece in made for rule in piece.rules} == set(RULES)
    assert sum(piece.size * len(piece.rules) for piece in made) == 12_000 * len(RULES)
    assert [(piece.size, piece.rules) for piece in pieces(cell("sp500_real"), 100)] == [(1, RULES)]


def test_names_of_cells_are_unique_and_every_unclaimed_one_says_why() -> None:
    assert len({cell.name for cell in ALL}) == len(ALL)
    assert all(len(cell.unclaimed) > 20 for cell in ALL if cell.unclaimed)


def row(rule: str, name: str, promoted: float, rolled_back: float) -> Row:
    n = 1000
    verdict = np.zeros(n, dtype=np.int8)
    verdict[: round(n * promoted)] = 1
    verdict[round(n * promoted) : round(n * (promoted + rolled_back))] = 2
    return Row.of(cell(name), "requests", rule, Outcomes(verdict, np.full(n, 4.0), np.zeros(n)))


def test_figures_have_the_names_of_the_issue() -> None:
    rows = [
        row(rule, name, 0.02, 0.01) for rule in RULES for name in ("equal", "errors_2pct", "errors_5pct", "regimes_0.2")
    ]
    figures = report.figures(rows, 1.0)
    named = {
        "max_null_false_promotion", "max_null_false_rollback", "replications", "worst_unclaimed_cell",
        "rollback_minutes_median_5pct", "rollback_minutes_median_5pct_flagger", "p_promote_bad_2pct", "seconds",
    }  # fmt: skip
    assert named <= set(figures)
    assert {f"p_promote_bad_2pct_{rule}" for rule in RULES[1:]} <= set(figures)
    assert figures["max_null_false_promotion"] == 0.02
    assert figures["max_null_false_rollback"] == 0.01
    assert figures["worst_unclaimed_cell"] == 0.02


def test_cells_above_their_level_are_named() -> None:
    assert [
        r.cell for r in report.over_level([row("fiduciary", "equal", 0.0, 0.2), row("flagger", "equal", 0.0, 0.9)])
    ] == ["equal"]
    assert not report.over_level([row("fiduciary", "equal", 0.0, 0.06), row("fiduciary", "regimes_0.2", 0.3, 0.0)])


def test_page_keeps_its_words_and_renews_its_tables() -> None:
    rows = [row(rule, "errors_5pct", 0.0, 1.0) for rule in RULES]
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    made = report.document(page, rows, [])
    assert made.startswith("before\n")
    assert made.endswith("\nafter\n")
    assert "old" not in made
    assert "5 % errors (10×)" in made
    with pytest.raises(SystemExit, match="decisions"):
        report.document("no marks", rows, [])


def test_pictures_are_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(plots, "FOLDER", tmp_path)
    rows = [row(rule, name, 0.01, 0.6) for rule in RULES for name in ("equal", "errors_2pct", "errors_5pct")]
    shares = {"equal": 0.9, "margin": 0.2, "1 %": 0.1, "2 %": 0.0}
    points = [Point(rule, "α 0.05", True, shares, 10.0, 100) for rule in RULES]
    made = plots.draw(rows, points)
    assert [path.stem for path in made] == ["decisions-wrong", "decisions-rollback", "decisions-fronts"]
    for path in made:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_a_front_has_no_setting_that_another_one_beats() -> None:
    points = [point(index, 30) for index in range(5, 11)]
    line = front(points, "2 %")
    assert line
    falls = [(1.0 - p.promoted["equal"], p.promoted["2 %"]) for p in line]
    assert falls == sorted(falls)
    assert [b for _, b in falls] == sorted((b for _, b in falls), reverse=True)


def test_market_of_made_prices() -> None:
    """Without the data file: the pipeline on a market whose volatility really persists."""
    rng = np.random.default_rng(4)
    n = 1500
    level = np.zeros(n)
    for k in range(1, n):
        level[k] = 0.95 * level[k - 1] + 0.3 * rng.standard_normal()
    day = 0.01 * np.exp(level)
    close = 100.0 * np.exp(np.cumsum(day * rng.standard_normal(n)))
    start = np.concatenate([[100.0], close[:-1]]) * np.exp(0.002 * rng.standard_normal(n))
    reach = np.exp(day * np.abs(rng.standard_normal((2, n))))
    prices = market.Prices(
        start, np.maximum(start, close) * reach[0], np.minimum(start, close) / reach[1], close, rng.lognormal(size=n)
    )
    walked = market.walk_forward(prices)
    har = float(((walked.outcome - walked.har) ** 2).mean())
    assert har < 0.8 * float(walked.outcome.var())
    values = market.differences(walked, walked.har, walked.linear)
    drawn = market.resampled(values, 200, rng)
    assert drawn.shape == (200, values.size)
    assert float(drawn.mean()) == pytest.approx(
        float(values.mean()), abs=5 * float(values.std()) / math.sqrt(200 * values.size / 63)
    )


def test_what_is_late_is_left_out_and_what_is_silent_is_scored() -> None:
    rng = np.random.default_rng(1)
    drawn = sessions.SessionWorld(sessions.student(), late=0.3, hides=1.0).play(rng, 3, 4000)
    late = np.isnan(drawn.differences) & ~drawn.unanswered
    assert float(late.mean()) == pytest.approx(0.3, abs=0.02)
    assert drawn.unanswered.any()
    assert float(np.nanmin(drawn.differences)) >= -1.0
