"""How a model follows the shares that an experiment wishes: pods and probes first, one record for each change."""

from __future__ import annotations

from typing import Any

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.serving.following import pods_for
from tests.unit.decide.laboratory import AUTO, WATCHED, Laboratory, laboratory, newcomer, tried_to
from tests.unit.decide.lives import act_now, answers, calm, digest_of, pin, replicas, served, service_name
from tests.unit.decide.worlds import NAME, approval

FIRST = f"{NAME}-2"


def shares(lab: Laboratory) -> tuple[int, int, int]:
    """(champion, challenger, mirror) as the log wants them."""
    traffic = lab.history.traffic
    assert traffic is not None
    return traffic.champion, traffic.challenger, traffic.mirror


def weights(lab: Laboratory) -> dict[str, int]:
    """Version -> weight in the stored route."""
    found = lab.sim.serving.weights()
    return {number: found.get(service_name(lab.sim, digest_of(lab.sim, number)), 0) for number in ("1", "2")}


def wishes(lab: Laboratory, name: str = FIRST, **traffic: Any) -> None:
    """The experiment wishes this from now on; it does not judge any more."""
    lab.stopped = True
    mx = lab.one(name)
    lab.put(mx, status={**mx.status.body(), "desiredTraffic": traffic})


def confirmed(lab: Laboratory) -> Any:
    told = lab.sim.status.traffic
    return None if told is None else told.confirmed_at


# --- steps -----------------------------------------------------------------------------------------------------------


def test_each_step_is_one_record_and_one_write_to_the_route() -> None:
    lab = laboratory()
    lab.until("Promote")
    shifts = [record for record in lab.sim.records if record.action == "Shift"][1:]
    assert [(one.traffic.challenger, one.traffic.mirror, one.traffic.step) for one in shifts if one.traffic] == [
        (0, 100, "shadow"),
        (10, 0, "canary"),
        (50, 0, "half"),
    ]
    for one in shifts:
        assert (one.cause.kind, one.cause.experiment) == ("Experiment", FIRST)
        assert (one.from_ and one.from_.version, one.to and one.to.version) == ("1", "2")
        assert one.evidence.summary["uid"] == lab.one(FIRST).metadata.uid
    numbers = [(number, weight) for number, weight in lab.sim.serving.history if number in {s.sequence for s in shifts}]
    assert len({number for number, _ in numbers}) == 3
    assert answers(lab.sim) == "2"


def test_copies_end_where_they_cannot_be_counted_apart_from_requests() -> None:
    lab = tried_to("canary", {"promotion": {"experiment": {"traffic": {"steps": _mirrored()}}}})
    assert shares(lab) == (90, 10, 0)
    route = lab.sim.serving.route
    assert route is not None
    assert "filters" not in route.body["spec"]["rules"][0]


def _mirrored() -> list[dict[str, Any]]:
    return [
        {"name": "shadow", "mirror": 100, "minBlocks": 2},
        {"name": "canary", "weight": 10, "mirror": 100, "minBlocks": 2},
    ]


@pytest.mark.parametrize(
    ("percent", "champion", "pods"),
    [(1, 1, 1), (5, 2, 1), (50, 2, 1), (51, 2, 2), (10, 10, 1), (11, 10, 2), (100, 3, 3), (50, 0, 1), (0, 3, 1)],
)
def test_pods_for_a_share(percent: int, champion: int, pods: int) -> None:
    assert pods_for(percent, champion) == pods


def test_pods_for_the_next_step_are_there_before_it() -> None:
    steps = [
        {"name": "canary", "weight": 10, "minBlocks": 1},
        {"name": "third", "weight": 34, "minBlocks": 1},
        {"name": "half", "weight": 50, "minBlocks": 100},
    ]
    spec = {"serving": {"replicas": 6}, "promotion": {"experiment": {"traffic": {"steps": steps}}}}
    lab = laboratory(spec)
    seen: dict[str | None, int | None] = {}
    for _ in range(60):
        lab.seconds(10)
        traffic = lab.sim.status.traffic
        if traffic is not None:
            seen[traffic.step] = replicas(lab.sim, "2")
        if traffic is not None and traffic.step == "half":
            break
    calm(lab.sim, 30)
    assert seen["canary"] == 3, "34 % of six"
    assert seen["third"] == 3, "half of six"
    assert replicas(lab.sim, "2") == 6, "as many as a champion has, before it becomes one"


