"""Reports are drawn from measured numbers for each label kind, and say what is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fiduciary_trainer.measure import Metric, Rows, measure
from fiduciary_trainer.measure.measurement import SKILLS

pytest.importorskip("matplotlib", reason="runs in the trainer image")
from matplotlib import pyplot as plt

from fiduciary_trainer.report import Report, page, path_plots, style, write_report
from fiduciary_trainer.report.card import readable
from fiduciary_trainer.report.validation_plots import market_regimes
from fiduciary_trainer.validation import calibration, comparison, results, track_record

if TYPE_CHECKING:
    from pathlib import Path


def job(kind: str) -> dict[str, Any]:
    return {
        "model": {"namespace": "quant", "name": f"spx-{kind.lower()}"},
        "trainingKey": "sha256:aa", "configKey": "sha256:bb", "asOf": "2017-12-29",
        "data": {"source": {"files": {"uri": "s3://desk/spx.csv", "secretRef": {"name": "desk-s3"}}},
                 "features": {"set": "ohlcv-v1"}, "label": {"kind": kind, "column": "close", "horizon": 1}},
        "training": {"architecture": "LSTM", "hyperparameters": {}, "seed": 7, "validation": {
            "scheme": "WalkForward", "folds": 6, "purge": 1, "embargo": 66, "costBps": "2"}},
        "provenance": {"image": "fiduciary-trainer:test"},
    }  # fmt: skip


def rows(kind: str, days: int = 3100, entities: int = 1) -> Rows:
    rng = np.random.default_rng(7)
    count = days * entities
    calendar = np.busday_offset("2005-08-30", np.arange(days + 1), roll="forward").astype("datetime64[ns]")
    level = np.repeat(np.log(0.008) + np.cumsum(rng.normal(size=days)) * 0.02, entities)
    returns = np.exp(level) * rng.normal(0.03, 1.0, size=count)
    if kind == "Volatility":
        y = level + 0.35 * rng.normal(size=count)
        prediction = level + 0.12 * rng.normal(size=count)
        baselines = {name: level + 0.18 * rng.normal(size=count) for name in SKILLS["Volatility"]}
    elif kind == "Direction":
        y = (returns > 0).astype(float)
        prediction = np.clip(0.535 + 0.03 * rng.normal(size=count), 0, 1)
        baselines = {"base_rate": np.full(count, 0.53), "persistence": np.full(count, 0.52), "ols": prediction + 0.005}
    else:
        y, prediction = returns, 0.1 * returns + 0.01 * rng.normal(size=count)
        baselines = {name: np.full(count, 1e-4) for name in SKILLS["Return"]}
    return Rows(
        dates=np.repeat(calendar[:-1], entities), label_end=np.repeat(calendar[1:], entities),
        entity=np.tile([f"S{number}" for number in range(entities)], days),
        fold=np.repeat(np.arange(days) * 6 // days, entities), y=y, prediction=prediction, baselines=baselines,
        returns=returns,
    )  # fmt: skip


def history() -> list[list[dict[str, float | bool]]]:
    rng = np.random.default_rng(8)
    folds = []
    for _ in range(6):
        points = []
        for member in range(2):
            inner = 0.69 + 0.02 * np.exp(-np.arange(25) / 4) + 0.0006 * np.arange(25) + 0.001 * rng.normal(size=25)
            best = int(np.argmin(inner))
            points += [{"member": member, "epoch": epoch + 1, "train_loss": 0.70 - 0.002 * epoch,
                        "inner_loss": float(inner[epoch]), "best": epoch == best} for epoch in range(25)]  # fmt: skip
        folds.append(points)
    return folds


def report(kind: str, given: Rows, **more: Any) -> Report:
    return Report(
        job=job(kind),
        rows=given,
        measurement=measure(given, kind, horizon=1, cost_bps=2.0),
        checks={"prediction_sd_ratio": 0.82, "leakage_feature": "range", "train_rows_min": 980},
        unavailable=more.pop("unavailable", {}),
        history=more.pop("history", []),
        facts={"digest": "sha256:cc", "dataDigest": "sha256:dd", "rows": 4778, "dataFrom": "1999-01-04",
               "dataThrough": "2017-12-29", "seconds": 31.2,
               "code": {"sha256": "ee", "python": "3.13.5", "torch": "2.6.0", "numpy": "2.2.4"}},
        counts={"rows_read": 4778, "rows_used": 4711, "dropped_lookback": 66, "dropped_no_label": 1},
        chosen=[{"alpha": 0.15}] * 6,
        leakage_scores={"range": 0.2, "rv_d": 0.1},
        validation=validation(kind, given),
    )  # fmt: skip


def validation(kind: str, given: Rows) -> dict[str, Any]:
    """As the trainer writes it, but for the fits behind paths and importance."""
    if not np.all(np.isfinite(given.prediction)):
        return {}
    skill = f"{SKILLS[kind][0]}_skill"
    found: dict[str, Any] = {
        "comparison": comparison.compare(given, 7),
        "byYear": results.by_year(given),
        "importance": {"range": {"share": 0.2, "sd": 0.05}, "rv_d": {"share": -0.01, "sd": 0.02}},
        "combinatorial": {"splits": 15, "paths": 5, "note": "n", "metrics": {
            skill: {"mean": 0.02, "sd": 0.01, "min": 0.0, "max": 0.03, "values": [0.0, 0.01, 0.02, 0.03, 0.03]}}},
        "intervals": {"ece": {"low": 0.01, "high": 0.03, "replications": 1000, "block": 20}},
        "r2OutOfSample": {"e": 0.1, "se": 0.02, "n": 3100},
        "overfitting": {"probability": 0.31, "trials": 20, "choices": 12870},
    }  # fmt: skip
    if kind == "Direction":
        found["calibration"] = calibration.summary(given)
    if kind != "Volatility":
        net = given.daily(given.returns)
        found["trackRecord"] = track_record.record(net, net)
    return found


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("Volatility", "cumulative_advantage.png"),
        ("Direction", "profit_and_loss.png"),
        ("Return", "profit_and_loss.png"),
    ],
)
def test_each_label_kind_has_its_plots(tmp_path: Path, kind: str, own: str) -> None:
    files = write_report(tmp_path, report(kind, rows(kind), history=history()))
    assert set(files) == {"skill_by_fold.png", "predicted_against_realised.png", "calibration.png", own, "regimes.png",
                          "residuals.png", "learning_curves.png", "skill_by_year.png", "importance.png", "paths.png",
                          "model-card.md", "report.html"}  # fmt: skip
    for name in files[:-2]:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert 10_000 < (tmp_path / name).stat().st_size < 400_000


def test_equal_reports_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, report("Direction", rows("Direction", 400)))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_model_without_epochs_has_no_learning_curves(tmp_path: Path) -> None:
    assert "learning_curves.png" not in write_report(tmp_path, report("Volatility", rows("Volatility", 600)))


def test_the_card_says_what_was_not_measured_and_hides_secrets(tmp_path: Path) -> None:
    write_report(tmp_path, report("Return", rows("Return", 400), unavailable={"onnx_max_diff": "not exported"}))
    card = (tmp_path / "model-card.md").read_text()
    assert "`rank_ic`: 1 entities; ranking a date needs at least 5." in card
    assert "`onnx_max_diff`: not exported." in card
    assert "desk-s3" not in card
    assert "sha256:dd" in card


def test_a_panel_warns_of_survivorship(tmp_path: Path) -> None:
    write_report(tmp_path, report("Return", rows("Return", 300, entities=6)))
    assert "survivorship" in (tmp_path / "model-card.md").read_text()


def test_predictions_that_are_not_finite_give_a_card_without_plots(tmp_path: Path) -> None:
    given = rows("Volatility", 300)
    given.prediction[5] = np.nan
    assert write_report(tmp_path, report("Volatility", given)) == ["model-card.md", "report.html"]
    assert "Nothing could be measured" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("kind", ["Volatility", "Direction", "Return"])
def test_the_page_needs_nothing_but_itself(tmp_path: Path, kind: str) -> None:
    files = write_report(tmp_path, report(kind, rows(kind), history=history()))
    text = (tmp_path / "report.html").read_text()
    assert text.count("data:image/png;base64,") == len(files) - 2, "every plot, each once"
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    assert all(source.startswith(("data:image/png", "#")) for source in sources), "nothing is loaded"
    assert "default-src 'none'" in text
    anchors = set(re.findall(r'<h2 id="([^"]+)"', text))
    assert anchors == set(re.findall(r'href="#([^"]+)"', text))
    assert {"in-short", "out-of-sample-numbers", "plots", "validation", "limits", "not-measured", "identity"} <= anchors
    assert "confidence set" in text
    # A single series has no ranks; everything else is there.
    assert text.count("unavailable") == (1 if kind == "Return" else 0)


def test_words_of_other_people_are_text_on_the_page() -> None:
    made = page.page("# <script>alert(1)</script>\n\n[x](javascript:alert(1))\n", {}, "</title><script>").decode()
    assert "<script>" not in made
    assert 'href="javascript' not in made


def test_the_first_paragraph_says_what_a_reader_would_ask(tmp_path: Path) -> None:
    write_report(tmp_path, report("Direction", rows("Direction")))
    card = (tmp_path / "model-card.md").read_text()
    short = card.split("## In short")[1].split("##")[0]
    assert "Measured out of sample on 3,100 days" in short
    assert "than that of the base rate (95% interval: " in short
    assert "always saying up would have been right on" in short
    assert "Sharpe ratio of" in short
    assert "largest drawdown was" in short


def test_regimes_are_known_before_the_day() -> None:
    """The group of a day may not depend on what that day, or a later one, brought."""
    given = rows("Direction", 1200)
    before = market_regimes(given)
    changed = replace(given, returns=np.where(np.arange(1200) >= 900, 0.2, given.returns))
    after = dict(market_regimes(changed))
    for label, days in before:
        if label in ("near its high", "10% below its high"):
            assert np.array_equal(days[:901], after[label][:901])


def test_a_perfect_forecast_can_be_drawn(tmp_path: Path) -> None:
    """Leaks make one, and its report must still be readable: every tenth came true always or never."""
    given = rows("Direction", 300)
    given.prediction[:] = 0.01 + 0.98 * given.y
    assert "calibration.png" in write_report(tmp_path, report("Direction", given))


def test_a_constant_forecast_can_be_drawn(tmp_path: Path) -> None:
    given = rows("Direction", 300)
    given.prediction[:] = 0.9
    assert "calibration.png" in write_report(tmp_path, report("Direction", given))


@pytest.mark.parametrize("inches", [7.2, 9.2, 11.0])
def test_a_subtitle_stays_inside_its_figure(inches: float) -> None:
    """The longest line that was seen to be cut, at each width."""
    said = "quant/spx-volatility (Linear): geometric mean of what was realised, with 95% intervals (days taken as " * 3
    drawn, _ = style.figure("Title", said, size=(inches, 4.0))
    box = drawn.texts[1].get_window_extent()
    plt.close(drawn)
    assert box.x1 <= drawn.bbox.x1


def test_the_ends_of_two_equal_curves_are_named_apart() -> None:
    given = rows("Direction")
    given.prediction[:] = 0.6  # always long: the model is buy-and-hold
    drawn = path_plots.profit(given, "Direction", "quant/spx", 0.0, 1)
    names = [text for text in drawn.axes[0].texts if text.get_text().startswith(("model", "buy"))]
    one, two = (text.get_window_extent() for text in names)
    plt.close(drawn)
    assert not one.overlaps(two)


def test_letters_have_one_size_in_all_plots_of_the_page(tmp_path: Path) -> None:
    """A plot is shown as wide as it was drawn, none stretched to the width of the page."""
    files = write_report(tmp_path, report("Volatility", rows("Volatility")))
    text = (tmp_path / "report.html").read_text()
    widths = [int(found) for found in re.findall(r'<img[^>]*width="(\d+)"', text)]
    assert len(widths) == len(files) - 2
    assert {691, 883} <= set(widths), "7.2 and 9.2 inches of 96 pixels"


def test_numbers_of_a_row_are_read_beside_each_other(tmp_path: Path) -> None:
    """A profit of a few basis points a day is no 3.4e-04, and -6.73e-07 of a fold is nothing beside it."""
    write_report(tmp_path, report("Direction", rows("Direction")))
    table = (tmp_path / "model-card.md").read_text().split("## Out-of-sample numbers")[1].split("\n## ")[0]
    assert not re.search(r"\d(?:\.\d+)?e[-+]\d", table)
    assert "-0.0000 " not in table
    metric = Metric(0.0003391, se=0.00013, folds=(5.12e-05, -6.73e-07, None), n=3142)
    assert readable(metric) == ("0.0003391", "[0.0000843, 0.0005939]", "0.000051 -0.000001 -")
    assert readable(Metric(3081.4)) == ("3,081", "", "")
    assert readable(Metric(0.0, folds=(0.0, -0.0))) == ("0.000", "", "0.00 0.00")
    assert readable(Metric(None)) == ("unavailable", "", "")
