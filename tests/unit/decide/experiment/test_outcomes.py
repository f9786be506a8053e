"""Outcomes: the ledger of sessions, prequential evidence, what is left out, and what can be shown at all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.experiment.read import noninferiority_over
from fiduciary.decide.experiment.summary import rows
from fiduciary.decide.experiment.world import Anchor, Carried, LedgerRow, Live, PodFacts, Spending
from fiduciary.evidence.spending import e_lond_level
from tests.unit.decide.experiment.trials import Trial, past, row, sessions

IMPROVE: dict[str, Any] = {"purpose": "Improve"}
EASY = Spending(anchors=(Anchor("errors", 0.02),))
WALK_FORWARD = sessions(0.2, 3000)  # better by .14 sd


def improve(spec: dict[str, Any] | None = None, **parts: Any) -> Trial:
    trial = Trial(**{"spending": EASY, "bad": (0.0, 0.0), "spec": {**IMPROVE, **(spec or {})}, **parts})
    trial.evaluate()
    return trial


def objective(trial: Trial) -> Any:
    assert trial.state is not None
    return trial.state.evidence.objectives[0]


def test_a_better_challenger_is_promoted_when_both_claims_are_shown_at_once() -> None:
    trial = improve()
    waits = trial.minutes(80)
    assert waits.ruling.reason == reasons.GATHERING_EVIDENCE
    assert "objective loss: 0 of 250 sessions that set the scale" in waits.ruling.message
    trial.ledger = WALK_FORWARD
    last = trial.minute()
    assert last.ruling.verdict == "Promote"
    assert "prequential evidence" in last.ruling.message
    assert objective(trial).folded == 2750
    assert last.status.tests[0].side == "Superiority"
    assert float(last.status.tests[0].estimate) < 0  # challenger minus champion: its loss is lower


def test_a_challenger_that_is_no_better_is_never_promoted() -> None:
    trial = improve(spec={"stopping": {"maxDuration": "2h"}})
    trial.ledger = sessions(0.0, 3000)
    assert trial.until(reasons.NOT_SHOWN).ruling.verdict == "KeepChampion"


def test_a_refresh_claims_no_superiority() -> None:
    trial = Trial(spending=EASY, bad=(0.0, 0.0))
    trial.evaluate()
    assert trial.state is not None
    assert trial.state.terms.objectives == ()
    assert trial.state.terms.level == 0.05
    assert trial.until(reasons.PROMOTED)


def test_the_scale_is_frozen_from_250_sessions_that_are_not_folded() -> None:
    trial = improve()
    trial.ledger = WALK_FORWARD[:249]
    trial.minute()
    assert (objective(trial).burn_in.count, objective(trial).log_e) == (249, None)
    trial.ledger = WALK_FORWARD[249:251]
    trial.minute()
    found = objective(trial)
    assert (found.burn_in.count, found.folded) == (250, 1)
    assert found.betting.scale == found.burn_in.sd()


def test_the_threshold_is_of_the_test_in_the_model_s_life_and_of_the_configurations_tried() -> None:
    trial = improve(spending=replace(EASY, test=3, discoveries=1, configurations=2))
    trial.ledger = WALK_FORWARD
    found = trial.minute().status.tests[0]
    level = e_lond_level(0.05, 3, 1)
    assert isinstance(level, float)
    assert float(found.threshold) == pytest.approx(math.log(2 / level), abs=1e-4)
    # fewer configurations later do not lower it, more raise it
    trial.spending = replace(trial.spending, configurations=1)
    assert trial.minute().status.tests[0].threshold == found.threshold
    trial.spending = replace(trial.spending, configurations=10)
    assert float(trial.minute().status.tests[0].threshold) == pytest.approx(math.log(10 / level), abs=1e-4)


def test_live_sessions_are_one_test_and_not_n() -> None:
    trial = improve(spec={"evidence": {"outcomes": "Live"}}, spending=replace(EASY, configurations=7))
    level = e_lond_level(0.05, 1, 0)
    assert isinstance(level, float)
    trial.ledger = (*sessions(0.2, 400), *sessions(0.2, 30, 400, "Live"))
    found = trial.minute().status.tests[0]
    assert found.n == 30  # replayed sessions set the scale only
    assert float(found.threshold) == pytest.approx(-math.log(level), abs=1e-4)


LIVE = {"evidence": {"outcomes": "Live"}, "stopping": {"minDuration": "1m", "maxDuration": "2000d"}}


def test_live_outcomes_are_shown_before_requests_are_split() -> None:
    """With one request a day and series, a split leaves each arm without half of the predictions: the challenger paid
    the worst loss for what it was never asked, and no better one was ever promoted."""
    trial = improve(spec=LIVE)
    trial.ledger = sessions(0.3, 300, source="Live")
    waits = trial.minutes(10)
    assert (waits.ruling.reason, waits.status.step) == (reasons.GATHERING_OUTCOMES, "shadow")
    assert "step canary splits requests" in waits.ruling.message
    assert "after 50 sessions" in waits.ruling.message
    assert waits.traffic.mirror == 100
    trial.ledger = sessions(0.3, 500, 300, "Live")
    trial.minute()
    assert trial.decisions[-1].status.step == "canary"
    shown = objective(trial)
    unasked = {"missing_champion": 1, "missing_challenger": 1}
    trial.ledger = tuple(row(800 + k, 0.0, "Live", entities=0, **unasked) for k in range(200))
    trial.minute()
    assert trial.state is not None
    counted = trial.state.evidence.sessions
    assert (counted.last, counted.apart, counted.missing_share) == (999, 200, 0.0)
    assert objective(trial) == shown
    assert trial.until(reasons.PROMOTED).ruling.verdict == "Promote"


def test_a_day_on_which_the_mirror_was_away_is_not_the_challenger_s_silence() -> None:
    trial = improve(spec=LIVE)
    trial.ledger = sessions(0.3, 300, source="Live")
    trial.minutes(5)
    shown = objective(trial)
    trial.live = Live((), PodFacts(1), PodFacts(0))
    assert trial.minute().ruling.reason == reasons.PODS_NOT_READY
    trial.live = Live((), PodFacts(1), PodFacts(1))
    trial.minutes(3)
    trial.ledger = (replace(row(300, 0.0, "Live", entities=0, missing_challenger=1), session="2026-11-24"),)
    trial.minute()
    assert objective(trial) == shown
    trial.ledger = (replace(row(301, 0.0, "Live", entities=0, missing_challenger=1), session="2026-11-25"),)
    trial.minute()
    assert objective(trial).log_e < shown.log_e, "silence on a whole day is its own"


def test_days_of_a_split_are_no_silence_of_the_champion_where_replays_are_the_evidence() -> None:
    trial = improve()
    trial.ledger = WALK_FORWARD[:1000]
    while trial.decisions[-1].status.step != "half":
        trial.minute()
    trial.ledger = tuple(row(1000 + k, 0.0, "Live", entities=0, missing_champion=1) for k in range(200))
    assert trial.minute().ruling.reason != reasons.CHAMPION_MISSING


def test_a_plan_in_which_no_outcome_is_comparable_is_refused() -> None:
    steps = [{"name": "half", "weight": 50, "mirror": 100, "minBlocks": 5}]
    trial = Trial(spec={"purpose": "Improve", **LIVE, "traffic": {"steps": steps}}, spending=EASY)
    found = trial.evaluate()
    assert (found.ruling.reason, found.ruling.verdict) == (reasons.INFEASIBLE, "KeepChampion")
    assert "mirror 100 and weight 0" in found.ruling.message
    replayed = Trial(spec={"purpose": "Improve", "traffic": {"steps": steps}}, spending=EASY)
    assert replayed.evaluate().ruling.reason == reasons.STEP_ENTERED


def test_auto_is_prequential_where_both_procedures_are_known() -> None:
    assert improve().state.terms.prequential  # type: ignore[union-attr]
    assert not improve(procedures_known=False).state.terms.prequential  # type: ignore[union-attr]


def after_burn_in(**parts: Any) -> Trial:
    trial = improve(**parts)
    trial.ledger = WALK_FORWARD[:260]
    trial.minute()
    return trial


def test_a_session_that_our_transport_damaged_is_counted_and_not_folded() -> None:
    trial = after_burn_in()
    before = objective(trial)
    trial.ledger = (row(260, 99.0, dropped=1),)
    trial.minute()
    assert trial.state is not None
    assert objective(trial) == before
    assert trial.state.evidence.sessions.dropped == 1
    assert trial.state.evidence.sessions.last == 260


def test_predictions_that_our_transport_lost_are_not_the_champion_s_silence() -> None:
    trial = after_burn_in()
    trial.ledger = tuple(row(260 + k, 0.1, dropped=1, missing_champion=9) for k in range(9))
    assert trial.minute().ruling.reason == reasons.GATHERING_EVIDENCE
    assert trial.state is not None
    assert trial.state.evidence.sessions.missing_share == 0.0


def test_an_impossible_block_does_not_keep_sessions_from_being_folded() -> None:
    trial = after_burn_in()
    trial.ledger = (WALK_FORWARD[260],)
    trial.blocks = (replace(trial.counts(), tests=()),)
    found = trial.evaluate()
    assert found.ruling.reason == reasons.EVIDENCE_REFUSED
    assert objective(trial).folded == 11


def test_a_missing_prediction_of_the_challenger_scores_the_worst_loss() -> None:
    trial = after_burn_in()
    before = objective(trial)
    trial.ledger = (row(260, 0.5, entities=3, missing_challenger=1),)
    trial.minute()
    scale = before.betting.scale
    assert before.entity == pytest.approx(scale)  # one entity a session: both are the same
    imputed = (1.5 - 4.0 * before.entity) / 4
    expected = before.betting.fold(before.folded, imputed)
    assert objective(trial).betting == expected
    trial.ledger = (row(261, 0.0, entities=0, missing_challenger=5),)
    trial.minute()
    assert objective(trial).betting == expected.fold(before.folded + 1, -4.0 * before.entity)


def panel(number: int, entities: int, silent: int) -> LedgerRow:
    """Differences of independent entities with sd 1 and mean 0, of which those that lose most stay unanswered."""
    all_of_them = sorted(math.sqrt(2.0) * math.sin(2.399963 * (number * entities + k)) for k in range(entities))
    told = all_of_them[silent:]
    return replace(
        row(number, 0.0),
        entities=len(told),
        total=sum(told),
        squares=sum(d * d for d in told),
        missing_challenger=silent,
    )


def test_a_panel_challenger_does_not_win_by_silence_where_it_would_lose() -> None:
    """A session's mean scatters by 1/sqrt(n) of what an entity does: four sd of the mean are too small a price."""
    trial = improve()
    trial.ledger = tuple(panel(k, 100, 0 if k < 250 else 20) for k in range(900))
    trial.minute()
    found = objective(trial)
    assert found.entity == pytest.approx(1.0, rel=0.02)
    assert found.betting.scale < 0.2
    assert found.mean.mean == pytest.approx(0.8 * panel(300, 100, 20).total / 80 - 0.8, abs=0.05)
    assert found.log_e < 0.0


