"""What records keep of an experiment, and what the next one starts with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fiduciary.decide import identity, reasons
from fiduciary.decide.experiment.spent import Spent
from fiduciary.decide.experiment.world import Anchor, Spending
from tests.unit.decide.experiment.trials import CHALLENGER, CHAMPION, Trial, past, sessions

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
    assert float(found.summary["guardrails"]["errors"]["harm"]) > 3.0


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
    trial.challenger = None  # superseded: final
    found = trial.evaluate()
    assert len(json.dumps(found.summary)) < 3072


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
        "guardrails": {"errors": {"harm": "0.1", "notWorse": "3.1", "rate": "0.0205", "difference": "0.0005"}},
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
    assert (again.test, again.discoveries) == (1, 0)
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
