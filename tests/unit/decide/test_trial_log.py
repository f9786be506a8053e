"""What records say of experiments: trials, watches, verdicts, and what the model's life has used up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.decide.experiment.facts import facts, pair, same_configuration
from fiduciary.decide.experiment.recorded import recorded
from fiduciary.decide.experiment.spent import spent, tried
from fiduciary.decide.trial import Trial
from tests.unit.decide.logs import Log, compared, digest, experiment, spending
from tests.unit.decide.worlds import NAME, model

if TYPE_CHECKING:
    from fiduciary.api.modelexperiment import ModelExperiment

MX = experiment("2", status=compared("1", "2"))


def served() -> Log:
    """Version 1 serves, version 2 is challenger."""
    log = Log()
    log.accept("1", role="Champion")
    log.serve("1")
    log.accept("2")
    return log


def tried_once(weight: int = 5) -> Log:
    log = served()
    log.shift(MX, weight)
    return log


def promoted() -> Log:
    log = tried_once(50)
    log.verdict("Promote", MX, "1", "2", **spending())
    return log


def numbers(log: Log) -> dict[str, str | None]:
    history = log.history
    places = ("champion", "challenger", "waiting", "previous_champion")
    return {place: None if (one := getattr(history, place)) is None else one.version for place in places}


# --- trials ----------------------------------------------------------------------------------------------------------


def test_a_trial_begins_with_the_first_traffic_and_its_weights_are_the_routes() -> None:
    assert served().history.trial is None
    history = tried_once(5).history
    assert history.trial == Trial(f"{NAME}-2", f"uid of {NAME}-2", digest("2"), "Improve")
    assert history.traffic is not None
    assert (history.traffic.champion, history.traffic.challenger, history.traffic.step) == (95, 5, "canary")


def test_a_mirror_alone_is_a_trial_and_weight_zero_in_between_does_not_end_it() -> None:
    log = served()
    log.shift(MX, 0, mirror=100)
    assert log.history.trial is not None
    log.shift(MX, 0)
    assert log.history.trial is not None


def test_a_version_accepted_during_a_trial_waits_and_the_newest_waits_alone() -> None:
    log = tried_once()
    log.accept("3")
    log.accept("4")
    assert numbers(log) == {"champion": "1", "challenger": "2", "waiting": "4", "previous_champion": None}
    assert log.history.traffic is not None
    assert log.history.traffic.challenger == 5, "the trial goes on"
    assert log.history.challenger_evidence == log.records[2].spec.evidence.digest


def test_without_a_trial_the_newest_version_is_challenger() -> None:
    log = served()
    log.accept("3")
    assert numbers(log)["challenger"] == "3"


ENDS: list[tuple[str, str, str, dict[str, str | None]]] = [
    ("Promote", "1", "2", {"champion": "2", "challenger": "3", "waiting": None, "previous_champion": "1"}),
    ("RollBack", "2", "1", {"champion": "1", "challenger": "3", "waiting": None, "previous_champion": None}),
    ("Reject", "1", "2", {"champion": "1", "challenger": "3", "waiting": None, "previous_champion": None}),
    ("Abort", "1", "2", {"champion": "1", "challenger": "3", "waiting": None, "previous_champion": None}),
]


@pytest.mark.parametrize(("action", "left", "takes", "places"), ENDS, ids=[end[0] for end in ENDS])
def test_who_waited_takes_the_place_when_the_trial_ends(
    action: str, left: str, takes: str, places: dict[str, str | None]
) -> None:
    log = tried_once()
    log.accept("3")
    evidence = log.records[-1].spec.evidence.digest
    log.verdict(action, MX, left, takes, **spending())
    assert numbers(log) == places
    history = log.history
    assert (history.trial, history.challenger_evidence) == (None, evidence)
    assert history.traffic is not None
    assert (history.traffic.champion, history.traffic.challenger) == (100, 0)


def test_a_challenger_that_was_rolled_back_or_kept_out_is_refused_and_the_champion_keeps_its_time() -> None:
    for action, left, takes in (("RollBack", "2", "1"), ("Reject", "1", "2")):
        log = tried_once()
        before = log.history.champion
        log.verdict(action, MX, left, takes, **spending())
        history = log.history
        assert history.champion == before
        assert history.champion_at is not None
        assert history.challenger is None
        assert history.refused == {digest("2")}
        assert [(entry.version, entry.reason) for entry in history.rejected] == [("2", "Because")]


def test_an_abort_leaves_the_challenger_its_place() -> None:
    log = tried_once()
    log.verdict("Abort", MX, "1", "2", **spending())
    history = log.history
    assert history.challenger is not None
    assert (history.challenger.version, history.trial, history.refused) == ("2", None, frozenset())


def test_a_trial_ends_when_its_challenger_loses_its_place_otherwise() -> None:
    log = tried_once()
    log.write("Reject", to={"version": "2", "digest": digest("2")}, cause={"kind": "Approval"})
    assert log.history.trial is None
    assert log.history.traffic is not None
    assert log.history.traffic.champion == 100


def test_a_retired_model_has_no_trial_and_nobody_waits() -> None:
    log = tried_once()
    log.accept("3")
    log.write("Retire", summary={"deletionPolicy": "Delete"}, cause={"kind": "Deletion"})
    history = log.history
    assert (history.trial, history.watch, history.waiting, history.challenger) == (None, None, None, None)


def test_the_experiment_that_promoted_watches_until_another_version_is_champion() -> None:
    log = promoted()
    assert log.history.watch is not None
    assert log.history.watch.uid == MX.metadata.uid
    log.verdict("RollBack", MX, "2", "1", **spending())
    assert log.history.watch is None
    assert numbers(log)["champion"] == "1"
    assert log.history.refused == {digest("2")}


def test_the_anchor_is_who_was_promoted_on_superiority_until_it_is_gone_back_on() -> None:
    log = promoted()
    assert log.history.anchor is not None
    assert log.history.anchor.version == "2"
    log.accept("3")
    refresh = experiment("3")
    log.shift(refresh, 50, purpose="Refresh")
    log.verdict("Promote", refresh, "2", "3", **spending(purpose="Refresh"))
    assert log.history.anchor.version == "2", "a refresh is measured against it"
    log.verdict("RollBack", refresh, "3", "2", **spending(purpose="Refresh"))
    assert log.history.anchor.version == "2"
    log.verdict("RollBack", MX, "2", "1", **spending())
    assert log.history.anchor.version == "1"


# --- recorded --------------------------------------------------------------------------------------------------------


def test_nothing_is_recorded_before_the_verdict_or_of_another_experiment_of_this_name() -> None:
    assert recorded(tried_once().records, MX) is None
    assert recorded(promoted().records, experiment("2", uid="another")) is None
    assert recorded(promoted().records, experiment("2", name="another", uid=MX.metadata.uid)) is None


@pytest.mark.parametrize(
    ("action", "left", "takes", "verdict", "reason"),
    [
        ("Promote", "1", "2", "Promote", "Promoted"),
        ("RollBack", "2", "1", "RollBack", "Because"),
        ("Reject", "1", "2", "KeepChampion", "Because"),
        ("Abort", "1", "2", "KeepChampion", "Because"),
    ],
)
def test_each_record_of_a_verdict(action: str, left: str, takes: str, verdict: str, reason: str) -> None:
    log = tried_once()
    log.verdict(action, MX, left, takes, **spending())
    found = recorded(log.records, MX)
    assert found is not None
    assert (found.verdict, found.reason, found.sequence, found.rolled_back) == (verdict, reason, 5, None)
    assert found.message == f"{action} 5"


def test_a_promotion_that_was_gone_back_on_by_whomever() -> None:
    log = promoted()
    log.write("RollBack", **{"from": {"digest": digest("2")}}, to={"digest": digest("1")}, cause={"kind": "Approval"})
    found = recorded(log.records, MX)
    assert found is not None
    assert (found.verdict, found.sequence) == ("Promote", 5)
    assert found.rolled_back is not None
    assert (found.rolled_back.sequence, found.rolled_back.reason) == (6, "RolledBack")


def test_a_later_promotion_is_no_way_back() -> None:
    log = promoted()
    log.write("Promote", **{"from": {"digest": digest("2")}}, to={"digest": digest("3")}, cause={"kind": "Pinned"})
    found = recorded(log.records, MX)
    assert found is not None
    assert found.rolled_back is None


# --- spent -----------------------------------------------------------------------------------------------------------


def test_nothing_is_spent_without_experiments() -> None:
    assert spent(served().records).tests == 0
    assert spent(served().records).spending(digest("1"), digest("2"), 1).test == 1


def test_a_discovery_counts_and_gives_the_anchor() -> None:
    found = spent(promoted().records)
    assert (found.tests, found.discoveries) == (1, 1)
    assert [anchor.rate for anchor in found.anchors] == [0.01]
    assert found.pairs[0].champion == digest("1")
    assert found.pairs[0].challenger == digest("2")


def test_a_promotion_that_went_back_gives_the_anchors_back_and_stays_a_discovery() -> None:
    log = promoted()
    log.verdict("RollBack", MX, "2", "1", **spending())
    found = spent(log.records)
    assert (found.tests, found.discoveries, found.anchors, found.promotions) == (1, 1, (), ())
    assert len(found.pairs) == 1, "one pair, whichever way it went"


def test_each_verdict_is_a_test_and_the_pair_carries_its_evidence() -> None:
    log = tried_once()
    log.verdict("Abort", MX, "1", "2", **spending())
    other = experiment("2", name=f"{NAME}-2-2")
    log.shift(other, 5)
    log.verdict("RollBack", other, "2", "1", **spending(test=1))
    found = spent(log.records)
    assert found.tests == 1
    resumed = found.spending(digest("1"), digest("2"), 1)
    assert {(one.name, one.side) for one in resumed.carried} == {
        ("errors", "Harm"),
        ("errors", "NonInferiority"),
        ("loss", "Superiority"),
    }
    assert found.spending(digest("1"), digest("3"), 1).test == 2


def test_a_pair_that_its_two_versions_do_not_tell_is_told() -> None:
    log = tried_once()
    log.verdict("Abort", MX, "3", "2", **spending(pair=[digest("1"), digest("2")]))
    assert spent(log.records).pairs[0].champion == digest("1")


@pytest.mark.parametrize(("purpose", "tests"), [("Improve", 1), ("Refresh", 0)])
def test_a_trial_without_numbers_has_begun_its_test(purpose: str, tests: int) -> None:
    log = served()
    log.shift(MX, 5, purpose=purpose)
    log.shift(MX, 50, purpose=purpose)
    log.verdict("Abort", MX, "1", "2", purpose=purpose)
    assert spent(log.records).tests == tests
    log = served()
    log.shift(MX, 5, purpose=purpose)
    log.write("Retire", summary={"deletionPolicy": "Delete"})
    assert spent(log.records).tests == tests


def test_configurations_are_counted_since_the_last_discovery() -> None:
    log = served()
    assert tried(log.records) == 1
    log.accept("3", config="b")
    assert tried(log.records) == 2
    log.verdict("Promote", experiment("3"), "1", "3", **spending())
    assert tried(log.records) == 1
    log.accept("4", config="c")
    log.accept("5", config="d")
    assert tried(log.records) == 2
    log.verdict("Promote", experiment("5"), "3", "5", **spending(purpose="Refresh"))
    assert tried(log.records) == 2, "a refresh discovers nothing"


# --- facts -----------------------------------------------------------------------------------------------------------


def versions(log: Log, mx: ModelExperiment) -> tuple[str | None, str | None]:
    champion, challenger = pair(log.history, mx)
    return champion and champion.version, challenger and challenger.version


def test_the_pair_before_the_start_is_who_serves_and_who_has_a_place() -> None:
    log = served()
    assert versions(log, experiment("2")) == ("1", "2")
    assert versions(log, experiment("1")) == ("1", None), "a champion challenges nobody"
    assert versions(log, experiment("9")) == ("1", None)
    assert versions(log, experiment("2", {"champion": {"version": "7"}})) == (None, "2")
    log.accept("3")
    assert versions(log, experiment("2")) == ("1", None), "a newer one took its place"
    assert versions(log, experiment("3")) == ("1", "3")


def test_the_pair_that_started_is_fixed() -> None:
    log = tried_once()
    log.accept("3")
    assert versions(log, MX) == ("1", "2")
    assert versions(log, experiment("3")) == ("1", "3"), "it waits"
    log.verdict("Promote", MX, "1", "2", **spending())
    assert versions(log, MX) == ("1", "2"), "it watches"
    log.verdict("RollBack", MX, "2", "1", **spending())
    assert versions(log, MX) == ("1", None), "it was rolled back"


def test_number_and_digest_that_disagree() -> None:
    other = experiment("2", status={**compared("1", "2"), "challenger": {"version": "2", "digest": digest("9")}})
    assert versions(tried_once(), other) == ("1", None)


@pytest.mark.parametrize(("config", "same"), [("a", True), ("b", False)])
def test_configurations_of_both_versions(config: str, same: bool) -> None:
    log = served()
    log.accept("3", config=config)
    champion, challenger = pair(log.history, experiment("3"))
    assert same_configuration(log.history, champion, challenger) is same
    assert same_configuration(log.history, champion, None) is False


def test_facts_of_the_model() -> None:
    spec: dict[str, Any] = {
        "promotion": {"mode": "Manual", "approvals": 2, "rollbackWindow": "1h"},
        "suspend": True,
        "data": {"entity": "symbol"},
    }
    status = {"activeExperiment": {"name": f"{NAME}-2", "uid": "uid of 2"}}
    queued = experiment("3", creationTimestamp="2026-11-24T13:00:00Z")
    before = experiment("2", name="by-hand", creationTimestamp="2026-11-24T12:30:00Z")
    ended = experiment("2", name="ended", status={"ruling": _ruling("KeepChampion")})
    found = facts(queued, model(spec, status=status), served().history, [queued, before, ended])
    assert (found.label, found.panel, found.horizon, found.mode, found.approvals) == (
        "Volatility",
        True,
        1,
        "Manual",
        2,
    )
    assert (found.rollback_window_seconds, found.suspended, found.killed, found.editor) == (
        3600,
        True,
        False,
        "dev@desk",
    )
    assert found.active == (f"{NAME}-2", "uid of 2")
    assert found.ahead == ("by-hand",)
    assert found.champion is not None
    assert found.champion.version == "1"


def _ruling(verdict: str) -> dict[str, Any]:
    return {"verdict": verdict, "reason": "NotShown", "message": "so", "at": "2026-11-24T13:00:00Z"}