def test_a_model_that_drops_its_hard_cases_does_not_win_by_it() -> None:
    trial = improve(spec={"stopping": {"maxDuration": "2h"}})
    # better by half where it answers, silent on each fifth
    trial.ledger = tuple(
        replace(r, entities=4, total=4 * r.total, squares=4 * r.squares, missing_challenger=1)
        for r in sessions(0.5, 3000)
    )
    trial.minute()
    assert objective(trial).log_e < 0.0
    assert trial.until(reasons.NOT_SHOWN).ruling.verdict == "KeepChampion"


def test_a_missing_prediction_of_the_champion_is_left_out_and_above_five_percent_holds() -> None:
    trial = after_burn_in()
    before = objective(trial)
    trial.ledger = (row(260, 0.25, entities=10, missing_champion=5),)
    found = trial.minute()
    assert objective(trial).betting == before.betting.fold(before.folded, 0.25)
    assert found.ruling.reason == reasons.GATHERING_EVIDENCE  # 5 of 275
    trial.ledger = (row(261, 0.25, entities=10, missing_champion=20),)
    held = trial.minute()
    assert (held.ruling.reason, held.ruling.verdict) == (reasons.CHAMPION_MISSING, "Hold")


def test_overlapping_labels_leave_sessions_out() -> None:
    trial = improve(model=replace(Trial().model, horizon=5))
    trial.ledger = sessions(0.2, 1500)
    trial.minute()
    assert trial.state is not None
    assert (objective(trial).burn_in.count, objective(trial).folded) == (250, 50)
    assert trial.state.evidence.sessions.overlapping == 1200


