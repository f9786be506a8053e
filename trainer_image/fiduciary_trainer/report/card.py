"""``model-card.md``: what a risk officer reads. It states what was measured and what was not, nothing else."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from fiduciary_trainer.leakage import LIMIT
from fiduciary_trainer.measure.measurement import SKILLS
from fiduciary_trainer.report import quantile_card, summary, validation_card

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_trainer.measure import Metric
    from fiduciary_trainer.report.report import Report

EXPLAINED = {
    "ewma_skill": "1 - squared error / that of EWMA with a constant tuned on each training fold",
    "har_skill": "the same against HAR (Corsi 2009)",
    "ols_skill": "the same against least squares on the model's own features",
    "persistence_skill": "the same against the last known value",
    "base_rate_skill": "1 - Brier score / that of the training folds' base rate",
    "mean_skill": "1 - squared error / that of the training folds' mean (R² out of sample)",
    "mse": "mean squared error of log volatility",
    "qlike": "Patton (2011), on variances",
    "accuracy": "share of days whose more probable class came true",
    "balanced_accuracy": "mean of the recalls of both classes",
    "brier": "mean squared error of the probability",
    "log_loss": "nats",
    "ece": "expected calibration error, 10 equal-width bins",
    "rank_ic": "mean over dates of the rank correlation over entities",
    "sharpe": "per day, net of costs, risk-free rate 0, not annualised",
    "max_drawdown": "largest loss from a high, net of costs",
    "turnover": "traded notional per unit of capital and day",
    "pnl": "mean net return per day",
    "buy_and_hold_excess": "mean daily difference of net returns to buy-and-hold",
    "worst_fold_skill": "smallest fold value of the first skill above",
    "pinball": "mean pinball loss over the levels of the quantiles, in the unit of the label",
    "residual_pinball_skill": "1 - pinball loss / that of a simple forecast and the quantiles of its errors",
    "filtered_pinball_skill": "the same against filtered historical simulation",
    "effective_rows": "days less overlap of labels and serial dependence",
}

CHECKED = {
    "effective_rows": "days less overlap of labels and serial dependence; 250 at least",
    "train_rows_min": "training rows of the smallest fold",
    "train_test_overlap": "training rows whose label reaches into the test; must be 0",
    "duplicate_rows": "rows beyond the first of each (entity, time); must be 0",
    "prediction_sd_ratio": "how much forecasts vary, as a share of how much outcomes do; 0: a constant",
    "predicted_up_share": "share of the forecasts that say up",
    "leakage_max_score": f"what the most suspicious feature knows of the future; below {LIMIT}",
    "leakage_feature": "that feature",
    "future_cut_max_diff": "largest change of a feature when later rows are cut off; must be 0",
    "onnx_max_diff": "largest difference between the written version and the trained model; at most 1e-5",
    "kept_loss_excess": "loss of the kept weights above the best epoch's, as a share; at most 0.001",
}

CAPTIONS = {
    "skill_by_fold.png": "Skill by fold against each tuned baseline",
    "predicted_against_realised.png": "Predicted against realised",
    "calibration.png": "Calibration",
    "cumulative_advantage.png": "Cumulative advantage over tuned EWMA",
    "profit_and_loss.png": "Paper profit and loss after costs, with drawdown",
    "learning_curves.png": "Learning curves",
    "skill_by_year.png": "Skill against each tuned baseline by year",
    "regimes.png": "Skill by market regime",
    "paths.png": "Paths of combinatorial purged cross-validation",
    "importance.png": "Permutation importance",
    "residuals.png": "Residuals",
    "quantile_coverage.png": "How often quantiles hold",
    "intervals.png": "The last sessions and their interval",
}


def model_card(report: Report, plots: Sequence[str]) -> str:
    """The card as Markdown; the plots lie beside it."""
    sections = (
        _head(report),
        ["## In short", "", *(f"- {sentence}" for sentence in summary.sentences(report))],
        _metrics(report),
        _plots(plots),
        validation_card.sections(report),
        quantile_card.section(report),
        _checks(report),
        _data(report),
        _procedure(report),
        _identity(report),
        _limits(report),
        _not_measured(report),
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _head(report: Report) -> list[str]:
    label = report.job["data"]["label"]
    what = {
        "Volatility": "the log of the Garman-Klass volatility",
        "Direction": "the probability of a rise",
        "Return": "the return",
    }[report.kind]
    session = "the next session" if label["horizon"] == 1 else f"the next {label['horizon']} sessions"
    return [
        f"# Model card: {report.title}",
        "",
        f"Predicts {what} of `{label['column']}` over {session}.",
        "",
        "Owner, purpose and tier are those of the FinancialModel; the trainer is not told them. Whether these numbers "
        "suffice is the operator's verdict, recorded as a ModelDecision.",
    ]


def _identity(report: Report) -> list[str]:
    """By what the record, MLflow and the pods name this version."""
    job, facts = report.job, report.facts
    code = facts["code"]
    return [
        "## Identity",
        "",
        "| | |",
        "|---|---|",
        f"| version digest | `{facts['digest']}` |",
        f"| training key | `{job['trainingKey']}` |",
        f"| configuration key | `{job['configKey']}` |",
        f"| code | `{code['sha256']}`, Python {code['python']}, torch {code['torch']}, numpy {code['numpy']} |",
        f"| image | `{job['provenance']['image']}` |",
        f"| seed | {job['training']['seed']} |",
    ]


def _data(report: Report) -> list[str]:
    job, facts, counts = report.job, report.facts, report.counts
    lines = [
        "## Data",
        "",
        "| | |",
        "|---|---|",
        f"| source | `{json.dumps(_without_secret(job['data']['source']), sort_keys=True)}` |",
        f"| as of | {job['asOf']}; no later row was read |",
        f"| rows | {facts['rows']:,}, {facts['dataFrom']} to {facts['dataThrough']} |",
        f"| digest over all rows | `{facts['dataDigest']}` |",
        f"| features | `{json.dumps(job['data']['features'], sort_keys=True)}` |",
        f"| entities | {report.rows.entities} |",
    ]
    left_out = {name: count for name, count in counts.items() if name.startswith("dropped_") and count}
    if left_out:
        said = ", ".join(
            f"{count:,} {name.removeprefix('dropped_').replace('_', ' ')}" for name, count in left_out.items()
        )
        lines.append(f"| rows left out | {said} |")
    return lines


def _procedure(report: Report) -> list[str]:
    training = report.job["training"]
    validation, given = training["validation"], training["hyperparameters"]
    window = validation.get("window")
    before = f"the {window:,} sessions before it" if window else "what came before"
    lines = [
        "## Procedure",
        "",
        f"- Architecture {training['architecture']}; hyperparameters "
        + (f"`{json.dumps(given, sort_keys=True)}`, others" if given else "all")
        + " at their defaults or chosen inside the training rows.",
        f"- Walk-forward: {len(report.rows.folds)} folds in order of time, each trained on {before}. "
        f"Training rows whose label ends after the first test decision are purged (at least {validation['purge']}), "
        f"and at least {validation['embargo']} rows lie between training and test.",
        "- Transforms are fitted on training rows only. Baselines are tuned on the training rows of each fold.",
        f"- {len(report.rows.days):,} out-of-sample days; the first fold trains on "
        f"{report.checks.get('train_rows_min', 'an unknown number of')} rows.",
    ]
    if report.kind != "Volatility":
        lines.append(
            f"- Money: hold equal weights of what is forecast to rise, else cash; {validation['costBps']} basis points "
            "per unit of notional traded; no leverage, no short sale, no interest on cash."
        )
    chosen = [json.dumps(entry, sort_keys=True, default=str) for entry in report.chosen]
    if any(entry != "{}" for entry in chosen):
        lines += ["", "Tuned inside the training rows:", ""]
        lines += [f"- fold {index + 1}: `{entry}`" for index, entry in enumerate(chosen)]
    return lines


def _metrics(report: Report) -> list[str]:
    lines = [
        "## Out-of-sample numbers",
        "",
        "95% interval: estimate ± 1.96 standard errors (Newey-West, 20 lags, one value per day). Gates test one-sided "
        "bounds, corrected for the number of configurations tried.",
        "",
        "| number | estimate | 95% interval | by fold | days | meaning |",
        "|---|---:|:---:|---|---:|---|",
    ]
    for name, metric in report.measurement.metrics.items():
        days = f"{metric.n:,}" if metric.n is not None else ""
        cells = (name, *readable(metric), days, EXPLAINED[name])
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Baselines: {', '.join(SKILLS[report.kind])}."]
    return lines


def _checks(report: Report) -> list[str]:
    checks = report.checks
    lines = ["## Checks", "", "| check | value | meaning |", "|---|---|---|"]
    lines += [f"| {name} | {_number(value)} | {CHECKED[name]} |" for name, value in checks.items()]
    if report.leakage_scores:
        top = sorted(report.leakage_scores.items(), key=lambda item: -item[1])[:5]
        lines += [
            "",
            "Leakage scan: what one feature alone explains out of sample beyond the label's own known past (0 nothing, "
            f"1 everything; a leak is suspected from {LIMIT}). Highest: "
            + ", ".join(f"{name} {score:.3f}" for name, score in top)
            + ".",
        ]
    return lines


def _plots(plots: Sequence[str]) -> list[str]:
    lines = ["## Plots", ""]
    for name in plots:
        lines += [f"![{CAPTIONS[name]}]({name})", ""]
    return lines[:-1] if plots else ["## Plots", "", "None: there are no out-of-sample predictions to draw."]


def _limits(report: Report) -> list[str]:
    lines = [
        "## Limits",
        "",
        "- The numbers hold for the out-of-sample days above. A market that changes changes them; the drift reference "
        "travels with the version so that it can be noticed.",
        "- The exported model is refitted on all rows; its own errors are measured only by what comes after.",
        "- Newey-West intervals assume that 20 days cover the dependence of daily losses; fold values show the rest.",
    ]
    if report.kind != "Volatility":
        lines.append("- Costs are proportional. Market impact, financing and taxes are not in them.")
    if report.rows.entities > 1:
        lines.append(
            "- Nothing tells the trainer whether the panel holds instruments that were delisted. If it does not, "
            "results carry survivorship bias."
        )
    return lines


def _not_measured(report: Report) -> list[str]:
    missing = {**report.measurement.unavailable, **report.unavailable}
    lines = ["## Not measured", ""]
    if not missing:
        return [*lines, "Nothing: every number that the label kind has is above."]
    return lines + [f"- `{name}`: {reason}." for name, reason in missing.items()]


def _number(value: Any) -> str:
    if value is None:
        return "unavailable"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def readable(metric: Metric) -> tuple[str, str, str]:
    """Estimate, 95 % interval, fold values, all with the decimals at which the largest of them has four digits: a small
    one is read beside it, without an exponent. Folds have a digit less."""
    if metric.estimate is None:
        return "unavailable", "", ""
    ends = () if metric.se is None else (metric.estimate - 1.96 * metric.se, metric.estimate + 1.96 * metric.se)
    folds = metric.folds or ()
    largest = max(abs(value) for value in (metric.estimate, *ends, *folds) if value is not None)
    decimals = max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 3
    interval = f"[{', '.join(_fixed(end, decimals) for end in ends)}]" if ends else ""
    shown = " ".join("-" if value is None else _fixed(value, max(0, decimals - 1)) for value in folds)
    return _fixed(metric.estimate, decimals), interval, shown


def _fixed(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"  # + 0.0: no -0.00


def _without_secret(source: dict[str, Any]) -> dict[str, Any]:
    return {
        kind: {name: item for name, item in value.items() if name != "secretRef"} if isinstance(value, dict) else value
        for kind, value in source.items()
    }
