"""Each gate at its boundary: what just passes, what just fails, and what a missing number does."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fiduciary.api.gates import Gate
from fiduciary.decide import gates, measurement, reasons
from fiduciary.evidence.bounds import Folds, bounds
from tests.unit.decide.worlds import metric, result

KEY = "sha256:" + "a" * 64


def subject(
    label_kind: str = "Volatility",
    change: dict[str, Any] | None = None,
    *,
    architecture: str = "Linear",
    trials: int = 1,
) -> gates.Subject:
    return gates.Subject(measurement.read(result(KEY, label_kind, change)), architecture, trials)


def failures(given: gates.Subject, *user: Gate) -> list[tuple[str, str]]:
    return [(failed.gate, failed.reason) for failed in gates.judge(given, user).failures]


@pytest.mark.parametrize("label_kind", ["Volatility", "Direction", "Return"])
def test_a_good_model_passes_every_built_in_gate(label_kind: str) -> None:
    judged = gates.judge(subject(label_kind), ())
    assert judged.passed, [failed.message for failed in judged.failures]
    assert {"leakage", "effective_rows", "degenerate", "skill", "worst_fold", "export"} == {
        passed.gate for passed in judged.results
    }


CHECKS = [
    ("prediction_sd_ratio", 1e-3, 0.9e-3, "degenerate", reasons.DEGENERATE_PREDICTOR),
    ("leakage_max_score", 0.3999, 0.4, "leakage", reasons.LEAKAGE),
    ("future_cut_max_diff", 0.0, 1e-12, "leakage", reasons.LEAKAGE),
    ("train_test_overlap", 0, 1, "leakage", reasons.LEAKAGE),
    ("duplicate_rows", 0, 1, "leakage", reasons.LEAKAGE),
    ("effective_rows", 250, 249.9, "effective_rows", reasons.TOO_FEW_ROWS),
    ("onnx_max_diff", 1e-5, 1.01e-5, "export", reasons.EXPORT_DIFFERS),
]


@pytest.mark.parametrize(("name", "good", "bad", "gate", "reason"), CHECKS, ids=[check[0] for check in CHECKS])
def test_checks_at_their_limits(name: str, good: float, bad: float, gate: str, reason: str) -> None:
    assert failures(subject(change={"checks": {name: good}})) == []
    assert failures(subject(change={"checks": {name: bad}})) == [(gate, reason)]


@pytest.mark.parametrize("architecture", ["MLP", "LSTM", "GRU", "TCN", "Transformer", "Ensemble"])
def test_a_network_must_show_that_it_kept_its_best_weights(architecture: str) -> None:
    def of(excess: float | None) -> list[tuple[str, str]]:
        return failures(subject(change={"checks": {"kept_loss_excess": excess}}, architecture=architecture))

    assert of(1e-3) == []
    assert of(1.1e-3) == [("kept_weights", reasons.WEIGHTS_NOT_BEST)]
    assert of(None) == [("kept_weights", reasons.UNAVAILABLE)]


@pytest.mark.parametrize("name", [check[0] for check in CHECKS])
def test_a_missing_check_fails_its_gate_with_the_trainers_reason(name: str) -> None:
    change = {"checks": {name: None}, "unavailable": {name: "the scan had 3 rows"}}
    judged = gates.judge(subject(change=change), ())
    assert [failed.reason for failed in judged.failures] == [reasons.UNAVAILABLE]
    assert judged.failures[0].message == f"{name} is unavailable: the scan had 3 rows"


@pytest.mark.parametrize(("share", "passes"), [(0.005, True), (0.0049, False), (0.995, True), (1.0, False)])
def test_a_direction_model_that_always_says_the_same_is_degenerate(share: float, passes: bool) -> None:
    found = failures(subject("Direction", {"checks": {"predicted_up_share": share}}))
    assert found == ([] if passes else [("degenerate", reasons.DEGENERATE_PREDICTOR)])


@pytest.mark.parametrize(("worst", "passes"), [(-0.10, True), (-0.1001, False)])
@pytest.mark.parametrize("architecture", ["Linear", "HAR"])
def test_worst_fold(worst: float, passes: bool, architecture: str) -> None:
    given = subject(change={"metrics": {"worst_fold_skill": {"e": worst}}}, architecture=architecture)
    assert failures(given) == ([] if passes else [("worst_fold", reasons.WORST_FOLD)])


Z95, T5_95 = 1.6448536269514722, 2.015048373333024


def fold_error(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


@pytest.mark.parametrize(
    ("label_kind", "name"), [("Volatility", "ewma"), ("Direction", "base_rate"), ("Return", "mean")]
)
def test_skill_needs_a_lower_bound_above_zero(label_kind: str, name: str) -> None:
    se = 0.01
    for estimate, passes in ((Z95 * se + 1e-6, True), (Z95 * se - 1e-6, False)):
        change = {"metrics": {f"{name}_skill": metric(estimate, se, [estimate] * 6)}}
        found = failures(subject(label_kind, change))
        assert found == ([] if passes else [("skill", reasons.NO_SKILL)])


def test_folds_that_disagree_decide_where_they_are_more_cautious() -> None:
    folds = [0.1, -0.05, 0.12, -0.02, 0.1, -0.01]
    mean = math.fsum(folds) / 6
    lower = mean - T5_95 * fold_error(folds)
    assert lower < 0 < mean - Z95 * 0.001
    judged = gates.judge(subject(change={"metrics": {"ewma_skill": metric(mean, 0.001, folds)}}), ())
    assert [failed.reason for failed in judged.failures] == [reasons.NO_SKILL]
    assert f"{lower:.4f}" in judged.failures[0].message
    assert "t over 6 folds" in judged.failures[0].message


@pytest.mark.parametrize("baseline", ["har", "ols"])
def test_a_model_may_lack_two_percent_against_strong_simple_ones(baseline: str) -> None:
    se = 0.004
    for estimate, passes in ((-0.02 + Z95 * se + 1e-6, True), (-0.02 + Z95 * se - 1e-6, False)):
        change = {"metrics": {f"{baseline}_skill": metric(estimate, se, [estimate] * 6)}}
        assert failures(subject(change=change)) == ([] if passes else [("skill", reasons.NO_SKILL)])


def test_a_reference_model_need_not_beat_but_must_not_be_inferior() -> None:
    tie = {"ewma_skill": metric(0.0, 0.005, [0.0] * 6), "har_skill": metric(0.0, 0.0, [0.0] * 6)}
    assert failures(subject(change={"metrics": tie}, architecture="HAR")) == []
    assert failures(subject(change={"metrics": tie})) == [("skill", reasons.NO_SKILL)]
    worse = {**tie, "ewma_skill": metric(-0.015, 0.005, [-0.015] * 6)}
    assert failures(subject(change={"metrics": worse}, architecture="HAR")) == [("skill", reasons.NO_SKILL)]


@pytest.mark.parametrize("missing", ["ewma_skill", "har_skill", "ols_skill"])
@pytest.mark.parametrize("architecture", ["Linear", "HAR"])
def test_a_missing_baseline_fails_the_skill_gate(missing: str, architecture: str) -> None:
    change = {"metrics": {missing: {"e": None}}, "unavailable": {missing: "the walk-forward has no such baseline"}}
    assert failures(subject(change=change, architecture=architecture)) == [("skill", reasons.UNAVAILABLE)]


@pytest.mark.parametrize("part", ["se", "f"])
def test_a_skill_without_one_of_its_two_intervals_is_unavailable(part: str) -> None:
    change = {"metrics": {"ewma_skill": {part: None}}}
    assert failures(subject(change=change)) == [("skill", reasons.UNAVAILABLE)]


def test_an_unknown_fold_is_no_fold() -> None:
    change = {"metrics": {"ewma_skill": {"f": [0.1, None, 0.1, 0.1, 0.1, 0.1]}}}
    assert failures(subject(change=change)) == [("skill", reasons.UNAVAILABLE)]


def test_more_configurations_raise_the_bar() -> None:
    se, estimate = 0.01, 0.02
    change = {"metrics": {"ewma_skill": metric(estimate, se, [estimate] * 6)}}
    assert failures(subject(change=change, trials=1)) == []
    assert failures(subject(change=change, trials=5)) == [("skill", reasons.NO_SKILL)]
    message = gates.judge(subject(change=change, trials=5), ()).failures[0].message
    assert "99 % bound" in message


def test_base_rate_is_constant_by_definition() -> None:
    change = {
        "checks": {"prediction_sd_ratio": 0.0, "predicted_up_share": 1.0},
        "metrics": {"base_rate_skill": metric(0.0, 0.0, [0.0] * 6), "ols_skill": metric(0.001)},
    }
    assert failures(subject("Direction", change, architecture="BaseRate")) == []
    assert ("degenerate", reasons.DEGENERATE_PREDICTOR) in failures(subject("Direction", change))


def test_message_of_the_refused_direction() -> None:
    folds = [-0.0008] * 6
    change = {"metrics": {"base_rate_skill": metric(-0.0008, 0.002, folds, n=3150)}}
    message = gates.judge(subject("Direction", change), ()).failures[0].message
    assert message == (
        "base_rate_skill: lower 95 % bound -0.0041 (estimate -0.0008, 3,150 days, Newey–West, 20 lags) is not above 0: "
        "the model shows no skill over always predicting the base rate"
    )


def test_unknown_label_kind_is_no_pass() -> None:
    given = subject(change={"labelKind": "Duration"})
    assert ("skill", reasons.UNAVAILABLE) in failures(given)


@pytest.mark.parametrize(
    ("change", "below", "reason"),
    [
        ({"metrics": {"pbo": {"e": 0.31, "n": 2288}}}, "0.4", None),
        ({"metrics": {"pbo": {"e": 0.31, "n": 2288}}}, "0.3", reasons.GATE_FAILED),
        ({"unavailable": {"pbo": "1 trial of 1 came to its end"}}, "0.4", reasons.UNAVAILABLE),
        ({}, "0.4", reasons.UNAVAILABLE),
    ],
)
def test_overfitting_of_a_search_may_be_gated(change: dict[str, Any], below: str, reason: str | None) -> None:
    given = subject(change=measurement.kept(result(KEY, "Volatility", change)))
    expected = [] if reason is None else [(f"pbo below {below}", reason)]
    assert failures(given, Gate(metric="pbo", below=below)) == expected


USER = [
    ("Volatility", Gate(metric="har_skill", above="0.05"), True),
    ("Volatility", Gate(metric="har_skill", above="0.065"), False),
    ("Volatility", Gate(metric="mse", below="0.18"), True),
    ("Volatility", Gate(metric="mse", below="0.165"), False),
    ("Volatility", Gate(metric="worst_fold_skill", above="0.039"), True),
    ("Volatility", Gate(metric="worst_fold_skill", above="0.04"), False),
    ("Volatility", Gate(metric="effective_rows", above="2000"), False),
    ("Direction", Gate(metric="max_drawdown", below="0.20"), True),
    ("Direction", Gate(metric="max_drawdown", below="0.18"), False),
    ("Direction", Gate(metric="ece", below="0.05"), True),
    ("Direction", Gate(metric="ece", below="0.02"), False),
    ("Direction", Gate(metric="deflated_sharpe", above="0.95"), True),
    ("Direction", Gate(metric="sharpe", above="0.06"), True),
    ("Direction", Gate(metric="sharpe", above="0.07"), False),
    ("Direction", Gate(metric="brier", below="0.3"), False),
]


@pytest.mark.parametrize(("label_kind", "gate", "passes"), USER, ids=lambda value: str(value))
def test_user_gates(label_kind: str, gate: Gate, passes: bool) -> None:
    judged = gates.judge(subject(label_kind), (gate,))
    assert judged.passed is passes, judged.results[-1].message
    message = judged.results[-1].message
    assert gate.metric in message


def test_deflated_sharpe_falls_with_what_was_tried_and_states_its_convention() -> None:
    gate = Gate(metric="deflated_sharpe", above="0.999")
    assert gates.judge(subject("Direction"), (gate,)).passed
    judged = gates.judge(subject("Direction", trials=100), (gate,))
    told = next(failed.message for failed in judged.failures if failed.gate.startswith("deflated"))
    assert "100 configurations" in told
    assert "2012" in told


def test_the_record_is_long_enough_or_says_how_long_it_would_have_to_be() -> None:
    long, short = (Gate(metric="min_track_record", below=days) for days in ("100000", "10"))
    assert failures(subject("Direction"), long) == []
    told = gates.judge(subject("Direction"), (short,)).failures[0].message
    assert "sessions (Sharpe ratio" in told
    losing = subject("Direction", {"metrics": {"sharpe": {**metric(-0.01), "skew": -0.4, "kurtosis": 6.0}}})
    refused = gates.judge(losing, (long,)).failures
    assert [(each.gate, each.reason) for each in refused] == [("min_track_record below 100000", reasons.UNAVAILABLE)]
    assert "not above 0, however long" in refused[0].message


def test_probabilistic_sharpe_is_the_deflated_one_of_a_single_configuration() -> None:
    alone, deflated = (
        gates.judge(subject("Direction"), (Gate(metric=name, above="0.5"),)).results[-1].message.split()[1]
        for name in ("probabilistic_sharpe", "deflated_sharpe")
    )
    assert alone == deflated


def test_deflated_sharpe_needs_the_moments() -> None:
    gate = Gate(metric="deflated_sharpe", above="0.5")
    change = {"metrics": {"sharpe": {"skew": None}}}
    found = failures(subject("Direction", change), gate)
    assert found == [("deflated_sharpe above 0.5", reasons.UNAVAILABLE)]


def test_stored_numbers_are_judged_as_the_reported_ones() -> None:
    """A record keeps less than the trainer reported; judging it again must come to the same bounds."""
    for label_kind in ("Volatility", "Direction", "Return"):
        reported = result(KEY, label_kind)
        stored = measurement.kept(reported)
        user = (Gate(metric="effective_rows", above="1"),)
        first, again = (
            gates.judge(gates.Subject(measurement.read(numbers), "Linear", 3), user) for numbers in (reported, stored)
        )
        assert first == again


def test_the_wider_interval_is_the_published_one() -> None:
    folds = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    found = bounds(0.035, 1e-6, Folds.of(folds), 0.05)
    assert found is not None
    assert found.lower == pytest.approx(0.035 - 2.015 * fold_error(folds), abs=1e-6)