def test_sessions_are_folded_once_and_in_order() -> None:
    trial = after_burn_in()
    before = objective(trial)
    trial.ledger = (WALK_FORWARD[259],)
    assert trial.minute().ruling.reason == reasons.GATHERING_EVIDENCE
    assert objective(trial) == before
    trial.ledger = (WALK_FORWARD[261],)
    found = trial.minute()
    assert found.ruling.reason == reasons.EVIDENCE_REFUSED
    assert objective(trial) == before
    for bad in (row(260, math.nan), row(260, 0.1, entities=-1), row(260, 0.1, late=-1)):
        trial.ledger = (bad,)
        assert trial.minute().ruling.reason == reasons.EVIDENCE_REFUSED


def test_a_resumed_pair_goes_on_where_it_ended() -> None:
    whole = improve()
    whole.ledger = WALK_FORWARD[:1000]
    whole.minute()
    carried = Carried("loss", "Superiority", "PairedLoss", objective(whole).log_e, through=999)
    again = improve(spending=replace(EASY, carried=(carried,)))
    again.ledger = WALK_FORWARD[:1000]
    again.minute()
    assert objective(again).log_e == pytest.approx(carried.log_e)
    assert objective(again).folded == 0
    again.ledger = WALK_FORWARD[1000:1010]
    again.minute()
    assert objective(again).folded == 10


