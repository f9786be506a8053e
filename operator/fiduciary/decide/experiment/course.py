"""Where an experiment is, moved by the rule that applied: steps, weights, latch and the request for signatures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.api.modeldecision import Traffic
from fiduciary.decide import reasons
from fiduciary.decide.experiment.state import Claim, Course, Latch, Request, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary.api.experiment import Step
    from fiduciary.decide.experiment.rules import Rule
    from fiduciary.decide.experiment.world import ClosedBlock

SEGMENTS_KEPT = 32
GAPS_KEPT = 64
"""Days; a session is closed long before that many more have passed."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What moves the course besides the rule: the time, who is dark or away, the evidence, and the words of harm."""

    now: int
    dark: bool
    absent: bool  # no pod of the challenger is ready, the champion's are
    unready: bool  # and one of them runs
    away: bool  # they are not enough for the step again, or not for long enough
    enough: bool
    gap: str | None  # the exchange's day, where both arms should get every request and do not
    digest: str
    test: str
    message: str
    needed: int  # signatures
    void: bool  # evidence that people were asked to sign counts for nothing
    shown: tuple[Claim, ...]


def with_block(course: Course, steps: Sequence[Step], block: ClosedBlock) -> Course:
    """A block counts for the present step if its weights were in force from edge to edge; a merged gap does not."""
    segments = course.segments
    if segments:
        segments = (replace(segments[0], blocks=segments[0].blocks + block.last - block.first + 1), *segments[1:])
    counts = (
        course.step >= 0
        and not block.merged
        and not block.absent
        and in_force(steps[course.step], block.weight, block.mirror)
    )
    return replace(course, blocks=course.blocks + counts, segments=segments)


def promoted(course: Course, at: int) -> Course:
    """A promotion begins a stretch of its own, once."""
    if course.segments and course.segments[0].reason == reasons.PROMOTED:
        return course
    return replace(course, segments=(Segment(at, None, reasons.PROMOTED), *course.segments)[:SEGMENTS_KEPT])


def in_force(step: Step, weight: int, mirror: int) -> bool:
    """Whether weights are what the step asks for. A mirror beside a split is dropped where nobody could count it apart
    (protocols §4), so it is only asked for where it is all that the challenger gets."""
    return weight == step.weight and (step.weight > 0 or mirror > 0)


def together(steps: Sequence[Step], step: int) -> bool:
    """Whether both arms get every request in this step: beside a split nothing is copied (see :func:`in_force`)."""
    return step < 0 or (steps[step].weight == 0 and steps[step].mirror == 100)


def advance(course: Course, steps: Sequence[Step], rule: Rule, moment: Moment) -> Course:
    """The course after this evaluation."""
    now = moment.now
    dark_since = _since(course.dark_since, now, moment.dark)
    away = moment.absent or (moment.away and course.away_since is not None)
    course = replace(
        course,
        judged=now,
        dark_since=dark_since,
        away_since=_since(course.away_since, now, away),
        back_since=_since(course.back_since, now, away and not moment.absent and moment.enough),
        absences=course.absences + (away and course.away_since is None),
        gaps=_gaps(course.gaps, moment.gap),
        unready_since=_since(course.unready_since, now, moment.unready),
        request=_request(course.request, moment),
    )
    if rule.exposure == "Next":
        entered = course.step + 1
        segment = Segment(now, steps[entered].name, rule.reason)
        return replace(
            course,
            step=entered,
            blocks=0,
            started=course.started if course.started is not None else now,
            segments=(segment, *course.segments)[:SEGMENTS_KEPT],
        )
    if rule.reason == reasons.AWAITING_APPROVAL and course.request is None:
        return replace(course, request=Request(moment.digest, now, moment.needed, moment.shown))
    if rule.verdict == "RollBack" and rule.final:
        latch = course.latch or Latch(now, rule.reason, moment.test, moment.message)
        return replace(course, latch=latch, request=None)
    if rule.final and rule.verdict == "KeepChampion":
        return replace(course, request=None)
    return course


def _gaps(gaps: tuple[str, ...], gap: str | None) -> tuple[str, ...]:
    return gaps if gap is None or gap in gaps else (*gaps, gap)[-GAPS_KEPT:]


def _since(since: int | None, now: int, holds: bool) -> int | None:
    """Since when something holds; None where it does not."""
    if not holds:
        return None
    return now if since is None else since


def _request(request: Request | None, moment: Moment) -> Request | None:
    """``moment.needed`` is never below what was asked for before (``Case.approvals_needed``)."""
    return None if request is None or moment.void else replace(request, needed=moment.needed)


def traffic(course: Course | None, steps: Sequence[Step], rule: Rule, carried_out: str | None) -> Traffic:
    """The weights to ask for after :func:`advance`. ``carried_out``: the recorded verdict that still stands."""
    if rule.exposure == "Full" or (rule.reason == reasons.VERDICT_RECORDED and carried_out == "Promote"):
        return Traffic(champion=0, challenger=100)
    if rule.exposure == "Zero" or rule.reason == reasons.VERDICT_RECORDED or course is None or course.step < 0:
        return Traffic(champion=100)
    step = steps[course.step]
    return Traffic(champion=100 - step.weight, challenger=step.weight, mirror=step.mirror, step=step.name)
