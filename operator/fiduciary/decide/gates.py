"""Gates: what a version must show before it may serve. A conjunction, judged from stored numbers.

Built-in gates always run; the user's come after them. Each is a small function from the measurement to one
:class:`Result`. A number that is missing fails the gate that needs it: nothing is ever replaced by a default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.api.training import NETWORK_ARCHITECTURES, REFERENCE_ARCHITECTURES
from fiduciary.decide import reasons
from fiduciary.evidence import sharpe
from fiduciary.evidence.bounds import Bounds, bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fiduciary.api.gates import Gate
    from fiduciary.decide.measurement import Measurement, Metric

ALPHA = 0.05
"""One-sided error probability of a skill gate for the first configuration; α/N after N of them."""
NON_INFERIORITY = -0.02
"""Skill that a model may lack against a baseline that it need not beat, and a reference model against the best one."""
WORST_FOLD = -0.10
"""Least skill of any fold against the first baseline of the label kind."""
LEAKAGE_LIMIT = 0.4
"""Leakage score of a feature from which it is refused: .16 of what the label's past leaves unexplained."""
EFFECTIVE_ROWS = 250.0
"""Fewest effective out-of-sample rows: about one trading year; below it an interval over 6 folds means little."""
ONNX_LIMIT = 1e-5
"""Largest difference between the exported and the trained network on real rows, in the label's unit."""
KEPT_LIMIT = 1e-3
"""Largest share by which the kept weights' loss may be above the smallest that an epoch recorded."""
SPREAD = 1e-3
"""Least standard deviation of the forecasts within folds, as a share of the outcomes'."""
ONE_CLASS = 0.005
"""Least share of out-of-sample forecasts on the rarer side, for Direction and Return."""

#: Baselines of each label kind: the one to beat, and those not to be worse than.
TO_BEAT = {"Volatility": "ewma", "Direction": "base_rate", "Return": "mean"}
NOT_WORSE = {"Volatility": ("har", "ols"), "Direction": ("ols",), "Return": ("ols",)}
BASELINE_NAMES = {
    "ewma": "the EWMA tuned on each training fold",
    "har": "HAR",
    "ols": "OLS on the model's own features",
    "base_rate": "always predicting the base rate",
    "mean": "always predicting the training mean",
    "persistence": "persistence",
}
#: Metrics that exist as one number without an interval.
POINT_METRICS = frozenset({"max_drawdown", "worst_fold_skill", "effective_rows", "pbo"})
#: Metrics that are computed here, from the Sharpe ratio and its moments.
OF_SHARPE = frozenset({"probabilistic_sharpe", "deflated_sharpe", "min_track_record"})


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of one gate."""

    gate: str
    passed: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What a gate looks at: the numbers, what was trained, and how many configurations were tried (N)."""

    measurement: Measurement
    architecture: str
    trials: int

    @property
    def is_reference(self) -> bool:
        return self.architecture in REFERENCE_ARCHITECTURES

    @property
    def alpha(self) -> float:
        return ALPHA / max(1, self.trials)


@dataclass(frozen=True, slots=True)
class Judgement:
    """All results, in order: built-in gates first."""

    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.results)

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if not result.passed)


def judge(subject: Subject, gates: Sequence[Gate]) -> Judgement:
    """Judge the numbers by every built-in gate and by the user's ``gates``."""
    results: list[Result] = []
    for built_in in BUILT_IN:
        results.extend(built_in(subject))
    results.extend(_user_gate(subject, gate) for gate in gates)
    return Judgement(tuple(results))


def degenerate(subject: Subject) -> Iterator[Result]:
    """Forecasts that hardly vary, or that name one class only, look like skill wherever classes are unequal."""
    if subject.architecture == "BaseRate":
        return  # a constant by definition; the skill gate holds it against the other baselines
    measured = subject.measurement
    spread = measured.checks.get("prediction_sd_ratio")
    if spread is None:
        yield _missing("degenerate", measured, "prediction_sd_ratio")
    else:
        yield Result(
            "degenerate",
            spread >= SPREAD,
            reasons.DEGENERATE_PREDICTOR,
            f"prediction_sd_ratio: forecasts vary by {spread:.4g} of the outcomes' standard deviation, at least "
            f"{SPREAD:g} is needed" + ("" if spread >= SPREAD else ": the model predicts a constant"),
        )
    if measured.label_kind != "Volatility":
        up = measured.checks.get("predicted_up_share")
        if up is None:
            yield _missing("degenerate", measured, "predicted_up_share")
            return
        rarer = min(up, 1.0 - up)
        yield Result(
            "degenerate",
            rarer >= ONE_CLASS,
            reasons.DEGENERATE_PREDICTOR,
            f"predicted_up_share: {up:.2%} of the out-of-sample forecasts say up; each side needs at least "
            f"{ONE_CLASS:.1%}" + ("" if rarer >= ONE_CLASS else ": the model always says the same"),
        )