def test_with_an_autoscaler_the_challenger_gets_what_the_champion_has_grown_to() -> None:
    spec = {"serving": {"replicas": None, "autoscaling": {"min": 2, "max": 9, "targetConcurrency": 4}}}
    lab = tried_to("half", spec)
    champion = lab.sim.serving.deployment(digest_of(lab.sim, "1"))
    assert champion is not None
    champion.replicas = 8
    calm(lab.sim, 30)
    assert replicas(lab.sim, "2") == 8, "else capacity for a promotion would be waited for in vain"


def test_no_step_without_pods() -> None:
    lab = laboratory()
    lab.sim.serving.node_works = False
    challenger = lab.sim.serving.deployment(digest_of(lab.sim, "2"))
    assert challenger is not None
    challenger.ready = 0
    wishes_at_once(lab)
    calm(lab.sim, 30)
    assert shares(lab) == (100, 0, 0)
    lab.sim.serving.node_works = True
    calm(lab.sim, 30)
    assert shares(lab) == (95, 5, 0)


def wishes_at_once(lab: Laboratory) -> None:
    """The engine has started the experiment and wishes its first step."""
    mx = lab.one(FIRST)
    pair = {
        name: {"version": n, "digest": digest_of(lab.sim, n)} for name, n in (("champion", "1"), ("challenger", "2"))
    }
    wish = {"champion": 95, "challenger": 5, "step": "canary"}
    lab.stopped = True
    lab.put(mx, status={**mx.status.body(), **pair, "desiredTraffic": wish, "step": "canary"})


def test_no_step_without_a_probe_of_the_version() -> None:
    lab = laboratory()
    lab.sim.serving.prober_works = False
    lab.sim.serving.results = {
        target: seen for target, seen in lab.sim.serving.results.items() if target.via == "Route"
    }
    wishes_at_once(lab)
    calm(lab.sim, 30)
    assert shares(lab) == (100, 0, 0)
    lab.sim.serving.prober_works = True
    calm(lab.sim, 10)
    assert shares(lab) == (95, 5, 0)


def test_a_wish_of_another_pair_or_of_one_that_has_not_started_is_none() -> None:
    lab = laboratory()
    wishes(lab, champion=50, challenger=50)
    calm(lab.sim, 20)
    assert shares(lab) == (100, 0, 0), "it has not fixed its pair"
    mx = lab.one(FIRST)
    other = {"version": "1", "digest": "sha256:" + "a" * 64}
    wishes_at_once(lab)
    lab.put(mx, status={**lab.one(FIRST).status.body(), "champion": other})
    calm(lab.sim, 20)
    assert shares(lab) == (100, 0, 0)


def test_a_step_with_the_same_shares_is_no_record() -> None:
    lab = tried_to("canary")
    records = len(lab.sim.records)
    wishes(lab, champion=90, challenger=10, step="again")
    calm(lab.sim, 30)
    assert len(lab.sim.records) == records


# --- back ------------------------------------------------------------------------------------------------------------

BACK: list[tuple[str, dict[str, Any] | None]] = [
    ("no wish any more", None),
    ("both arms dark", {"champion": 100}),
]