def test_all_objectives_are_needed() -> None:
    two = [{"name": "loss", "metric": "PairedLoss"}, {"name": "much", "metric": "PairedLoss", "margin": "0.15"}]
    trial = improve(spec={"objectives": two})
    trial.ledger = WALK_FORWARD
    held = trial.minutes(60)
    assert held.ruling.reason == reasons.GATHERING_EVIDENCE
    assert "objective much" in held.ruling.message
    assert "objective loss" not in held.ruling.message


def test_a_margin_that_no_bet_can_reach_voids_the_objective_and_says_so() -> None:
    trial = improve(spec={"objectives": [{"name": "loss", "metric": "PairedLoss", "margin": "5"}]})
    trial.ledger = WALK_FORWARD
    found = trial.minutes(30)
    assert objective(trial).log_e is None
    assert "expected -0.2 < null < 0.2" in found.ruling.message


# --- whether anything can be shown ------------------------------------------------------------------------------------


def underpowered(trial: Trial) -> Any:
    return next(c for c in trial.status.conditions if c.type == "Underpowered")


def test_live_daily_evidence_is_underpowered_and_the_ways_out_are_named() -> None:
    trial = improve(spec={"evidence": {"outcomes": "Live"}, "stopping": {"maxDuration": "30d"}})
    trial.ledger = sessions(0.1, 300)
    trial.minute()
    found = underpowered(trial)
    assert found.status == "True"
    assert "Prequential" in found.message
    assert trial.status.feasibility.expected_at is not None


def test_it_is_said_before_the_first_step_where_it_is_known() -> None:
    trial = Trial(history=(past(0.02, 60, each=1),), spec=IMPROVE, ready=(1, 0))
    trial.evaluate()
    assert trial.state is None
    assert underpowered(trial).status == "True"
    assert "requests a block" in underpowered(trial).message


def test_without_anything_observed_it_is_unknown() -> None:
    trial = Trial(ready=(1, 0), history=())
    trial.evaluate()
    assert (underpowered(trial).status, underpowered(trial).reason) == ("Unknown", reasons.NOT_ESTIMATED)


def test_enough_traffic_is_feasible() -> None:
    trial = Trial(spending=EASY, history=(past(0.005, 60),))
    trial.evaluate()
    assert underpowered(trial).status == "False"
    assert 10 < trial.status.feasibility.blocks_needed < 200


def test_a_plan_that_never_splits_cannot_show_non_inferiority() -> None:
    shadow = {"traffic": {"steps": [{"name": "shadow", "mirror": 100, "minBlocks": 3}]}}
    trial = Trial(spending=EASY, history=(past(0.005, 60),), spec=shadow)
    trial.evaluate()
    assert underpowered(trial).status == "True"


