"""Pods that cannot answer: what they did by themselves is a verdict on the version, what the cluster did is waited for.

Counters do not see what never reached a model (protocols.md §5), so this is looked at at once and always.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fiduciary.decide.experiment.breakers import Trip
from fiduciary.decide.experiment.times import at

if TYPE_CHECKING:
    from fiduciary.decide.experiment.case import Case

UNREADY_SCRAPES = 2
"""Scrape intervals for which a pod that runs may say that it is not ready."""
LONGEST_PAUSE = 6 * 3600
AWAY_LIMIT = 120
"""Seconds for which the cluster may keep the pods of a version that has all requests, where another one could answer
them: a pod that is made anew on another node takes a quarter of that."""


def failed(case: Case) -> Trip | None:
    """What the challenger's pods did by themselves, where the champion's did not suffer the same: crashes, kills for
    memory, and pods that run and stay unready.

    What the cluster did with them is no verdict on the version (:func:`away`), but that after a promotion clients are
    not kept waiting for it.
    """
    champion, challenger = case.world.live.champion, case.world.live.challenger
    for name, ours, theirs in (
        ("restarts", challenger.restarts, champion.restarts),
        ("kills for memory", challenger.out_of_memory, champion.out_of_memory),
    ):
        if ours > theirs:
            return Trip("pods", f"{ours} {name} of the challenger's containers since then, {theirs} of the champion's")
    if not absent(case):
        return None
    course = None if case.state is None else case.state.course
    unready = 0 if course is None or course.unready_since is None else case.now - course.unready_since
    if challenger.unready and unready >= UNREADY_SCRAPES * case.world.scrape_seconds:
        return Trip("pods", f"{_none_ready(case)} for {unready} s: {challenger.told}")
    gone = 0 if course is None or course.away_since is None else case.now - course.away_since
    if _promoted(case) and gone >= AWAY_LIMIT:
        return Trip("pods", f"{_none_ready(case)} for {gone} s, and who served before could answer: {challenger.told}")
    return None


def absent(case: Case) -> bool:
    """Whether no pod of the challenger could answer, and the champion's could."""
    live = case.world.live
    return live.challenger.ready == 0 and live.champion.ready > 0


def away(case: Case) -> bool:
    """Whether no pod of the challenger was ready, and they do not suffice for its share again."""
    course = None if case.state is None else case.state.course
    if course is None or course.step < 0 or case.spec.mode == "DryRun":
        return False
    if absent(case) or course.away_since is None or _promoted(case):
        return absent(case)
    block = case.state.terms.block if case.state is not None else 0
    back = case.now if course.back_since is None else course.back_since
    return not enough(case) or case.now - back < pause(course.absences, block)


def enough(case: Case) -> bool:
    """Whether the challenger's pods suffice for its present share."""
    return case.world.route.challenger_ready >= needed(case)


def pause(absences: int, block: int) -> int:
    """Seconds for which pods have to be there before their share comes back: each change of it is a record, and what
    comes and goes all the time would fill the log."""
    return 0 if absences <= 1 else min(block * 2 ** min(absences - 2, 16), LONGEST_PAUSE)


def needed(case: Case) -> int:
    """Pods of the challenger that its present share needs."""
    course = None if case.state is None else case.state.course
    if course is None or course.step < 0 or _promoted(case):
        return 1
    step = case.spec.traffic.steps[course.step]
    return max(1, math.ceil(max(step.weight, step.mirror) / 100 * case.world.route.champion_ready))


def waited_for(case: Case) -> str:
    """What is waited for while they are away, in words."""
    told = f": {case.world.live.challenger.told}" if case.world.live.challenger.told else ""
    pause_s = 0 if case.state is None else pause(case.state.course.absences, case.state.terms.block)
    for_long = f" that stay for {pause_s} s" if pause_s else ""
    grace = UNREADY_SCRAPES * case.world.scrape_seconds
    course = None if case.state is None else case.state.course
    left = "" if course is None or course.started is None else (
        f"; this counts towards maxDuration, which ends at {at(course.started + case.max_duration):%Y-%m-%d %H:%M} UTC"
    )  # fmt: skip
    return (
        f"{case.world.live.challenger.ready} pods of the challenger are ready, it gets its share back with "
        f"{needed(case)}{for_long}{told}; only pods that end by themselves, or run unready for {grace} s, roll it back"
        f"{left}"
    )


def _none_ready(case: Case) -> str:
    return f"no pod of the challenger is ready, {case.world.live.champion.ready} of the champion are,"


def _promoted(case: Case) -> bool:
    return case.world.recorded is not None and case.world.recorded.stands