@pytest.mark.parametrize(("why", "wish"), BACK, ids=[why for why, _ in BACK])
def test_shares_go_back_and_the_trial_goes_on(why: str, wish: dict[str, Any] | None) -> None:
    lab = tried_to("canary")
    lab.stopped = True
    mx = lab.one(FIRST)
    status = {**mx.status.body(), "desiredTraffic": wish}
    lab.put(mx, status={name: part for name, part in status.items() if part is not None})
    lab.sim.settle()
    assert shares(lab) == (100, 0, 0)
    record = lab.sim.records[-1]
    assert (record.action, record.from_ and record.from_.version, record.to and record.to.version) == (
        "Shift",
        "2",
        "1",
    )
    assert lab.history.trial is not None
    assert weights(lab) == {"1": 100, "2": 0}
    wishes(lab, champion=90, challenger=10, step="canary")
    calm(lab.sim, 20)
    assert shares(lab) == (90, 10, 0), "and come again"


def test_what_is_suspended_gets_no_more_and_may_get_less() -> None:
    lab = tried_to("canary")
    lab.sim.edit({"suspend": True})
    wishes(lab, champion=50, challenger=50, step="half")
    calm(lab.sim, 30)
    assert shares(lab) == (90, 10, 0)
    wishes(lab, champion=100)
    calm(lab.sim, 10)
    assert shares(lab) == (100, 0, 0)


def test_a_suspended_model_begins_no_experiment() -> None:
    lab = laboratory()
    lab.sim.edit({"suspend": True})
    lab.seconds(120, 10)
    assert lab.history.trial is None
    assert lab.sim.status.active_experiment is None
    lab.sim.edit({"suspend": False})
    lab.seconds(60, 10)
    assert lab.history.trial is not None


def test_nothing_is_shifted_during_a_kill_and_the_shares_come_back_with_the_resume() -> None:
    lab = tried_to("canary")
    act_now(lab.sim, "stop", "Kill")
    records = len(lab.sim.records)
    lab.seconds(60, 10)
    assert lab.sim.actions[records:] == ["Kill"]
    told = lab.sim.status.traffic
    assert told is not None
    assert (told.champion, told.challenger, told.mirror, told.step) == (0, 0, 0, None)
    assert weights(lab) == {"1": 0, "2": 0}
    act_now(lab.sim, "go", "Resume", "bob@desk")
    decision = lab.sim.step()
    assert decision.record is not None
    assert decision.record.action == "Resume"
    assert (shares(lab), weights(lab)) == ((90, 10, 0), {"1": 90, "2": 10})
    lab.seconds(60, 10)
    assert shares(lab) == (90, 10, 0)


def test_a_pin_takes_the_shares_back_and_no_experiment_moves_any() -> None:
    lab = tried_to("canary")
    pin(lab.sim, "1")
    lab.sim.settle()
    assert shares(lab) == (100, 0, 0)
    assert lab.sim.records[-1].cause.kind == "Pinned"
    lab.seconds(120, 10)
    assert shares(lab) == (100, 0, 0)
    assert lab.sim.condition("PromotionPending")[1] == reasons.OVERRIDDEN_BY_PIN


def test_an_experiment_that_was_removed_by_force_gives_its_shares_back_and_another_begins() -> None:
    lab = tried_to("canary")
    lab.remove(lab.one(FIRST))
    lab.sim.settle()
    record = lab.sim.records[-1]
    assert (record.action, record.cause.kind, record.cause.experiment) == ("Abort", "Experiment", FIRST)
    assert [reason.reason for reason in record.cause.reasons] == [reasons.EXPERIMENT_GONE]
    assert shares(lab) == (100, 0, 0)
    spending = lab.sim.status.alpha_spending
    assert spending is not None
    assert spending.tests == 1, "what began is spent"
    lab.seconds(120, 10)
    assert list(lab.experiments) == [FIRST]
    assert lab.history.trial is not None
    assert lab.history.trial.uid == lab.one(FIRST).metadata.uid


def test_an_experiment_without_a_share_that_vanished_frees_the_place_for_who_waits() -> None:
    lab = tried_to("canary")
    newcomer(lab, 8)
    assert lab.history.waiting is not None
    wishes(lab, champion=100)
    lab.sim.settle()
    lab.remove(lab.one(FIRST))
    lab.sim.settle()
    assert lab.sim.actions[-1] == "Abort"
    assert lab.sim.records[-1].traffic is None
    assert lab.history.challenger is not None
    assert lab.history.challenger.version == "3"