def skill(subject: Subject) -> Iterator[Result]:
    """Better than the tuned baseline of the label kind, and not worse than the strong simple ones.

    A reference model is a baseline itself: it only must not be inferior to the best of them.
    """
    measured = subject.measurement
    kind = measured.label_kind
    if kind not in TO_BEAT:
        yield Result("skill", False, reasons.UNAVAILABLE, f"label kind {kind!r} is unknown; expected {list(TO_BEAT)}")
        return
    if subject.is_reference:
        rivals = (TO_BEAT[kind], *NOT_WORSE[kind])
        missing = [name for name in rivals if f"{name}_skill" not in measured.metrics]
        if missing:  # which of them is the best is not known
            for name in missing:
                yield _missing("skill", measured, f"{name}_skill")
            return
        best = min(rivals, key=lambda name: measured.metrics[f"{name}_skill"].estimate)
        yield _against(subject, best, NON_INFERIORITY)
        return
    yield _against(subject, TO_BEAT[kind], 0.0)
    for baseline in NOT_WORSE[kind]:
        yield _against(subject, baseline, NON_INFERIORITY)


def worst_fold(subject: Subject) -> Iterator[Result]:
    """An average that one good period carries is no skill."""
    metric = subject.measurement.metrics.get("worst_fold_skill")
    if metric is None:
        yield _missing("worst_fold", subject.measurement, "worst_fold_skill")
        return
    yield Result(
        "worst_fold",
        metric.estimate >= WORST_FOLD,
        reasons.WORST_FOLD,
        f"worst_fold_skill: {metric.estimate:.4f}, at least {WORST_FOLD:g} is needed"
        + ("" if metric.estimate >= WORST_FOLD else ": in one period the model was much worse than the baseline"),
    )


def leakage(subject: Subject) -> Iterator[Result]:
    """The future must not be in the features, nor training rows in the test."""
    measured = subject.measurement
    score = measured.checks.get("leakage_max_score")
    if score is None:
        yield _missing("leakage", measured, "leakage_max_score")
    else:
        feature = measured.names.get("leakage_feature", "?")
        honest = score < LEAKAGE_LIMIT
        yield Result(
            "leakage",
            honest,
            reasons.LEAKAGE,
            f"leakage_max_score: feature {feature!r} alone scores {score:.3f} beyond the label's own past, below "
            f"{LEAKAGE_LIMIT:g} is needed"
            + ("" if honest else f": {feature!r} very likely holds the future; remove it or lag it"),
        )
    for name, problem in (
        ("future_cut_max_diff", "features change when later rows are cut off: they read the future"),
        ("train_test_overlap", "labels of training rows reach into the test"),
        ("duplicate_rows", "the same (entity, date) occurs more than once"),
    ):
        value = measured.checks.get(name)
        if value is None:
            yield _missing("leakage", measured, name)
        else:
            message = f"{name}: {value:g}, 0 is needed" + ("" if value == 0 else f": {problem}")
            yield Result("leakage", value == 0, reasons.LEAKAGE, message)


def effective_rows(subject: Subject) -> Iterator[Result]:
    """Overlapping labels and serial dependence leave fewer rows than there are."""
    rows = subject.measurement.checks.get("effective_rows")
    if rows is None:
        yield _missing("effective_rows", subject.measurement, "effective_rows")
        return
    enough = rows >= EFFECTIVE_ROWS
    yield Result(
        "effective_rows",
        enough,
        reasons.TOO_FEW_ROWS,
        f"effective_rows: {rows:,.0f} independent out-of-sample rows, at least {EFFECTIVE_ROWS:,.0f} are needed"
        + ("" if enough else ": use a longer history, a shorter horizon, or a panel"),
    )


def export(subject: Subject) -> Iterator[Result]:
    """What is served must be what was measured."""
    difference = subject.measurement.checks.get("onnx_max_diff")
    if difference is None:
        yield _missing("export", subject.measurement, "onnx_max_diff")
        return
    same = difference <= ONNX_LIMIT
    yield Result(
        "export",
        same,
        reasons.EXPORT_DIFFERS,
        f"onnx_max_diff: the exported model differs by at most {difference:.2g} from the trained one, "
        f"{ONNX_LIMIT:g} is allowed"
        + ("" if same else ": the network, its transform or its features are not what was measured"),
    )


def kept_weights(subject: Subject) -> Iterator[Result]:
    """A network must keep the weights of its best epoch, not those that training happened to end with."""
    if subject.architecture not in NETWORK_ARCHITECTURES:
        return
    excess = subject.measurement.checks.get("kept_loss_excess")
    if excess is None:
        yield _missing("kept_weights", subject.measurement, "kept_loss_excess")
        return
    best = excess <= KEPT_LIMIT
    yield Result(
        "kept_weights",
        best,
        reasons.WEIGHTS_NOT_BEST,
        f"kept_loss_excess: the kept weights' loss on the inner tail is {excess:.2%} above the best epoch's, at most "
        f"{KEPT_LIMIT:.1%} is allowed" + ("" if best else ": other weights than the best were kept"),
    )


BUILT_IN: tuple[Callable[[Subject], Iterator[Result]], ...] = (
    leakage,  # first: with the future in the features, no other number means anything
    effective_rows,
    degenerate,
    skill,
    worst_fold,
    kept_weights,
    export,
)


