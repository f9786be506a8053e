"""Folding closed sessions of the scorer's ledger: what was realised, against the walk-forward and the previous version.

Losses and calibration are judged by windows of sessions, as rows are; the comparison with the previous version takes
each session by itself. A session that our own transport damaged, or that nobody can score, belongs to no window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fiduciary.decide.drift.fold import realised
from fiduciary.decide.drift.reference import CLASSES
from fiduciary.decide.drift.scores import rounded
from fiduciary.decide.experiment.fold import chained
from fiduciary.evidence.edetector import EDetector
from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_count, check_measure, check_next
from fiduciary.evidence.reliability import added, reliability

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.decide.drift.calibrate import Calibrated, Gauge
    from fiduciary.decide.drift.state import Losses, State, Stream, Versus
    from fiduciary.decide.drift.world import SessionLoss

RECOVERED = math.log(200.0)
"""An alarm against the previous version ends by evidence of the same kind the other way round: that the difference is
less than half of what it was, which while it is half or more shows once in 200 sessions or later. The evidence that
raised it says nothing of that: it goes on growing, and would take years to fade."""


@dataclass(frozen=True, slots=True)
class Versed:
    """What the comparison with the previous version depends on.

    Attributes:
        horizon: sessions to a label's end; those in between overlap, and say the same thing twice.
        least: monitor -> mean difference that matters.
    """

    horizon: int = 1
    least: Mapping[str, float] = field(default_factory=dict[str, float])


def fold_session(
    calibrated: Calibrated, state: State, session: SessionLoss, versed: Versed | None = None
) -> State | Refusal:
    """With the next session of the ledger. A refusal folds nothing of it."""
    problem = check_next(state.losses.last, session.number, session.number) or _impossible(session)
    if problem is not None:
        return problem
    its = versed or Versed()
    versus = tuple(_against(calibrated, one, session, its) for one in state.versus)
    losses = _counted(state.losses, session)
    state = replace(state, versus=versus, losses=losses, sessions=chained(state.sessions, session))
    if calibrated.grid.per_entity == 0 or losses.open < calibrated.grid.per_entity:
        return state
    streams = tuple(
        _taken(gauge, stream, losses) for gauge, stream in zip(calibrated.gauges, state.streams, strict=True)
    )
    closed = replace(losses, open=0, entities=0, total=0.0, bins=(), windows=losses.windows + 1)
    return replace(state, streams=streams, losses=closed)


def _impossible(session: SessionLoss) -> Refusal | None:
    counts = {
        "entities": session.entities,
        "paired": session.paired,
        "dropped": session.dropped,
        "dropped of the previous version": session.dropped_previous,
        "unanswered": session.unanswered,
    }
    problem = None
    for name, value in counts.items():
        problem = problem or check_count(name, value)
    for name, value in (("loss", session.loss), ("difference", session.worse)):
        problem = problem or check_measure(name, value)
    return problem or _no_calibration(session.calibration)


def _no_calibration(bins: tuple[float, ...]) -> Refusal | None:
    whole = len(bins) in (0, 3 * CLASSES)
    for count, likely, events in zip(bins[::3], bins[1::3], bins[2::3], strict=True) if whole else ():
        whole = whole and 0.0 <= likely <= count <= MAX_COUNT and 0.0 <= events <= count
    told = "calibration does not hold forecasts, probabilities and events of ten bins"
    return None if whole else Refusal(Why.MALFORMED, told)


def _taken(gauge: Gauge, stream: Stream, losses: Losses) -> Stream:
    """One detector with the window of sessions that is full."""
    if gauge.kind == "loss":
        mean = rounded(losses.total / losses.open)
        return realised(gauge, stream, losses.windows, mean, (1.0, mean))
    if gauge.kind != "calibration":
        return stream
    if not losses.bins:
        return replace(stream, blind="no session of the window says how likely its events were called")
    return realised(gauge, stream, losses.windows, rounded(reliability(losses.bins)), losses.bins)


def _counted(losses: Losses, session: SessionLoss) -> Losses:
    usable = session.dropped == 0 and session.entities > 0
    return replace(
        losses,
        last=session.number,
        session=session.session,
        open=losses.open + usable,
        entities=losses.entities + (session.entities if usable else 0),
        total=losses.total + (session.loss / session.entities if usable else 0.0),
        bins=added(losses.bins, session.calibration) if usable else losses.bins,
        dropped=losses.dropped + (session.dropped > 0),
        empty=losses.empty + (session.entities == 0),
        unanswered=losses.unanswered + session.unanswered,
    )


def _against(calibrated: Calibrated, versus: Versus, session: SessionLoss, its: Versed) -> Versus:
    damaged = session.dropped or session.dropped_previous
    if damaged or not session.paired or session.number % its.horizon:
        return versus
    detector = versus.detector.fold(versus.detector.last + 1, session.worse / session.paired)
    if isinstance(detector, Refusal):
        return versus
    log_e, threshold = detector.log_e, versus_threshold(calibrated)
    if log_e is None:
        return replace(versus, detector=detector)
    versus = replace(versus, detector=detector)
    if versus.alarm is not None:
        return _recovering(versus, session.worse / session.paired)
    mean = detector.burn_in.mean
    if log_e < threshold or mean < its.least.get(versus.monitor, 0.0):
        return versus
    return replace(versus, alarm=session.number, over=EDetector(), half=max(0.0, mean / 2.0))


def _recovering(versus: Versus, difference: float) -> Versus:
    over = versus.over.fold(versus.over.last + 1, versus.half - difference)
    if isinstance(over, Refusal):
        return versus
    if over.log_e is not None and over.log_e >= RECOVERED:
        return replace(versus, detector=versus.detector.reset(), alarm=None, over=EDetector(), half=0.0)
    return replace(versus, over=over)


def day_of(session: str) -> int:
    """Seconds; a session is a day of its exchange, and only the order matters here."""
    try:
        return int(datetime.fromisoformat(session).replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError):
        return 0


def versus_threshold(calibrated: Calibrated) -> float:
    """ln of the sessions between two false alarms: windows of ``run_time`` times the sessions in one."""
    return math.log(calibrated.run_time * max(1, calibrated.grid.per_entity))
