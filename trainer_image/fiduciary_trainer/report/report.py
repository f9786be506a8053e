"""The report folder of one training: PNG plots, ``model-card.md``, and both as one ``report.html``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

from fiduciary_trainer.measure.measurement import SKILLS, LabelKind
from fiduciary_trainer.report import forecast_plots, path_plots, quantile_plots, style, validation_plots
from fiduciary_trainer.report.card import model_card
from fiduciary_trainer.report.page import page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from fiduciary_trainer.measure import Measurement, Rows


@dataclass(frozen=True)
class Report:
    """What a report is drawn from.

    Attributes:
        job: the job document as the operator wrote it.
        rows: out-of-sample rows.
        measurement: their metrics.
        checks: leakage, probe and row checks.
        unavailable: name and reason of each check that could not be computed.
        history: epochs of each fold, empty for models without.
        facts: ``digest``, ``dataDigest``, ``rows``, ``dataFrom``, ``dataThrough``, ``code``, ``seconds``.
        counts: rows read, used and left out, by reason.
        chosen: what was tuned in each fold.
        leakage_scores: score of each feature.
        validation: ``validation/results.json``.
    """

    job: Mapping[str, Any]
    rows: Rows
    measurement: Measurement
    checks: Mapping[str, Any]
    unavailable: Mapping[str, str]
    history: Sequence[Sequence[Mapping[str, float | bool]]]
    facts: Mapping[str, Any]
    counts: Mapping[str, int]
    chosen: Sequence[Mapping[str, Any]]
    leakage_scores: Mapping[str, float]
    validation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> LabelKind:
        return self.job["data"]["label"]["kind"]

    @property
    def title(self) -> str:
        model = self.job["model"]
        return f"{model['namespace']}/{model['name']} ({self.job['training']['architecture']})"


def write_report(folder: Path, report: Report) -> list[str]:
    """Draw every plot that the label kind has and write the card.

    Args:
        folder: is created.
        report: measured numbers.

    Returns:
        Names of the files, plots in the order of the card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[str] = []
    with mpl.rc_context(style.STYLE):
        for name, drawn in _figures(report).items():
            if drawn is None:
                continue
            style.save(drawn, folder / name)
            files.append(name)
    card = model_card(report, files)
    (folder / "model-card.md").write_text(card, encoding="utf-8")
    plots = {name: (folder / name).read_bytes() for name in files}
    (folder / "report.html").write_bytes(page(card, plots, report.title))
    return [*files, "model-card.md", "report.html"]


def _figures(report: Report) -> dict[str, Figure | None]:
    rows, kind, title = report.rows, report.kind, report.title
    if not np.all(np.isfinite(rows.prediction)) or len(rows.days) < 2:
        return {}  # nothing was measured, and the card says why
    loss = "log loss" if kind == "Direction" else "squared error"
    figures: dict[str, Figure | None] = {
        "skill_by_fold.png": path_plots.skill_by_fold(rows, kind, title),
        "predicted_against_realised.png": forecast_plots.predicted_against_realised(rows, kind, title),
        "calibration.png": forecast_plots.calibration(rows, kind, title),
    }
    if kind == "Volatility":
        if path_plots.is_usable(rows, SKILLS[kind][0]):
            figures["cumulative_advantage.png"] = path_plots.advantage(rows, kind, title)
    elif np.all(np.isfinite(rows.returns)):
        cost = float(report.job["training"]["validation"]["costBps"])
        horizon = int(report.job["data"]["label"]["horizon"])
        figures["profit_and_loss.png"] = path_plots.profit(rows, kind, title, cost, horizon)
    validation = report.validation
    walk_forward = {each: metric.estimate for each, metric in report.measurement.metrics.items()}
    figures["skill_by_year.png"] = validation_plots.skill_by_year(validation.get("byYear", {}), kind, title)
    figures["regimes.png"] = validation_plots.regimes(rows, kind, title)
    figures["paths.png"] = validation_plots.paths(validation.get("combinatorial", {}), walk_forward, title)
    figures["importance.png"] = validation_plots.importance(validation.get("importance", {}), title)
    figures["residuals.png"] = validation_plots.residuals(rows, kind, title)
    if rows.quantiles is not None:
        found = validation["quantiles"]
        figures["quantile_coverage.png"] = quantile_plots.coverage(found, title)
        figures["intervals.png"] = quantile_plots.last_sessions(rows, rows.quantiles, kind, title)
    figures["learning_curves.png"] = path_plots.learning_curves(report.history, loss, title)
    return figures
