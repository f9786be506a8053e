"""When a model is looked at again, though nothing happens until then."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.decide.calendar import CalendarUnknown
from fiduciary.decide.due import following_tick
from fiduciary.decide.schedule import ScheduleImpossible
from fiduciary.decide.trainings import expires

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.serving.upkeep import Upkeep
    from fiduciary.decide.step import Step
    from fiduciary.decide.world import World


def wake(case: Case, step: Step, care: Upkeep) -> datetime:
    """The earliest moment at which the answer could be another one, though nothing happens until then."""
    moments = [case.now + resync(case.world)]
    moments += [moment for moment in (step.wake_at, care.wake_at) if moment is not None]
    moments += [end for job in case.world.jobs if (end := expires(case, job)) is not None]
    if not case.spec.suspend and not case.killed:
        try:
            tick = following_tick(case)
        except (CalendarUnknown, ScheduleImpossible):
            tick = None  # said by `trainings.unschedulable`
        if tick is not None:
            moments.append(tick)
    # What is past and was not acted on (a Job's end of life while the model goes, or on a broken log) is no reason to
    # look again at once, for ever.
    return min(moment for moment in moments if moment > case.now)


def resync(world: World) -> timedelta:
    """A slow look at everything, spread over the models by their UID so that they do not come all at once."""
    uid = hashlib.sha256(world.model.metadata.uid.encode()).digest()
    spread = int.from_bytes(uid[:4], "big") / 0xFFFFFFFF
    return timedelta(seconds=world.platform.resync_seconds * (0.9 + 0.2 * spread))
