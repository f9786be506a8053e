"""Who becomes champion by the will of people: approvals, rejections, rollbacks, pins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fiduciary.api.meta import ANNOTATION_EDITED_BY
from fiduciary.decide import reasons
from tests.unit.decide.lives import (
    act_now,
    answers,
    approve,
    calm,
    challenged,
    digest_of,
    pin,
    promoted,
    replicas,
    served,
    service_name,
    trained,
)
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import PLATFORM, approval


def roll_back(sim: SimulatedWorld, name: str, version: str | None = None) -> None:
    sim.advance(seconds=2)
    named = {} if version is None else {"version": version}
    sim.approve(approval(name, "RollBack", sim.now, "ana@desk", **named))
    sim.advance(seconds=1)


# --- approvals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["Manual", "Auto"])
def test_a_challenger_waits_for_an_approval(mode: str) -> None:
    sim = challenged({"promotion": {"mode": mode}})
    assert answers(sim) == "1"
    status, reason, message = sim.condition("PromotionPending")
    assert (status, reason) == ("True", reasons.APPROVAL_NEEDED)
    request = sim.status.approval_request
    assert request is not None
    assert request.digest in message
    assert (request.version, request.needed, request.given) == ("2", 1, 0)
    assert request.digest == sim.records[-1].evidence.digest
    assert ("no experiment can judge it" in message) == (mode == "Auto")
    assert sim.condition("Ready")[0] == "True"
    assert sim.condition("Stalled")[0] == "False"


def test_an_approval_promotes_with_one_record_and_one_write() -> None:
    sim = challenged()
    writes = len(sim.serving.writes)
    approve(sim, "ok", "ana@desk")
    sim.settle()
    assert sim.actions[-1] == "Promote"
    record = sim.records[-1]
    assert record.from_ is not None
    assert record.to is not None
    assert (record.from_.version, record.to.version, record.actor.user) == ("1", "2", "ana@desk")
    assert record.evidence.summary["approvers"] == ["ana@desk"]
    assert [write for write in sim.serving.writes[writes:] if write[1] == "HTTPRoute"] == [
        ("apply", "HTTPRoute", "spx-volatility")
    ]
    assert answers(sim) == "2"
    calm(sim)
    status = sim.status
    assert status.champion is not None
    assert status.previous_champion is not None
    assert (status.champion.version, status.previous_champion.version) == ("2", "1")
    assert status.challenger is status.approval_request is None
    assert status.anchor is not None
    assert status.anchor.version == "1", "no superiority was shown"
    assert sim.registry.aliases == {"champion": "2"}
    assert sim.condition("Ready")[0] == "True"
    assert sim.condition("PromotionPending")[0] == ""


def test_two_people_are_two_people() -> None:
    sim = challenged({"promotion": {"approvals": 2}})
    approve(sim, "ok-1", "ana@desk")
    approve(sim, "ok-2", "ana@desk")
    calm(sim, 10)
    assert answers(sim) == "1"
    request = sim.status.approval_request
    assert request is not None
    assert (request.needed, request.given) == (2, 1)
    approve(sim, "ok-3", "bob@desk")
    calm(sim, 10)
    assert answers(sim) == "2"
    assert sim.records[-1].evidence.summary["approvers"] == ["ana@desk", "bob@desk"]


def test_the_author_and_the_unguarded_do_not_count() -> None:
    sim = challenged()
    sim.annotate(**{ANNOTATION_EDITED_BY: "ana@desk"})
    approve(sim, "own", "ana@desk")
    calm(sim, 10)
    assert sim.condition("PromotionPending")[1] == reasons.APPROVER_IS_EDITOR
    sim.world = replace(sim.world, platform=replace(PLATFORM, approval_policies_active=False))
    approve(sim, "unguarded", "bob@desk")
    calm(sim, 10)
    assert sim.condition("PromotionPending")[1] == reasons.APPROVALS_NOT_GUARDED
    assert answers(sim) == "1"


def test_an_approval_of_other_evidence_is_of_another_version() -> None:
    sim = challenged()
    approve(sim, "early")
    first = sim.world.approvals[-1].spec.evidence_digest
    sim.edit({"suspend": True})
    sim.settle()
    sim.edit({"suspend": False, "training": {"seed": 11}})
    sim.world = replace(sim.world, approvals=())
    trained(sim)
    sim.advance(seconds=1)
    sim.approve(approval("late", "Approve", sim.now, evidenceDigest=first))
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.status.challenger is not None
    assert sim.status.challenger.version == "3"


def test_what_people_are_asked_stays_the_same_when_gates_change() -> None:
    sim = challenged()
    before = sim.status.approval_request
    sim.edit({"gates": [{"metric": "ewma_skill", "above": "0.01"}]})
    calm(sim, 10)
    assert sim.actions[-1] == "Accept"
    assert sim.status.approval_request == before


def test_a_rejected_challenger_goes_and_no_gate_brings_it_back() -> None:
    sim = challenged()
    approve(sim, "no", "bob@desk", "Reject")
    calm(sim)
    assert sim.actions[-1] == "Reject"
    assert sim.status.challenger is None
    assert sim.condition("CandidateRejected")[:2] == ("True", reasons.REJECTED_BY_PERSON)
    assert replicas(sim, "2") is None, "nothing needs it"
    assert sim.registry.aliases == {"champion": "1"}
    sim.edit({"gates": [{"metric": "ewma_skill", "above": "0.01"}]})
    calm(sim, 20)
    assert sim.status.challenger is None
    assert sim.condition("Ready")[0] == "True"


def test_a_doubt_beats_a_consent_of_the_same_moment() -> None:
    sim = challenged()
    request = sim.status.approval_request
    assert request is not None
    sim.advance(seconds=1)
    for name, decision, who in (("a", "Approve", "ana@desk"), ("b", "Reject", "bob@desk")):
        sim.approve(approval(name, decision, sim.now, who, evidenceDigest=request.digest))
    calm(sim, 20)
    assert sim.actions[-1] == "Reject"
    assert answers(sim) == "1"


def test_a_suspended_model_is_not_promoted() -> None:
    sim = challenged()
    sim.edit({"suspend": True})
    approve(sim, "ok")
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.condition("PromotionPending")[1] == reasons.SUSPENDED_BY_SPEC
    sim.edit({"suspend": False})
    calm(sim, 20)
    assert answers(sim) == "2"


def test_without_serving_an_approval_moves_the_alias_alone() -> None:
    sim = challenged()
    sim.edit({"serving": None})
    calm(sim)
    approve(sim, "ok")
    calm(sim, 10)
    assert sim.registry.aliases == {"champion": "2"}
    assert sim.records[-1].traffic is None
    assert sim.serving.objects == {}


# --- rollbacks -------------------------------------------------------------------------------------------------------


def test_a_person_rolls_back_at_once() -> None:
    sim = promoted()
    roll_back(sim, "back")
    sim.settle()
    assert sim.actions[-1] == "RollBack"
    assert answers(sim) == "1"
    calm(sim)
    assert sim.condition("Ready")[0] == "True"
    assert sim.registry.aliases == {"champion": "1"}
    assert sim.status.previous_champion is None, "the version that was left is no way back"
    assert [entry.reason for entry in sim.status.rejected_versions] == [reasons.ROLLED_BACK_BY_PERSON]
    assert reasons.ROLLED_BACK in [event.reason for event in sim.events]


def test_a_rollback_is_carried_out_once() -> None:
    sim = promoted()
    sim.advance(seconds=2)
    for name in ("back-1", "back-2"):
        sim.approve(approval(name, "RollBack", sim.now))
    calm(sim)
    assert sim.actions.count("RollBack") == 1
    assert sim.condition("ActRefused")[0] == ""


def test_a_rollback_to_a_named_version_and_to_none() -> None:
    sim = promoted()
    roll_back(sim, "nowhere", "9")
    calm(sim, 10)
    assert answers(sim) == "2"
    assert sim.condition("ActRefused")[:2] == ("True", reasons.ROLL_BACK_IMPOSSIBLE)
    assert "are 1" in sim.condition("ActRefused")[2]
    roll_back(sim, "back", "1")
    calm(sim, 10)
    assert answers(sim) == "1"


def test_a_rollback_does_not_promote_what_was_never_champion() -> None:
    sim = challenged()
    roll_back(sim, "trick", "2")
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.condition("ActRefused")[1] == reasons.ROLL_BACK_IMPOSSIBLE


def test_an_old_rollback_is_about_the_champion_of_its_day() -> None:
    sim = challenged()
    roll_back(sim, "too-early")
    calm(sim, 10)
    approve(sim, "ok")
    calm(sim)
    assert answers(sim) == "2"
    assert sim.condition("ActRefused")[0] == ""


def test_a_rollback_works_while_suspended() -> None:
    sim = promoted()
    sim.edit({"suspend": True})
    roll_back(sim, "back")
    calm(sim, 10)
    assert answers(sim) == "1"


def test_a_version_that_was_rolled_back_comes_again_by_a_pin_only() -> None:
    sim = promoted()
    roll_back(sim, "back")
    calm(sim)
    roll_back(sim, "forth", "2")
    calm(sim, 10)
    assert answers(sim) == "1"
    pin(sim, "2")
    calm(sim)
    assert answers(sim) == "2"
    assert sim.records[-1].action == "Promote"
    assert sim.status.rejected_versions == ()


# --- pins ------------------------------------------------------------------------------------------------------------


def test_a_pin_promotes_and_its_revert_rolls_back() -> None:
    sim = challenged()
    pin(sim, "2")
    calm(sim, 20)
    assert answers(sim) == "2"
    assert (sim.records[-1].action, sim.records[-1].cause.kind) == ("Promote", "Pinned")
    pin(sim, "1")
    sim.settle()
    assert answers(sim) == "1", "while it is loaded, at once"
    assert (sim.records[-1].action, sim.records[-1].cause.kind) == ("RollBack", "Pinned")
    calm(sim)
    pin(sim, "2")
    sim.settle()
    assert answers(sim) == "2", "and back again"


def test_the_digest_wins_over_the_number() -> None:
    sim = challenged()
    pin(sim, "7", digest_of(sim, "2"))
    calm(sim, 20)
    assert answers(sim) == "2"


def test_a_pin_on_what_did_not_pass_is_refused() -> None:
    sim = challenged()
    sim.edit({"gates": [{"metric": "ewma_skill", "above": "0.9"}]})
    calm(sim)
    assert sim.status.challenger is None
    pin(sim, "2")
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.condition("Stalled")[:2] == ("True", reasons.PINNED_VERSION_REFUSED)
    assert sim.condition("Ready")[0] == "True", "the champion goes on"
    pin(sim, "1")
    calm(sim, 10)
    assert sim.condition("Stalled")[0] == "False", "a champion that newer gates refuse stays"


def test_a_pin_on_an_unknown_version_is_refused() -> None:
    sim = served()
    pin(sim, "1", "sha256:" + "e" * 64)
    calm(sim, 10)
    assert sim.condition("Stalled")[:2] == ("True", reasons.PINNED_VERSION_REFUSED)
    assert digest_of(sim, "1") in sim.condition("Stalled")[2], "it says which digest version 1 has"
    assert answers(sim) == "1"


def test_a_pin_beats_approvals_and_rollbacks() -> None:
    sim = promoted()
    pin(sim, "2")
    roll_back(sim, "back")
    calm(sim, 10)
    assert answers(sim) == "2"
    assert sim.condition("ActRefused")[:2] == ("True", reasons.OVERRIDDEN_BY_PIN)


def test_a_pin_that_is_lifted_changes_nothing() -> None:
    sim = challenged()
    pin(sim, "2")
    calm(sim)
    records = len(sim.records)
    sim.edit({"promotion": {"mode": "Manual", "pinned": None}})
    calm(sim)
    assert len(sim.records) == records
    assert answers(sim) == "2"


def test_a_first_version_that_is_not_the_pinned_one_gets_no_traffic() -> None:
    from tests.unit.decide.worlds import SERVED, merged

    other = {"promotion": {"mode": "Pinned", "pinned": {"version": "1", "digest": "sha256:" + "e" * 64}}}
    sim = SimulatedWorld(merged(SERVED, other))
    trained(sim)
    calm(sim, 20)
    assert sim.actions == ["Accept"]
    assert answers(sim) is None
    assert sim.condition("Stalled")[:2] == ("True", reasons.PINNED_VERSION_REFUSED)
    pin(sim, "1")
    calm(sim, 20)
    assert answers(sim) == "1"


def test_a_pinned_version_that_is_gone_from_the_cluster_is_loaded_first() -> None:
    sim = promoted()
    sim.edit({"serving": {"replicas": 1}, "promotion": {"rollbackWindow": "0s"}})
    sim.edit({"serving": {"keepVersions": 1}})
    calm(sim)
    assert replicas(sim, "1") is None
    pin(sim, "1")
    sim.settle()
    assert answers(sim) == "2", "nobody is sent to pods that are not there"
    assert sim.condition("PromotionPending")[0] == "True"
    calm(sim, 30)
    assert answers(sim) == "1"


# --- requests that a challenger does not take -------------------------------------------------------------------------


def test_a_challenger_that_refuses_clients_requests_is_refused() -> None:
    sim = served()
    sim.edit({"data": {"features": {"set": "har-v1"}}})
    sim.settle()
    sim.advance(seconds=40)
    key = sim.jobs[-1].key
    from tests.unit.decide.worlds import result

    document = result(key)
    sim.serving.refuses_imitation.add(str(document["digest"]))
    sim.finish(document)
    calm(sim)
    assert sim.actions[-1] == "Reject"
    assert sim.records[-1].cause.kind == "Serving"
    assert sim.condition("CandidateRejected")[:2] == ("True", reasons.INCOMPATIBLE_SIGNATURE)
    assert "column volume is missing" in sim.condition("CandidateRejected")[2]
    assert replicas(sim, "2") is None
    assert answers(sim) == "1"
    pin(sim, "2")
    calm(sim)
    assert answers(sim) == "2", "a person may want it all the same"


def test_retrain_by_a_person_makes_a_challenger_beside_the_service() -> None:
    sim = served({"data": {"asOf": "Rolling"}})
    sim.advance(days=1)
    act_now(sim, "again", "Retrain")
    trained(sim)
    calm(sim)
    assert sim.status.challenger is not None
    assert answers(sim) == "1"
    assert service_name(sim, digest_of(sim, "2")) in sim.serving.names("Deployment")
