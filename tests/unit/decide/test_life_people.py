"""What people do to a training model: suspend, kill, resume, abort, retrain."""

from __future__ import annotations

from dataclasses import replace

from fiduciary.api.meta import ANNOTATION_EDITED_BY
from fiduciary.decide import reasons
from tests.unit.decide.lives import LINEAR, act_now, champion, measured, trained
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import PLATFORM
from tests.unit.decide.worlds import approval as act

# --- suspend, kill, abort, retrain ------------------------------------------------------------------------------------


def test_suspended_model_starts_nothing_and_is_one_write() -> None:
    sim = SimulatedWorld({"suspend": True})
    sim.settle()
    assert sim.created == []
    assert sim.condition("Suspended")[0] == "True"
    assert sim.status_writes == 1
    assert sim.events == []
    assert sim.status.phase == "Suspended"
    sim.advance(days=2)
    sim.settle()
    assert sim.status_writes == 1
    sim.edit({"suspend": False})
    sim.settle()
    assert len(sim.created) == 1


def test_a_running_training_of_a_suspended_model_ends_and_is_judged() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.edit({"suspend": True})
    sim.settle()
    assert len(sim.jobs) == 1
    sim.finish(measured(sim))
    sim.settle()
    assert sim.actions == ["Accept"]
    sim.edit({"training": {"seed": 8}})
    sim.settle()
    assert len(sim.created) == 1


def test_kill_latches_until_a_newer_resume() -> None:
    sim = champion()
    sim.edit({"kill": {"engaged": True}})
    sim.settle()
    assert sim.actions[-1] == "Kill"
    assert sim.condition("Killed")[:2] == ("True", reasons.KILL_ENGAGED)
    assert sim.status.phase == "Killed"
    act_now(sim, "too-early", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Kill", "an engaged field keeps it engaged"
    sim.edit({"kill": {"engaged": False}})
    sim.settle()
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Resume"
    assert sim.condition("Killed")[0] in ("", "False")
    assert sim.status.kill is not None
    assert not sim.status.kill.engaged


def test_latched_kill_says_what_to_do() -> None:
    sim = SimulatedWorld({"kill": {"engaged": True}})
    sim.settle()
    sim.advance(seconds=5)
    sim.edit({"kill": {"engaged": False}})
    sim.settle()
    status, reason, message = sim.condition("Killed")
    assert (status, reason) == ("True", reasons.RESUME_NEEDED)
    assert "Resume" in message
    assert sim.created == []


def test_a_resume_of_the_same_second_is_not_newer() -> None:
    sim = SimulatedWorld({"kill": {"engaged": True}})
    sim.approve(act("resume-1", "Resume", sim.now))
    sim.settle()
    sim.edit({"kill": {"engaged": False}})
    sim.settle()
    assert sim.actions == ["Kill"]


def test_a_kill_of_the_second_of_the_resume_is_not_lost() -> None:
    sim = champion()
    act_now(sim, "kill-1", "Kill")
    sim.settle()
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Resume"
    sim.approve(act("kill-2", "Kill", sim.now))
    sim.settle()
    assert sim.actions[-1] == "Kill"


def test_kill_by_approval_counts_without_policies_and_resume_does_not() -> None:
    sim = champion()
    sim.world = replace(sim.world, platform=replace(PLATFORM, approval_policies_active=False))
    act_now(sim, "kill-1", "Kill", "bob@desk")
    sim.settle()
    assert sim.actions[-1] == "Kill"
    assert sim.records[-1].actor.user == "bob@desk"
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Kill"
    assert sim.condition("Killed")[1] == reasons.APPROVALS_NOT_GUARDED
    sim.world = replace(sim.world, platform=replace(PLATFORM, approval_policies_since=sim.now))
    sim.settle()
    assert sim.actions[-1] == "Kill", "the policies are newer than the approval"


def test_who_edited_the_spec_cannot_resume_it() -> None:
    sim = champion()
    sim.annotate(**{ANNOTATION_EDITED_BY: "ana@desk"})
    act_now(sim, "kill-1", "Kill")
    sim.settle()
    act_now(sim, "resume-1", "Resume", "ana@desk")
    sim.settle()
    assert sim.actions[-1] == "Kill"
    assert "ana@desk" in sim.condition("Killed")[2]
    act_now(sim, "resume-2", "Resume", "bob@desk")
    sim.settle()
    assert sim.actions[-1] == "Resume"


def test_a_gitops_editor_is_nobody_who_approves() -> None:
    robot = "system:serviceaccount:argocd:controller"
    sim = champion()
    sim.world = replace(sim.world, platform=replace(PLATFORM, gitops_editors=(robot,)))
    sim.annotate(**{ANNOTATION_EDITED_BY: robot})
    act_now(sim, "kill-1", "Kill")
    sim.settle()
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Resume"


def test_nothing_is_started_while_killed() -> None:
    sim = champion()
    act_now(sim, "kill-1", "Kill")
    sim.settle()
    sim.edit(LINEAR)
    sim.settle()
    assert len(sim.created) == 1
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert len(sim.created) == 2


def test_abort_ends_the_training_for_good() -> None:
    sim = SimulatedWorld()
    sim.settle()
    act_now(sim, "abort-1", "Abort")
    sim.settle()
    assert sim.jobs == ()
    assert sim.actions == ["Abort"]
    assert sim.records[0].actor.user == "ana@desk"
    sim.advance(days=1)
    sim.settle()
    assert len(sim.created) == 1
    act_now(sim, "retrain-1", "Retrain")
    trained(sim)
    assert sim.actions == ["Abort", "Accept"]


def test_an_old_abort_does_not_end_a_later_training() -> None:
    sim = champion()
    act_now(sim, "abort-1", "Abort")
    sim.settle()
    sim.advance(minutes=1)
    sim.edit(LINEAR)
    trained(sim)
    assert sim.actions == ["Accept", "Accept"]


def test_retrain_of_fixed_data_says_that_nothing_is_new() -> None:
    sim = champion()
    act_now(sim, "retrain-1", "Retrain")
    sim.settle()
    assert len(sim.created) == 1
    assert sim.condition("NothingNew")[0] == "True"
    assert "2017-12-29" in sim.condition("NothingNew")[2]
    sim.edit({"data": {"asOf": "2018-06-29"}})
    trained(sim)
    assert len(sim.created) == 2
    assert sim.condition("NothingNew")[0] in ("", "False")


def test_retrain_of_rolling_data_trains_once_with_todays_date() -> None:
    sim = champion({"data": {"asOf": "Rolling"}})
    sim.advance(days=2)
    act_now(sim, "retrain-1", "Retrain")
    trained(sim)
    assert [record.cause.kind for record in sim.records] == ["Initial", "Retrain"]
    assert sim.records[1].evidence.summary["asOf"] == "2026-11-26"
    assert sim.records[1].evidence.summary["trials"] == 1, "a refresh is no new configuration"
    sim.advance(days=2)
    sim.settle()
    assert len(sim.created) == 2