def test_lost_status_is_rebuilt_from_the_log_and_the_experiments() -> None:
    lab = tried_to("canary")
    lab.sim.settle()
    before, records = lab.sim.status, len(lab.sim.records)
    lab.sim.lose_status()
    lab.sim.settle()
    after = lab.sim.status
    assert len(lab.sim.records) == records
    assert after.active_experiment == before.active_experiment
    assert after.alpha_spending == before.alpha_spending
    assert after.traffic is not None
    assert before.traffic is not None
    assert after.traffic.model_copy(update={"confirmed_at": None}) == before.traffic.model_copy(
        update={"confirmed_at": None}
    )


# --- in force --------------------------------------------------------------------------------------------------------


def test_a_split_is_confirmed_once_every_gateway_has_it_and_a_probe_saw_it() -> None:
    lab = tried_to("shadow")
    lab.sim.serving.controller_works = False
    for _ in range(40):
        lab.seconds(10)
        if shares(lab)[1] == 10:
            break
    assert shares(lab) == (90, 10, 0)
    told = lab.sim.status.traffic
    assert told is not None
    assert (told.decision, told.since) == (lab.sim.records[-1].sequence, lab.sim.records[-1].decided_at)
    assert told.confirmed_at is None
    lab.seconds(20)
    assert confirmed(lab) is None
    assert lab.one(FIRST).status.reason == reasons.ROUTE_NOT_CONFIRMED
    lab.sim.serving.controller_works = True
    lab.seconds(10)
    assert confirmed(lab) is not None
    at = confirmed(lab)
    lab.seconds(30)
    assert confirmed(lab) == at, "since then"


def test_a_probe_that_fails_changes_no_shares() -> None:
    lab = tried_to("canary")
    at = confirmed(lab)
    for number in ("1", "2"):
        lab.sim.serving.broken[digest_of(lab.sim, number)] = {"phase": "Running"}
    lab.sim.advance(seconds=5)
    lab.sim.settle()
    assert lab.sim.condition("Served")[0] == "False"
    assert confirmed(lab) == at
    lab.sim.serving.broken.clear()
    lab.sim.advance(seconds=5)
    lab.sim.settle()
    assert confirmed(lab) == at


def test_a_process_that_has_just_started_takes_nothing_away() -> None:
    lab = tried_to("canary")
    at = confirmed(lab)
    lab.sim.serving.results.clear()
    lab.sim.serving.probing_since = None
    lab.sim.serving.prober_works = False
    lab.sim.settle()
    assert confirmed(lab) == at


def test_a_hand_in_the_route_ends_it_until_the_route_is_seen_anew() -> None:
    lab = tried_to("canary")
    at = confirmed(lab)
    route = lab.sim.serving.route
    assert route is not None
    spec = route.body["spec"]
    rules = [{**rule, "backendRefs": [{**ref, "weight": 50} for ref in rule["backendRefs"]]} for rule in spec["rules"]]
    lab.sim.serving.controller_works = False
    lab.sim.serving.edit("HTTPRoute", NAME, {"spec": {**spec, "rules": rules}})
    lab.sim.advance(seconds=1)
    lab.sim.step()
    assert confirmed(lab) is None
    lab.sim.settle()
    assert weights(lab) == {"1": 90, "2": 10}, "set back"
    assert confirmed(lab) is None, "no gateway has looked at it"
    lab.sim.serving.controller_works = True
    lab.sim.advance(seconds=5)
    lab.sim.settle()
    assert confirmed(lab) > at


def test_a_version_more_in_the_list_moves_nothing() -> None:
    lab = tried_to("canary")
    at = confirmed(lab)
    newcomer(lab, 8)
    lab.sim.serving.controller_works = False
    lab.sim.settle()
    assert confirmed(lab) == at


