"""What records keep of an experiment, and what the next one starts with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fiduciary.decide import identity, reasons
from fiduciary.decide.experiment.case import Case
from fiduciary.decide.experiment.spent import Spent
from fiduciary.decide.experiment.summary import rows, summary
from fiduciary.decide.experiment.world import Anchor, Resumed, Spending
from fiduciary.evidence.blocks import Counts
from tests.unit.decide.experiment.trials import CHALLENGER, CHAMPION, Trial, past, sessions

ANCHORED = Spending(anchors=(Anchor("errors", 0.02),))
A, B, C = "sha256:a", "sha256:b", "sha256:c"


def promoted(purpose: str, spending: Spending, rates: tuple[float, float] = (0.02, 0.0)) -> Any:
    trial = Trial(spec={"purpose": purpose}, spending=spending, bad=rates, history=(past(0.02, 60),))
    trial.evaluate()
    trial.ledger = sessions(0.2, 3000)
    return trial.until(reasons.PROMOTED)


def test_the_record_of_a_promotion_names_each_claim_with_its_numbers() -> None:
    found = promoted("Improve", Spending(configurations=2))
    assert [ground.reason for ground in found.grounds] == [reasons.PREQUENTIAL_EVIDENCE, reasons.NOT_WORSE]
    assert "2750 sessions" in found.grounds[0].message
    assert found.summary["configurations"] == 2
    assert len(json.dumps(found.summary)) < 1500
    identity.digest(found.summary)


def test_other_verdicts_have_one_ground_and_what_is_not_final_has_none() -> None:
    trial = Trial(bad=(0.0, 0.5))
    assert trial.evaluate().grounds == ()
    found = trial.until(reasons.HARM_SHOWN)
    assert [ground.reason for ground in found.grounds] == [reasons.HARM_SHOWN]
    assert float(rows(found.summary)["errors"]["harm"]) > 3.0


def test_the_largest_experiment_still_fits_into_a_record() -> None:
    names = [f"a-guardrail-with-a-long-name-{k:02}" for k in range(16)]
    spec = {
        "guardrails": [{"name": n, "metric": "ErrorRate", "margin": {"absolute": "0.005"}} for n in names],
        "objectives": [{"name": f"objective-{k}", "metric": "PairedLoss"} for k in range(8)],
        "purpose": "Improve",
    }
    trial = Trial(spec=spec, history=tuple(past(0.02, 60, name=n) for n in names))
    trial.evaluate()
    trial.ledger = sessions(0.2, 300)
    counted = tuple(
        replace(one, final_champion=Counts(100_000, 371), final_challenger=Counts(99_999, 300), carried_harm=-12.3)
        for one in trial.evaluate().state.evidence.guardrails  # type: ignore[union-attr]
    )
    assert trial.state is not None
    state = replace(trial.state, evidence=replace(trial.state.evidence, guardrails=counted))
    assert len(json.dumps(summary(Case.of(trial.world(), trial.now), state))) < 3072


def test_a_discovery_is_the_new_anchor_and_raises_the_next_level() -> None:
    summary = promoted("Improve", Spending()).summary
    spent = Spent().after("Promote", A, B, summary)
    assert (spent.tests, spent.discoveries) == (1, 1)
    assert spent.anchors == (Anchor("errors", 0.0),)
    assert spent.spending(B, C, 3) == Spending(2, 1, 3, spent.anchors)


def test_a_refresh_spends_no_test_and_adds_what_it_lost() -> None:
    rates = (0.02, 0.0205)
    summary = {
        **promoted("Refresh", Spending()).summary,
        "guardrails": {"errors": ["ErrorRate", "0.1", None, None, "0.0205", "0.0005"]},
    }
    spent = Spent().after("Promote", A, B, summary)
    assert (spent.tests, spent.discoveries) == (0, 0)
    assert spent.anchors[0].rate == pytest.approx(rates[0])
    assert spent.anchors[0].differences == pytest.approx(0.0005)
    twice = spent.after("Promote", B, C, summary)
    assert (twice.anchors[0].rate, twice.anchors[0].differences) == (spent.anchors[0].rate, pytest.approx(0.001))


def test_a_test_that_began_is_spent_whatever_came_of_it_and_a_resumed_pair_is_the_same_test() -> None:
    trial = Trial(spec={"purpose": "Improve", "stopping": {"maxDuration": "1h"}}, history=(past(0.02, 60),))
    trial.evaluate()
    trial.ledger = sessions(0.02, 600)
    found = trial.until(reasons.NOT_SHOWN)
    spent = Spent().after("KeepChampion", A, B, found.summary)
    assert (spent.tests, spent.discoveries, spent.anchors) == (1, 0, ())
    again = spent.spending(A, B, 1)
    assert again.resumed == Resumed(1, 0, 1)
    assert again.test == 2  # if it asks another question
    assert {(one.name, one.side) for one in again.carried} == {
        ("errors", "Harm"), ("errors", "NonInferiority"), ("loss", "Superiority")
    }  # fmt: skip
    assert next(one for one in again.carried if one.side == "Superiority").through == 599
    assert spent.spending(A, C, 1).test == 2
    # resumed and ended again: its evidence replaces the old one, and it is still one test
    assert spent.after("KeepChampion", A, B, found.summary) == spent


def test_what_never_began_spends_nothing() -> None:
    trial = Trial(ready=(1, 0), challenger=None)
    found = trial.evaluate()
    assert found.ruling.reason == reasons.SUPERSEDED
    assert Spent().after("KeepChampion", str(CHAMPION.digest), str(CHALLENGER.digest), found.summary) == Spent()


# --- what goes on and what begins anew --------------------------------------------------------------------------------

LOSS = {"name": "loss", "metric": "PairedLoss"}
LATENCY = {"name": "errors", "metric": "LatencyAbove", "threshold": "250ms", "margin": {"absolute": "0.005"}}


def ended(spending: Spending = ANCHORED, mean: float = 0.05, **spec: Any) -> Any:
    """An Improve on A and B that ended without a promotion."""
    plan = {"purpose": "Improve", "stopping": {"minDuration": "1m", "maxDuration": "1h"}, **spec}
    trial = Trial(spec=plan, spending=spending, history=(past(0.02, 60),), bad=(0.02, 0.02))
    trial.evaluate()
    trial.ledger = sessions(mean, 600)
    return trial.until(reasons.NOT_SHOWN)


def begun(spending: Spending, **spec: Any) -> Any:
    trial = Trial(spec={"purpose": "Improve", **spec}, spending=spending, history=(past(0.02, 60),))
    return trial.evaluate().state


def again(found: Any, configurations: int = 1) -> Spending:
    return Spent(anchors=ANCHORED.anchors).after("KeepChampion", A, B, found.summary).spending(A, B, configurations)


def test_the_same_question_goes_on_where_it_ended() -> None:
    found = ended()
    state = begun(again(found))
    assert (state.terms.test, state.terms.objectives[0].through) == (1, 599)
    assert state.terms.objectives[0].carried == pytest.approx(found.state.evidence.objectives[0].log_e, abs=1e-4)
    guardrail, before = state.evidence.guardrails[0], found.state.evidence.guardrails[0]
    assert guardrail.harm_log_e == pytest.approx(before.harm_log_e, abs=1e-4)
    assert guardrail.noninferiority_log_e == pytest.approx(before.noninferiority_log_e, abs=1e-4)


def test_live_rows_of_the_next_experiment_begin_anew() -> None:
    """Each experiment has a live ledger of its own: none of its rows is in what an earlier one has shown."""
    live = {"evidence": {"outcomes": "Live"}}
    found = ended(**live)
    state = begun(again(found), **live)
    assert (state.terms.test, state.terms.objectives[0].through) == (1, -1)
    assert state.terms.objectives[0].carried == pytest.approx(found.state.evidence.objectives[0].log_e, abs=1e-4)


@pytest.mark.parametrize(
    "spec",
    [
        {"objectives": [{**LOSS, "margin": "-0.1"}]},
        {"objectives": [{"name": "loss", "metric": "PaperPnL", "lossBound": "5"}]},
        {"evidence": {"outcomes": "Live"}},  # else N would be bypassed: it only counts against replays
        {"objectives": [{**LOSS, "name": "other"}]},
    ],
    ids=["margin", "metric", "outcomes", "name"],
)
def test_another_objective_is_another_test_and_takes_nothing_over(spec: dict[str, Any]) -> None:
    state = begun(again(ended(), 20), **spec)
    assert state.terms.test == 2
    assert (state.terms.objectives[0].carried, state.terms.objectives[0].through) == (0.0, -1)


def test_another_objective_can_be_gone_on_with_in_its_turn() -> None:
    other = {"objectives": [{**LOSS, "margin": "-0.1"}]}
    spent = Spent(anchors=ANCHORED.anchors).after("KeepChampion", A, B, ended().summary)
    second = ended(spent.spending(A, B, 1), **other)
    assert second.summary["test"] == 2
    spent = spent.after("KeepChampion", A, B, second.summary)
    assert begun(spent.spending(A, B, 1), **other).terms.test == 2
    assert begun(spent.spending(A, B, 1)).terms.test == 3  # the first question again is a third look


def test_replays_that_go_on_keep_the_configurations_that_they_were_chosen_from() -> None:
    found = ended(Spending(configurations=20, anchors=ANCHORED.anchors))
    assert begun(again(found, 1)).terms.configurations == 20


def test_non_inferiority_goes_on_at_a_margin_that_is_no_smaller() -> None:
    found = ended()
    before = found.state.evidence.guardrails[0].noninferiority_log_e

    def carried(margin: str) -> float:
        guardrail = {"name": "errors", "metric": "ErrorRate", "margin": {"absolute": margin}}
        return begun(again(found), guardrails=[guardrail]).terms.guardrails[0].carried_noninferiority

    assert abs(before) > 0.01
    assert carried("0.005") == pytest.approx(before, abs=1e-4)
    assert carried("0.01") == pytest.approx(before, abs=1e-4)  # rule 6 caps it at the same
    assert carried("0.004") == 0.0  # shown at .005 says nothing at .004


def test_another_metric_under_the_same_name_takes_nothing_over() -> None:
    its = begun(again(ended()), guardrails=[LATENCY]).terms.guardrails[0]
    assert (its.carried_harm, its.carried_noninferiority) == (0.0, 0.0)


def test_a_refresh_first_gives_no_number_of_another_test_away() -> None:
    refreshed = promoted("Refresh", Spending()).summary
    spent = Spent().after("KeepChampion", A, B, refreshed)
    spent = spent.after("KeepChampion", A, C, ended().summary)
    assert spent.spending(A, B, 1).test == 2
    assert begun(spent.spending(A, B, 1)).terms.test == 2
    # and a refresh between two looks at the same question does not forget it
    asked = Spent().after("KeepChampion", A, B, ended().summary)
    assert asked.after("KeepChampion", A, B, refreshed).spending(A, B, 1).resumed == Resumed(1, 0, 1)


def test_void_evidence_stays_void() -> None:
    profit = {"name": "loss", "metric": "PaperPnL", "lossBound": "4"}
    found = ended(objectives=[profit])
    evidence = found.state.evidence
    void = replace(evidence.objectives[0], void="a loss of 9", bernstein=None)
    state = replace(found.state, evidence=replace(evidence, objectives=(void,)))
    trial = Trial(spec={"purpose": "Improve", "objectives": [profit]}, spending=ANCHORED, history=(past(0.02, 60),))
    kept = summary(Case.of(trial.world(), trial.now), state)
    spending = Spent().after("KeepChampion", A, B, kept).spending(A, B, 1)
    assert begun(spending, objectives=[profit]).terms.objectives[0].carried < -1e9


def test_a_promotion_that_was_gone_back_on_leaves_the_anchors_as_they_were() -> None:
    first = Spent().after("Promote", A, B, promoted("Improve", Spending()).summary)
    anchors = first.anchors
    worse = {"errors": ["ErrorRate", "0", None, None, "0.03", "0.01"]}
    for purpose in ("Improve", "Refresh"):
        summary_of = {**promoted(purpose, Spending()).summary, "guardrails": worse}
        second = first.after("Promote", B, C, summary_of)
        assert second.anchors != anchors
        assert second.after("RollBack", B, C, summary_of).anchors == anchors
        # the one before it can be gone back on, too; a challenger that never was promoted changes nothing
        assert second.after("RollBack", B, C, summary_of).after("RollBack", A, B, summary_of).anchors == ()
        assert second.after("RollBack", C, A, summary_of).anchors == second.anchors


def test_a_refresh_of_another_configuration_is_refused_before_it_costs_a_request() -> None:
    trial = Trial(spending=ANCHORED, same_configuration=False)
    found = trial.evaluate()
    assert (found.ruling.reason, found.ruling.verdict, found.state) == (reasons.NOT_A_REFRESH, "KeepChampion", None)
    trial.spec = {"purpose": "Improve"}
    assert trial.evaluate().ruling.reason == reasons.STEP_ENTERED