def test_a_return_model_with_one_series_is_refused_before_it_costs_a_request() -> None:
    facts = replace(Trial().model, label="Return")
    refused = Trial(spec=IMPROVE, model=facts).evaluate()
    assert (refused.ruling.reason, refused.ruling.verdict) == (reasons.INFEASIBLE, "KeepChampion")
    assert "rank IC" in refused.ruling.message
    assert Trial(spec=IMPROVE, model=replace(facts, panel=True)).evaluate().ruling.reason == reasons.STEP_ENTERED
    assert Trial(model=facts).evaluate().ruling.reason == reasons.STEP_ENTERED  # a Refresh claims nothing of it


PROFIT = {"objectives": [{"name": "profit", "metric": "PaperPnL", "lossBound": "20"}]}


def profits(mean: float, count: int, source: Any = "Live") -> tuple[Any, ...]:
    return tuple(replace(r, profit=(0.0, r.total), source=source) for r in sessions(mean, count))


def test_profit_is_refused_where_max_duration_makes_it_infeasible() -> None:
    live = {"evidence": {"outcomes": "Live"}, "stopping": {"maxDuration": "30d"}}
    refused = Trial(spec={**IMPROVE, **PROFIT, **live}, ledger=profits(0.1, 300)).evaluate()
    assert (refused.ruling.reason, refused.ruling.verdict) == (reasons.INFEASIBLE, "KeepChampion")
    assert "lossBound 20" in refused.ruling.message


def test_profit_needs_live_sessions() -> None:
    assert not improve(spec=PROFIT).state.terms.prequential  # type: ignore[union-attr]
    refused = improve(spec={**PROFIT, "evidence": {"outcomes": "Prequential"}}).decisions[-1]
    assert refused.ruling.reason == reasons.INFEASIBLE
    assert "trade nothing" in refused.ruling.message


def test_profit_is_judged_by_its_declared_bound() -> None:
    trial = improve(spec={**PROFIT, "evidence": {"outcomes": "Live"}, "stopping": {"maxDuration": "2000d"}})
    trial.ledger = profits(1.0, 1500)
    trial.minute()
    assert objective(trial).bernstein is not None
    assert objective(trial).log_e > 3.0
    broken = replace(row(1500, 0.0, "Live"), profit=(0.0, -25.0))
    trial.ledger = (broken,)
    trial.minute()
    assert objective(trial).log_e is None
    assert "below the floor" in objective(trial).void
    trial.ledger = tuple(replace(r, number=1501 + k) for k, r in enumerate(profits(1.0, 100)))
    trial.minutes(60)
    assert trial.decisions[-1].ruling.verdict is None


def test_a_drawdown_beyond_its_limit_trips_at_once() -> None:
    trial = improve(spec={"circuitBreakers": [{"metric": "PaperDrawdown", "above": "100"}]})
    trial.ledger = (
        replace(row(0, 0.0, "Live"), profit=(0.0, 500.0)),
        replace(row(1, 0.0, "Live"), profit=(0.0, -90.0)),
    )
    assert trial.minute().ruling.verdict is None
    trial.ledger = (replace(row(2, 0.0, "Live"), profit=(0.0, -10.5)),)
    found = trial.minute()
    assert (found.ruling.reason, found.ruling.test) == (reasons.BREAKER_TRIPPED, "breaker-PaperDrawdown")


def test_the_promotion_thresholds_of_an_improve_are_all_at_its_level() -> None:
    """Rule 18: those that say 1/alpha mean 1/alpha_j. A false promotion counts, whatever claim let it pass."""
    trial = improve(spending=replace(EASY, test=3))
    trial.ledger = WALK_FORWARD
    found = {(t.name, t.side): t for t in trial.minute().status.tests}
    level = e_lond_level(0.05, 3, 0)
    assert isinstance(level, float)
    assert float(found[("errors", "NonInferiority")].threshold) == pytest.approx(-math.log(level), abs=1e-4)
    last = trial.until(reasons.PROMOTED)
    assert float(rows(last.summary)["errors"]["notWorse"]) >= -math.log(level)
    assert f"threshold {-math.log(level):.2f}" in last.grounds[-1].message


def test_nothing_is_promoted_that_nobody_asked_to_be_shown() -> None:
    """A refresh without guardrails has nothing to show. Admission refuses it; if it did not, nothing is promoted."""
    trial = Trial(spending=EASY, spec={"stopping": {"maxDuration": "1h"}})
    trial.evaluate()
    assert trial.state is not None
    bare = replace(trial.state.evidence, guardrails=())
    assert noninferiority_over(trial.state.terms, bare) == -math.inf