def test_steps_take_ready_from_nobody() -> None:
    lab = laboratory()
    for _ in range(200):
        lab.sim.advance(seconds=5)
        for _ in range(25):
            decision = lab.sim.step()
            assert lab.sim.condition("Ready")[0] == "True", lab.sim.condition("Ready")
            if not decision.again:
                break
        lab.turn()
        if shares(lab)[1] == 50:
            break
    assert shares(lab)[1] == 50
    assert [event.reason for event in lab.sim.events].count(reasons.SERVING) == 1


def test_a_gateway_that_does_not_take_shares_over_is_said_aloud() -> None:
    lab = tried_to("canary")
    lab.sim.serving.controller_works = False
    wishes(lab, champion=50, challenger=50, step="half")
    lab.sim.settle()
    assert lab.sim.condition("Ready")[0] == "True", "the champion answers all the while"
    assert confirmed(lab) is None
    calm(lab.sim, 60)
    assert lab.sim.condition("Stalled")[1] == reasons.GATEWAY_CONTROLLER_SILENT
    assert confirmed(lab) is None


# --- who waits -------------------------------------------------------------------------------------------------------


def test_a_newer_version_waits_behind_the_trial() -> None:
    lab = tried_to("canary")
    newcomer(lab, 8)
    lab.seconds(20)
    assert shares(lab) == (90, 10, 0), "the trial goes on"
    assert lab.sim.status.challenger is not None
    assert lab.sim.status.challenger.version == "2"
    assert sorted(lab.experiments) == [FIRST, f"{NAME}-3"]
    assert lab.one(f"{NAME}-3").status.reason == reasons.QUEUED
    assert "version 3 waits behind it" in lab.sim.condition("PromotionPending")[2]
    assert lab.sim.registry.aliases["challenger"] == "2"
    newcomer(lab, 9)
    lab.seconds(20)
    ruling = lab.one(f"{NAME}-3").status.ruling
    assert ruling is not None
    assert ruling.reason == reasons.SUPERSEDED
    assert lab.one(f"{NAME}-4").status.reason == reasons.QUEUED
    assert lab.history.trial is not None


def test_an_act_of_a_person_goes_on_working_during_a_trial() -> None:
    lab = Laboratory(served(AUTO, WATCHED))
    newcomer(lab, 8)
    for _ in range(30):
        lab.seconds(10)
        if lab.history.trial is not None:
            break
    trial = lab.one(FIRST)
    digest = lab.history.challenger_evidence
    lab.sim.advance(seconds=1)
    lab.sim.approve(approval("no", "Reject", lab.sim.now, evidenceDigest=digest))
    lab.sim.settle()
    assert lab.sim.actions[-1] == "Reject"
    assert (shares(lab), lab.history.trial) == ((100, 0, 0), None)
    lab.seconds(20)
    record = lab.sim.records[-1]
    assert (record.action, record.cause.experiment) == ("Abort", trial.metadata.name), "what it spent is in the log"
    spending = lab.sim.status.alpha_spending
    assert spending is not None
    assert spending.tests == 1


def test_who_lost_its_share_stays_known_to_gateways_until_its_requests_have_ended() -> None:
    """A proxy that forgets it before it has the new shares answered 503 once in 31,000 requests."""
    lab = tried_to("half")
    lab.act(FIRST, "Abort")
    lost, left = service_name(lab.sim, digest_of(lab.sim, "2")), service_name(lab.sim, digest_of(lab.sim, "1"))
    while lab.sim.actions[-1] != "Reject":
        lab.seconds(5)
    lab.sim.settle()
    assert lab.sim.serving.weights() == {left: 100, lost: 0}
    lab.seconds(45)
    assert lab.sim.serving.weights() == {left: 100, lost: 0}
    lab.seconds(20)
    assert lab.sim.serving.weights() == {left: 100}
    assert lab.sim.serving.deployment(digest_of(lab.sim, "2")) is None
    assert lab.sim.serving.history[-1][0] == lab.sim.serving.history[-2][0], "forgetting it takes no record"
