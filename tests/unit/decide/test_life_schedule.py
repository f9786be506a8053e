"""Trainings on a schedule, and how a running one is shown."""

from __future__ import annotations

from typing import Any

from fiduciary.decide import reasons
from tests.unit.decide.lives import champion, measured, trained
from tests.unit.decide.simulated_world import SimulatedWorld

# --- schedule ---------------------------------------------------------------------------------------------------------


NIGHTLY: dict[str, Any] = {
    "data": {"asOf": "Rolling", "calendar": None},
    "training": {"schedule": {"cron": "0 22 * * *", "timeZone": "America/New_York"}},
}


def test_schedule_trains_at_its_tick_with_that_days_data() -> None:
    sim = champion(NIGHTLY)
    decision = sim.step()
    assert sim.status.next_training is not None
    assert decision.wake_at is not None
    assert decision.wake_at <= sim.status.next_training
    sim.now = sim.status.next_training
    trained(sim)
    assert [record.cause.kind for record in sim.records] == ["Initial", "Schedule"]
    assert sim.records[1].evidence.summary["asOf"] == "2026-11-24", "the date in New York"
    assert sim.records[1].cause.trigger == {"scheduleTick": "2026-11-25T03:00:00Z"}
    sim.settle()
    assert len(sim.created) == 2


def test_missed_ticks_are_one_training() -> None:
    sim = champion(NIGHTLY)
    sim.edit({"suspend": True})
    sim.settle()
    sim.advance(days=5)
    sim.settle()
    assert len(sim.created) == 1
    sim.edit({"suspend": False})
    trained(sim)
    assert len(sim.created) == 2
    sim.settle()
    assert len(sim.created) == 2


def test_a_tick_during_a_training_waits_for_its_end() -> None:
    sim = champion(NIGHTLY)
    sim.advance(days=1)
    sim.settle()
    assert len(sim.created) == 2
    sim.advance(days=1)
    sim.settle()
    assert len(sim.created) == 2
    sim.finish(measured(sim))
    sim.settle()
    assert len(sim.created) == 3


def test_a_schedule_on_fixed_data_says_so_and_writes_nothing_at_its_ticks() -> None:
    sim = champion({"data": {"calendar": None}, "training": {"schedule": {"cron": "* * * * *"}}})
    sim.advance(minutes=2)
    sim.settle()
    assert sim.condition("NothingNew")[0] == "True"
    writes = sim.status_writes
    for _ in range(10):
        sim.advance(minutes=1)
        sim.settle()
    assert sim.status_writes == writes
    assert len(sim.created) == 1


def test_a_schedule_on_an_unknown_exchange_is_stalled() -> None:
    sim = SimulatedWorld({"training": {"schedule": {"cron": "0 22 * * *", "calendar": "XLON"}}})
    sim.settle()
    assert sim.condition("Stalled")[:2] == ("True", reasons.CALENDAR_UNKNOWN)


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_written_at_most_every_fifteen_seconds_and_only_on_change() -> None:
    sim = SimulatedWorld()
    sim.settle()
    writes = 0
    for second in range(60):
        sim.start({"epoch": second // 4, "epochs": 15, "percent": second, "etaSeconds": 60 - second})
        before = sim.status_writes
        sim.step()
        writes += sim.status_writes - before
        sim.advance(seconds=1)
    assert writes <= 6
    assert sim.status.training is not None
    assert sim.status.training.progress is not None
    assert sim.status.training.progress.percent is not None
    assert sim.status.training.progress.percent >= 44
    before = sim.status_writes
    for _ in range(10):
        sim.advance(seconds=15)
        sim.step()
    assert sim.status_writes - before <= 1
