"""What people did, and what waits for them, when an experiment ends: each of these failed once."""

from __future__ import annotations

from fiduciary.decide import reasons
from fiduciary.decide.experiment.recorded import recorded
from tests.unit.decide.laboratory import TEMPLATE, laboratory, newcomer, tried_to
from tests.unit.decide.lives import act_now, calm, digest_of, pin
from tests.unit.decide.logs import spending
from tests.unit.decide.test_experiment_verdicts import FIRST, harmed, promoted, tried_again, weights
from tests.unit.decide.worlds import approval, merged


def test_a_verdict_that_cannot_be_carried_out_any_more_is_recorded_all_the_same() -> None:
    """Promote was ruled and waited; meanwhile a person rejected the version: the experiment must come to its end."""
    lab = tried_to("half")
    lab.sim.edit({"suspend": True})
    lab.stopped = True
    lab.ruled(FIRST, "Promote", reasons.PROMOTED, **spending())
    calm(lab.sim, 20)
    lab.sim.approve(approval("no", "Reject", lab.sim.now, evidenceDigest=lab.history.challenger_evidence))
    lab.sim.advance(seconds=1)
    calm(lab.sim, 20)
    lab.sim.edit({"suspend": False})
    lab.stopped = False
    lab.seconds(60)
    assert weights(lab.sim) == {"1": 100}
    assert recorded(lab.sim.world.records, lab.one(FIRST)) is not None, lab.sim.actions
    lab.delete(FIRST)
    lab.seconds(30)
    assert lab.experiments == {}


def test_a_rollback_by_a_person_while_a_promotion_waits_does_not_hold_the_next_challengers_for_ever() -> None:
    lab = tried_again()
    second = f"{FIRST[:-1]}3"
    lab.sim.edit({"suspend": True})
    lab.ruled(second, "Promote", reasons.PROMOTED, **spending(2))
    lab.stopped = True
    calm(lab.sim, 20)
    act_now(lab.sim, "back", "RollBack")
    calm(lab.sim, 20)
    lab.sim.edit({"suspend": False})
    lab.stopped = False
    lab.seconds(120)
    assert recorded(lab.sim.world.records, lab.one(second)) is not None, lab.sim.actions
    assert lab.history.trial is None or lab.history.trial.experiment != second


def test_harm_of_a_version_that_people_made_champion_again_writes_no_record_without_end() -> None:
    """Version 2 was promoted by its experiment; people pinned 3, and then 2 again, all within the window."""
    lab = promoted()
    newcomer(lab, 8)
    lab.stopped = True
    pin(lab.sim, "3")
    calm(lab.sim, 30)
    assert weights(lab.sim) == {"3": 100}
    pin(lab.sim, "2")
    calm(lab.sim, 30)
    lab.sim.edit({"promotion": {"mode": "Auto"}})
    calm(lab.sim, 30)
    assert weights(lab.sim) == {"2": 100}
    before = len(lab.sim.records)
    harmed(lab)
    calm(lab.sim, 30)
    assert len(lab.sim.records) <= before + 1, lab.sim.actions


def test_what_became_of_a_version_after_another_one_took_its_place_is_no_harm_of_its_promotion() -> None:
    """Its pods are scaled away when two others were champion since: that is no reason to refuse it."""
    lab = promoted()
    newcomer(lab, 8)
    lab.stopped = True
    pin(lab.sim, "3")
    calm(lab.sim, 30)
    harmed(lab)  # pods of a version that serves nobody: not ready
    calm(lab.sim, 30)
    assert digest_of(lab.sim, "2") not in lab.history.refused, lab.sim.actions


def test_a_dry_run_rejects_nobody() -> None:
    lab = laboratory({"promotion": {"experiment": merged(TEMPLATE, {"mode": "DryRun"})}})
    for _ in range(60):
        lab.seconds(10)
        if lab.one(FIRST).status.challenger is not None:
            break
    assert lab.one(FIRST).status.challenger is not None, lab.told()
    lab.ruled(FIRST, "KeepChampion", reasons.NOT_SHOWN, **spending())
    lab.seconds(60)
    assert lab.history.challenger is not None, lab.sim.actions
    assert digest_of(lab.sim, "2") not in lab.history.refused