def _against(subject: Subject, baseline: str, threshold: float) -> Result:
    name = f"{baseline}_skill"
    metric = subject.measurement.metrics.get(name)
    if metric is None:
        return _missing("skill", subject.measurement, name)
    limits = bounds(metric.estimate, metric.se, metric.folds, subject.alpha)
    # Skill must hold by both intervals; with one of them missing, the other is not the more cautious of two.
    if limits is None or metric.se is None or metric.folds is None:
        return _no_interval("skill", name, subject.measurement)
    passed = limits.lower > threshold
    if threshold < 0.0:
        so = f": the model may be worse than {BASELINE_NAMES[baseline]}"
    else:
        so = f": the model shows no skill over {BASELINE_NAMES[baseline]}"
    message = _bound_message(name, "lower", limits.lower, metric, limits, "above", f"{threshold:g}", passed)
    return Result("skill", passed, reasons.NO_SKILL, message + ("" if passed else so))


def _user_gate(subject: Subject, gate: Gate) -> Result:
    measured = subject.measurement
    name = gate.metric
    side = "above" if gate.above is not None else "below"
    written = gate.above if gate.above is not None else gate.below
    assert written is not None, "the CRD demands exactly one of above and below"
    threshold = float(written)
    label = f"{name} {side} {written}"
    if name in OF_SHARPE:
        return _of_sharpe(subject, name, label, side, written)
    metric = measured.metrics.get(name)
    if metric is None:
        return _missing(label, measured, name)
    if name in POINT_METRICS:
        passed = metric.estimate > threshold if side == "above" else metric.estimate < threshold
        verdict = "is" if passed else "is not"
        message = f"{name}: {metric.estimate:.5g}{_sample(metric)} {verdict} {side} {written}"
        return Result(label, passed, reasons.GATE_FAILED, message)
    limits = bounds(metric.estimate, metric.se, metric.folds, subject.alpha)
    if limits is None:
        return _no_interval(label, name, measured)
    value = limits.lower if side == "above" else limits.upper
    passed = value > threshold if side == "above" else value < threshold
    which = "lower" if side == "above" else "upper"
    message = _bound_message(name, which, value, metric, limits, side, written, passed)
    return Result(label, passed, reasons.GATE_FAILED, message)


def _of_sharpe(subject: Subject, name: str, label: str, side: str, written: str) -> Result:
    metric = subject.measurement.metrics.get("sharpe")
    if metric is None or metric.skew is None or metric.kurtosis is None or metric.n is None:
        return _missing(label, subject.measurement, "sharpe")
    if name == "deflated_sharpe":
        value = sharpe.deflated_sharpe(metric.estimate, metric.n, metric.skew, metric.kurtosis, subject.trials)
    elif name == "probabilistic_sharpe":
        value = sharpe.probabilistic_sharpe(metric.estimate, 0.0, metric.n, metric.skew, metric.kurtosis)
    else:
        value = sharpe.min_track_record(metric.estimate, 0.0, metric.skew, metric.kurtosis, ALPHA)
    if value is None:
        why = f"skew {metric.skew:g} and kurtosis {metric.kurtosis:g} give no variance"
        if name == "min_track_record" and metric.estimate <= 0.0:
            why = f"a Sharpe ratio of {metric.estimate:.4f} is not above 0, however long the record"
        return Result(label, False, reasons.UNAVAILABLE, f"{name} is unavailable: {why}")
    passed = value > float(written) if side == "above" else value < float(written)
    verdict = "is" if passed else "is not"
    tried = f", {subject.trials} configurations tried" if name == "deflated_sharpe" else ""
    figure = f"{value:,.0f} sessions" if name == "min_track_record" else f"{value:.4f}"
    message = (
        f"{name}: {figure} (Sharpe ratio {metric.estimate:.4f} a period, {metric.n:,} periods{tried}, "
        f"convention of {sharpe.CONVENTION}) {verdict} {side} {written}"
    )
    return Result(label, passed, reasons.GATE_FAILED, message)


def _bound_message(
    name: str, which: str, value: float, metric: Metric, limits: Bounds, side: str, threshold: str, passed: bool
) -> str:
    verdict = "is" if passed else "is not"
    return (
        f"{name}: {which} {100 * limits.level:.4g} % bound {_figure(value)} "
        f"(estimate {_figure(metric.estimate)}{_days(metric)}, {limits.method}) {verdict} {side} {threshold}"
    )


def _figure(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"  # not -0.0000


def _days(metric: Metric) -> str:
    return f", {metric.n:,} days" if metric.n is not None else ""


def _sample(metric: Metric) -> str:
    return f" ({metric.n:,})" if metric.n is not None else ""


def _missing(gate: str, measured: Measurement, name: str) -> Result:
    return Result(gate, False, reasons.UNAVAILABLE, f"{name} is unavailable: {measured.why_missing(name)}")


def _no_interval(gate: str, name: str, measured: Measurement) -> Result:
    why = measured.unavailable.get(f"{name}.se", "the trainer did not report its standard error and every fold value")
    return Result(gate, False, reasons.UNAVAILABLE, f"{name} has no confidence interval: {why}")
