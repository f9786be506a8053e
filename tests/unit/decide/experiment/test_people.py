"""People and the calendar: modes, suspension, approvals, aborts, freezes, queues, kill and pin."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fiduciary.api.experiment import ExperimentCalendar
from fiduciary.decide import reasons
from fiduciary.decide.experiment.windows import closure
from fiduciary.decide.experiment.world import Anchor, Spending
from tests.unit.decide.experiment.trials import CHAMPION, FACTS, QUIET, T0, XNYS, Trial, row, sessions
from tests.unit.decide.worlds import approval

EASY = Spending(anchors=(Anchor("errors", 0.02),))
NAME = "spx-volatility-8"


def trial(**parts: Any) -> Trial:
    made = Trial(**{"spending": EASY, "bad": (0.0, 0.0), **parts})
    made.evaluate()
    return made


# --- modes -----------------------------------------------------------------------------------------------------------


def test_advise_promotes_nothing_and_still_rolls_back() -> None:
    advised = trial(spec={"mode": "Advise"})
    found = advised.until(reasons.PROMOTION_ADVISED)
    assert (found.ruling.verdict, found.traffic.challenger) == ("Hold", 50)
    assert advised.minutes(20).ruling.verdict != "Promote"
    advised.bad = (0.0, 0.2)
    assert advised.until(reasons.HARM_SHOWN, 20).ruling.verdict == "RollBack"


def test_dry_run_writes_no_route_and_tells_what_replays_say() -> None:
    dry = trial(spec={"mode": "DryRun", "purpose": "Improve"})
    dry.ledger = sessions(0.2, 3000)
    for _ in range(30):
        found = dry.minute()
        assert found.traffic is None
    assert found.ruling.reason == reasons.GATHERING_EVIDENCE
    assert found.status.tests[0].log_e > found.status.tests[0].threshold


def test_suspend_stops_steps_and_promotion_and_safety_goes_on() -> None:
    held = trial()
    held.minute()
    held.spec = {"suspend": True}
    found = held.minutes(30)
    assert (found.ruling.reason, found.traffic.step) == (reasons.SUSPENDED, "shadow")
    held.spec = {}
    held.until(reasons.STEP_ENTERED)
    held.spec = {"suspend": True}
    held.bad = (0.0, 0.3)
    assert held.until(reasons.HARM_SHOWN, 20).traffic.challenger == 0


def test_a_suspended_model_promotes_nothing() -> None:
    held = trial(model=replace(FACTS, suspended=True))
    assert (held.decisions[0].ruling.reason, held.state) == (reasons.SUSPENDED, None)


# --- who decides about the traffic -----------------------------------------------------------------------------------


@pytest.mark.parametrize("active", [None, ("another", "1"), (NAME, "an older one of this name")])
def test_one_experiment_at_a_time(active: Any) -> None:
    queued = trial(model=replace(FACTS, active=active, ahead=("spx-volatility-6",)))
    found = queued.decisions[0]
    assert (found.ruling.reason, found.traffic, found.state) == (reasons.QUEUED, None, None)
    assert found.status.phase == "Queued"
    assert "spx-volatility-6" in found.ruling.message
    queued.model = FACTS
    assert queued.evaluate().ruling.reason == reasons.STEP_ENTERED


OTHER = CHAMPION.model_copy(update={"digest": "sha256:" + "9" * 64})


@pytest.mark.parametrize("change", [{"champion": None}, {"champion": OTHER}])
def test_an_experiment_about_a_champion_that_serves_no_longer_is_superseded(change: dict[str, Any]) -> None:
    other = trial()
    other.minutes(4)
    other.model = replace(FACTS, **change)
    found = other.evaluate()
    assert (found.ruling.reason, found.ruling.verdict, found.traffic.challenger) == ("Superseded", "KeepChampion", 0)


def test_an_experiment_about_a_rejected_challenger_is_superseded() -> None:
    other = trial()
    other.challenger = None
    assert "challenger of this experiment" in other.evaluate().ruling.message


def test_the_kill_switch_takes_the_weight_away() -> None:
    killed = trial()
    killed.minutes(5)
    killed.model = replace(FACTS, killed=True)
    found = killed.minute()
    assert (found.ruling.reason, found.ruling.verdict, found.traffic.challenger) == ("KillEngaged", "Hold", 0)
    killed.model = FACTS
    assert killed.evaluate().traffic.challenger == 10


def test_a_pinned_model_follows_no_experiment() -> None:
    pinned = trial(model=replace(FACTS, mode="Pinned"))
    assert (pinned.decisions[0].ruling.reason, pinned.decisions[0].traffic.challenger) == (reasons.PINNED, 0)


def test_deleting_an_experiment_that_began_keeps_its_evidence_in_a_record() -> None:
    """Else a deletion would refund the test and forget what was seen against the challenger."""
    gone = trial()
    gone.minutes(5)
    gone.metadata = {"deletionTimestamp": gone.now.isoformat()}
    found = gone.evaluate()
    assert (found.ruling.reason, found.ruling.verdict, found.traffic.challenger) == ("Deleting", "KeepChampion", 0)
    assert found.ruling.rule.final
    assert found.summary["test"] == 1
    assert "deleted" in found.ruling.message
    gone.record()
    assert gone.evaluate().ruling.reason == reasons.VERDICT_RECORDED


def test_deleting_an_experiment_that_never_began_needs_no_record() -> None:
    gone = trial(model=replace(FACTS, mode="Pinned"))
    gone.metadata = {"deletionTimestamp": gone.now.isoformat()}
    found = gone.evaluate()
    assert (found.ruling.reason, found.ruling.verdict, found.summary) == (reasons.DELETING, None, {})


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "held",
    [{"spec": {"mode": "Advise"}}, {"spec": {"suspend": True}}, {"spec": {"approvals": 1}}],
    ids=["advised", "suspended", "unsigned"],
)
def test_a_hold_does_not_keep_half_of_the_requests_for_ever(held: dict[str, Any]) -> None:
    stopping = {"stopping": {"minDuration": "2h", "maxDuration": "1d"}}
    made = trial(spec=stopping)
    made.until(reasons.MIN_DURATION)
    made.spec = {**stopping, **held["spec"]}
    made.now = T0 + timedelta(hours=23, minutes=59)
    assert made.evaluate().traffic.challenger == 50
    made.now = T0 + timedelta(hours=48)
    found = made.evaluate()
    assert (found.ruling.reason, found.ruling.verdict, found.traffic.challenger) == ("Expired", "KeepChampion", 0)
    assert "maxDuration 1d" in found.ruling.message


def test_the_end_of_the_grace_wakes() -> None:
    made = trial(spec={"approvals": 1, "stopping": {"minDuration": "1m", "maxDuration": "1d"}})
    made.until(reasons.AWAITING_APPROVAL)
    made.now = T0 + timedelta(hours=48) - timedelta(seconds=3)
    assert made.evaluate().wake_at == T0 + timedelta(hours=48)


def test_waiting_for_a_start_that_never_comes_ends_after_max_duration_and_the_queue_does_not_count() -> None:
    made = trial(ready=(1, 0), model=replace(FACTS, active=None))
    made.now += timedelta(days=40)
    made.model = FACTS
    assert made.evaluate().ruling.reason == reasons.WAITING_FOR_CAPACITY
    made.now += timedelta(days=1) - timedelta(seconds=1)
    waits = made.evaluate()
    assert waits.ruling.reason == reasons.WAITING_FOR_CAPACITY
    assert waits.wake_at <= made.now + timedelta(seconds=1)
    made.now += timedelta(seconds=1)
    found = made.evaluate()
    assert (found.ruling.reason, found.ruling.verdict) == (reasons.NEVER_STARTED, "KeepChampion")
    assert "0 pods of the challenger" in found.ruling.message


# --- approvals -------------------------------------------------------------------------------------------------------


def asked(needed: int = 1, **parts: Any) -> tuple[Trial, str]:
    made = trial(spec={"approvals": needed}, **parts)
    found = made.until(reasons.AWAITING_APPROVAL)
    assert found.status.phase == "AwaitingApproval"
    made.minute()
    return made, made.status.approval_request.digest


def approve(made: Trial, name: str, digest: str, approver: str = "ana@desk", decision: str = "Approve") -> None:
    act = approval(name, decision, made.now, approver, experiment=NAME, evidenceDigest=digest)
    made.approvals = (*made.approvals, act)


def test_people_sign_frozen_evidence_and_new_evidence_does_not_invalidate_it() -> None:
    made, digest = asked()
    made.minutes(30)
    assert made.status.approval_request.digest == digest
    assert made.status.evidence_digest != digest
    approve(made, "a", digest)
    assert made.evaluate().ruling.verdict == "Promote"


def test_signatures_are_of_different_people_and_of_this_evidence() -> None:
    made, digest = asked(2)
    approve(made, "a", digest)
    approve(made, "b", digest)  # the same person again
    approve(made, "c", "sha256:" + "0" * 64, "bob@desk")
    found = made.evaluate()
    assert (found.ruling.reason, "1 of 2 approvals" in found.ruling.message) == (reasons.AWAITING_APPROVAL, True)
    approve(made, "d", digest, "bob@desk")
    assert made.evaluate().ruling.verdict == "Promote"


def test_who_last_changed_the_spec_does_not_approve_it() -> None:
    made, digest = asked()
    approve(made, "a", digest, "dev@desk")
    found = made.evaluate()
    assert found.ruling.reason == reasons.AWAITING_APPROVAL
    assert "dev@desk is also who last changed the spec" in found.ruling.message


def test_approvals_count_for_nothing_without_the_policies_that_guard_them() -> None:
    made, digest = asked(platform=replace(QUIET, approval_policies_active=False))
    approve(made, "a", digest)
    assert made.evaluate().ruling.reason == reasons.AWAITING_APPROVAL


@pytest.mark.parametrize(
    ("experiment", "facts", "needed"),
    [
        (0, {}, 0),
        (2, {"approvals": 1}, 2),
        (0, {"approvals": 3}, 3),
        (0, {"mode": "Manual"}, 1),
        (2, {"mode": "Manual"}, 2),
    ],
)
def test_the_larger_number_of_approvals_counts(experiment: int, facts: dict[str, Any], needed: int) -> None:
    made = trial(spec={"approvals": experiment}, model=replace(FACTS, **facts))
    found = made.until(reasons.AWAITING_APPROVAL if needed else reasons.PROMOTED)
    if needed:
        assert f"0 of {needed} approvals" in found.ruling.message


def test_approvals_may_rise_while_people_sign() -> None:
    made, digest = asked(1)
    made.spec = {"approvals": 2}
    approve(made, "a", digest)
    assert made.evaluate().ruling.reason == reasons.AWAITING_APPROVAL


def test_approvals_that_fall_while_people_sign_promote_nothing() -> None:
    """What was asked for was asked of people: nobody unasks it by lowering a number."""
    made, digest = asked(2, model=replace(FACTS, mode="Manual"))
    made.spec, made.model = {"approvals": 0}, FACTS
    found = made.evaluate()
    assert (found.ruling.reason, "0 of 2 approvals" in found.ruling.message) == (reasons.AWAITING_APPROVAL, True)
    approve(made, "a", digest)
    assert made.evaluate().ruling.reason == reasons.AWAITING_APPROVAL
    approve(made, "b", digest, "bob@desk")
    assert made.evaluate().ruling.verdict == "Promote"


def test_a_request_ends_where_its_evidence_turns_out_to_be_void() -> None:
    profit = {"name": "profit", "metric": "PaperPnL", "lossBound": "4"}
    made = trial(spec={"purpose": "Improve", "objectives": [profit], "approvals": 1}, procedures_known=False)

    def paid(first: int, count: int, each: float) -> tuple[Any, ...]:
        return tuple(row(k, 0.0, "Live", profit=(0.0, each + 0.2 * (-1) ** k)) for k in range(first, first + count))

    made.ledger = paid(0, 600, 1.0)
    made.until(reasons.AWAITING_APPROVAL)
    made.minute()
    digest = made.status.approval_request.digest
    made.ledger = paid(600, 1, -9.0)  # beyond the loss that was declared: all that rests on it falls
    found = made.minute()
    assert found.ruling.reason == reasons.GATHERING_EVIDENCE
    assert found.status.approval_request is None
    approve(made, "a", digest)
    assert made.minutes(3).ruling.verdict != "Promote"


def test_the_record_says_what_was_signed_and_not_what_came_later() -> None:
    made, digest = asked()
    signed = made.decisions[-1].state.course.request.shown  # type: ignore[union-attr]
    made.bad = (0.0, 0.01)
    made.minutes(2)
    approve(made, "a", digest)
    found = made.evaluate()
    assert found.ruling.verdict == "Promote"
    assert found.state is not None
    assert found.state.evidence.guardrails[0].noninferiority_log_e != pytest.approx(signed[0].log_e, abs=0.01)
    assert [(claim.name, claim.side) for claim in signed] == [("errors", "NonInferiority")]
    assert f"log e {signed[0].log_e:.2f}" in found.grounds[0].message
    assert f"not worse {signed[0].log_e:.2f}" in found.ruling.message
    assert found.summary["signed"] == digest


def test_harm_ends_a_request() -> None:
    made, digest = asked()
    made.bad = (0.0, 0.2)
    made.until(reasons.HARM_SHOWN, 20)
    approve(made, "a", digest)
    found = made.minute()
    assert (found.ruling.verdict, found.status.approval_request) == ("RollBack", None)


def test_a_person_may_refuse() -> None:
    made, digest = asked()
    approve(made, "a", digest, decision="Reject")
    found = made.evaluate()
    assert (found.ruling.reason, found.ruling.verdict, found.traffic.challenger) == (
        reasons.REJECTED_BY_PERSON, "KeepChampion", 0
    )  # fmt: skip
    assert "ana@desk" in found.ruling.message


def test_a_person_may_abort_at_any_time() -> None:
    made = trial()
    made.minutes(4)
    made.approvals = (approval("a", "Abort", made.now, experiment="another"),)
    assert made.evaluate().ruling.verdict is None
    made.approvals = (approval("b", "Abort", made.now, experiment=NAME),)
    found = made.evaluate()
    assert (found.ruling.reason, found.ruling.verdict, found.traffic.challenger) == ("Aborted", "KeepChampion", 0)


def test_an_act_on_an_earlier_experiment_of_this_name_is_none_on_this_one() -> None:
    made = trial()
    made.approvals = (approval("b", "Abort", T0 - timedelta(days=1), experiment=NAME),)
    assert made.evaluate().ruling.verdict is None


# --- calendar --------------------------------------------------------------------------------------------------------


def calendar(**parts: Any) -> ExperimentCalendar:
    return ExperimentCalendar.model_validate({"exchange": "XNYS", **parts})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


AROUND_OPEN = {"noPromote": ["open-15m/open+30m"]}
OVER_NIGHT = {"noPromote": ["close/open"]}
FREEZE = {"freeze": ["2026-12-24/2027-01-02"]}


@pytest.mark.parametrize(
    ("what", "at", "closed", "until"),
    [
        (AROUND_OPEN, "2026-11-24T14:14:59", False, None),
        (AROUND_OPEN, "2026-11-24T14:15", True, "2026-11-24T15:00"),  # 09:15 EST
        (AROUND_OPEN, "2026-11-24T15:00", False, None),
        (AROUND_OPEN, "2026-11-26T14:20", False, None),  # Thanksgiving: no session, no window
        (AROUND_OPEN, "2026-07-01T13:20", True, "2026-07-01T14:00"),  # EDT
        ({"noPromote": ["close-30m/close"]}, "2026-11-27T17:45", True, "2026-11-27T18:00"),  # closes at 13:00
        ({"noPromote": ["close-30m/close"]}, "2026-11-27T20:45", False, None),
        (OVER_NIGHT, "2026-11-25T22:00", True, "2026-11-27T14:30"),  # over the holiday to the next session
        (OVER_NIGHT, "2026-11-25T20:00", False, None),
        (FREEZE, "2026-12-24T04:59", False, None),  # still the 23rd in New York
        (FREEZE, "2026-12-24T05:00", True, "2027-01-03T05:00"),
        (FREEZE, "2027-01-03T04:59", True, "2027-01-03T05:00"),
        (FREEZE, "2027-01-03T05:00", False, None),
    ],
)
def test_windows_are_of_the_exchange(what: dict[str, Any], at: str, closed: bool, until: str | None) -> None:
    found = closure(calendar(**what), {"XNYS": XNYS}, utc(at))
    assert ((found.freeze or found.window) is not None) is closed
    assert found.until == (None if until is None else utc(until))
    assert found.unknown is None


def test_an_exchange_without_a_close_counts_its_days_in_utc() -> None:
    always = calendar(exchange="24/7", noPromote=["open/open+30m"])
    assert closure(always, {}, utc("2026-11-24T00:29")).window == "open/open+30m"
    assert closure(always, {}, utc("2026-11-24T00:30")).window is None


def test_an_unknown_calendar_forbids() -> None:
    assert "it knows XNYS" in (closure(calendar(exchange="XXXX", **FREEZE), {"XNYS": XNYS}, T0).unknown or "")
    assert "covers" in (closure(calendar(**AROUND_OPEN), {"XNYS": XNYS}, utc("2030-01-01T12:00")).unknown or "")
    assert closure(calendar(exchange="XXXX"), {}, T0).unknown is None  # it forbids nothing, so nothing is asked


def test_a_promotion_waits_for_the_calendar_and_wakes_when_it_ends() -> None:
    made = trial(spec={"calendar": {"exchange": "XNYS", "freeze": ["2026-11-24/2026-11-24"]}})
    found = made.until(reasons.IN_FREEZE)
    assert (found.ruling.verdict, found.traffic.challenger) == ("Hold", 50)
    assert next(c for c in found.status.conditions if c.type == "InFreeze").status == "True"
    made.now = utc("2026-11-25T05:00")
    assert made.evaluate().ruling.verdict == "Promote"


def test_a_freeze_does_not_stop_a_rollback() -> None:
    made = trial(spec={"calendar": {"exchange": "XNYS", "freeze": ["2026-11-24/2026-11-24"]}})
    made.until(reasons.IN_FREEZE)
    made.bad = (0.0, 0.2)
    assert made.until(reasons.HARM_SHOWN, 20).ruling.verdict == "RollBack"


def test_an_unknown_calendar_holds_a_promotion_and_calls_a_person() -> None:
    made = trial(spec={"calendar": {"exchange": "XXXX", "noPromote": ["open/close"]}})
    found = made.until(reasons.CALENDAR_UNKNOWN)
    assert found.ruling.verdict == "Hold"
    assert next(c for c in found.status.conditions if c.type == "Stalled").status == "True"


def test_the_wake_up_is_the_earliest_change() -> None:
    made = Trial(spec={"calendar": {"exchange": "XNYS", **AROUND_OPEN}}, model=replace(FACTS, active=None))
    made.now = utc("2026-11-24T14:59")
    assert made.evaluate().wake_at == utc("2026-11-24T15:00")
    running = Trial(spec={"stopping": {"minDuration": "1h", "maxDuration": "1d"}})
    assert running.evaluate().wake_at == T0 + timedelta(
        seconds=60 + 60
    )  # the answer that closes the block calls before


# --- what people read -------------------------------------------------------------------------------------------------


def test_conditions_are_one_happy_condition_and_its_reasons() -> None:
    made = trial()
    by = {c.type: c for c in made.status.conditions}
    assert (by["Ready"].status, by["Reconciling"].status, by["Stalled"].status) == ("False", "True", "False")
    made.until(reasons.PROMOTED)
    made.record()
    by = {c.type: c for c in made.minute().status.conditions}
    assert (by["Ready"].status, by["Reconciling"].status, by["Stalled"].status) == ("True", "False", "False")
    assert "Promote is record 9" in by["Ready"].message


def test_a_transition_time_moves_only_with_its_condition() -> None:
    made = trial()
    first = {c.type: c.last_transition_time for c in made.status.conditions}
    later = {c.type: c.last_transition_time for c in made.minutes(3).status.conditions}
    assert later["Ready"] == first["Ready"] == T0
    assert made.status.observed_generation == 1


def test_events_tell_what_changed_and_nothing_twice() -> None:
    made = trial()
    made.until(reasons.PROMOTED)
    told = [(e.type, e.reason) for d in made.decisions for e in d.events]
    steps = [t for t in told if t[1] == reasons.STEP_ENTERED]
    assert steps == [("Normal", "StepEntered")] * 3
    assert told[-1] == ("Normal", "Promoted")
    assert len(told) == 4


def test_the_status_says_everything_that_a_test_needs() -> None:
    made = trial()
    made.minutes(10)
    rows = {(t.name, t.side): t for t in made.status.tests}
    shown = rows[("errors", "NonInferiority")]
    assert None not in (shown.log_e, shown.threshold, shown.estimate, shown.interval, shown.last_block, shown.waits_for)
    assert shown.n == 4  # blocks at the final weight
    harm = rows[("errors", "Harm")]
    assert float(harm.log_e) < float(harm.threshold)
    assert harm.n == 10
    assert made.status.segments[0].step == "half"
    assert made.status.n == shown.n
