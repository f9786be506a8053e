"""What each monitor shows: its state, its score against its threshold, and why where it shows nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fiduciary.decide.drift.alarms import share, sized, standing
from fiduciary.decide.drift.calibrate import REALISED
from fiduciary.decide.drift.held import gone_back_to
from fiduciary.decide.drift.losses import day_of, versus_threshold
from fiduciary.decide.drift.queries import queries
from fiduciary.decide.drift.state import Losses
from fiduciary.decide.promql import Refused
from fiduciary.evidence.edetector import BURN_IN

if TYPE_CHECKING:
    from fiduciary.api.driftpolicy import Monitor
    from fiduciary.decide.drift.calibrate import Calibrated, Gauge
    from fiduciary.decide.drift.case import Case
    from fiduciary.decide.drift.state import Limit, State, Stream, Versus

MonitorState = Literal["Stable", "Drifting", "Drifted", "Unknown"]
GROWS = 0.5
"""Share of the threshold from which evidence is said to grow."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One monitor now.

    ``part``: evidence over threshold, for the comparison of monitors; ``names``: what drifted; ``estimate``: of the
    loss of rows whose outcomes are not known yet.
    """

    name: str
    state: MonitorState
    message: str
    score: float | None = None
    threshold: float | None = None
    distance: float | None = None
    estimate: float | None = None
    names: tuple[str, ...] = ()
    part: float = 0.0
    at: int | None = None  # s, end of the last window or value
    person: bool = False  # a person has to mend it


def shown(case: Case) -> tuple[Shown, ...]:
    """Every monitor, in the order of the spec."""
    return tuple(_shown(case, monitor) for monitor in case.spec.monitors)


def _shown(case: Case, monitor: Monitor) -> Shown:
    refused = queries(case.world.policy).get(monitor.name)
    if isinstance(refused, Refused):
        return Shown(monitor.name, "Unknown", refused.message, person=True)
    calibrated, state = case.calibrated, case.state
    if calibrated is None or state is None or state.key != calibrated.key:
        return Shown(monitor.name, "Unknown", "nothing was judged yet")
    if monitor.query is not None or monitor.missing is not None:
        return _of_limit(
            monitor, next((its for its in state.limits if its.monitor == monitor.name), None), state, calibrated
        )
    if monitor.beside_previous:
        found = next((its for its in state.versus if its.monitor == monitor.name), None)
        return _read(case, _of_versus(case, monitor, found, calibrated, state))
    if monitor.realised:
        estimate = state.estimate if monitor.realised_loss is not None else None
        return replace(_read(case, _of_streams(case, monitor, calibrated, state)), estimate=estimate)
    return _of_streams(case, monitor, calibrated, state)


def _read(case: Case, its: Shown) -> Shown:
    """What outcomes say, where they are read; an alarm stands until something ends it."""
    losses = Losses() if case.state is None else case.state.losses
    its = replace(its, at=None if losses.last < 0 else day_of(losses.session))
    if not case.world.outcomes:
        return its
    if its.state == "Drifted":
        return replace(its, message=f"{its.message}; {case.world.outcomes}")
    return replace(its, state="Unknown", message=case.world.outcomes)


def _of_limit(monitor: Monitor, limit: Limit | None, state: State, calibrated: Calibrated) -> Shown:
    bound = monitor.above or monitor.below or (monitor.missing.above if monitor.missing is not None else "0")
    threshold = float(bound)
    if limit is None or (limit.last < 0 and not limit.blind):
        return Shown(monitor.name, "Unknown", "no window has ended yet", threshold=threshold)
    seen = limit.last // 1000
    if limit.blind:
        kept = f"{limit.blind}; the alarm stands" if limit.alarm is not None else limit.blind
        return Shown(
            monitor.name, "Drifted" if limit.alarm is not None else "Unknown", kept, limit.value, threshold, at=seen
        )
    now = standing(calibrated, state, monitor)
    part = 0.0 if limit.value is None or threshold == 0.0 else abs(limit.value / threshold)
    if monitor.below is not None and part > 0.0:
        part = 1.0 / part
    if now.raised is not None:
        return Shown(monitor.name, "Drifted", now.message, limit.value, threshold, names=now.names, part=part, at=seen)
    how = f"beyond the limit in {limit.run} windows in a row, {monitor.for_windows} are an alarm"
    state_ = "Drifting" if limit.run else "Stable"
    return Shown(monitor.name, state_, how, limit.value, threshold, names=limit.names, part=part, at=seen)


def _of_versus(case: Case, monitor: Monitor, versus: Versus | None, calibrated: Calibrated, state: State) -> Shown:
    threshold = versus_threshold(calibrated)
    if case.model is not None and case.model.previous is None:
        return Shown(monitor.name, "Unknown", "there is no previous version to compare with", threshold=threshold)
    if case.model is not None and case.model.returned and case.model.champion is not None:
        told = gone_back_to(case.model.champion.version)
        return Shown(monitor.name, "Unknown", told, threshold=threshold)
    log_e = None if versus is None else versus.detector.log_e
    if versus is None or log_e is None:
        seen = 0 if versus is None else versus.detector.burn_in.count
        told = f"{seen} sessions with both versions' losses; the first {BURN_IN} set the scale and are not judged"
        return Shown(monitor.name, "Unknown", told, threshold=threshold)
    now = standing(calibrated, state, monitor)
    part = max(0.0, log_e / threshold)
    mean = versus.detector.burn_in.mean
    told = f"mean difference of losses {mean:.3g} over {versus.detector.burn_in.count} sessions, positive is worse"
    if state.losses.unanswered:
        told += f"; {state.losses.unanswered} outcomes that only the previous version had predicted are left out"
    if now.raised is not None:
        return Shown(monitor.name, "Drifted", f"{now.message}; {told}", log_e, threshold, mean, part=part)
    return Shown(monitor.name, "Drifting" if part >= GROWS else "Stable", told, log_e, threshold, mean, part=part)


def _of_streams(case: Case, monitor: Monitor, calibrated: Calibrated, state: State) -> Shown:
    pairs = [
        (gauge, stream)
        for gauge, stream in zip(calibrated.gauges, state.streams, strict=True)
        if gauge.monitor == monitor.name
    ]
    judged = [pair for pair in pairs if pair[0].calibration is not None and not pair[1].blind and pair[1].last >= 0]
    now = standing(calibrated, state, monitor)
    gauge, stream = max(judged or pairs, key=lambda pair: share(*pair), default=(None, None))
    if gauge is None or stream is None or (not judged and now.raised is None):
        return Shown(monitor.name, "Unknown", _why(case, pairs))
    height = 0.0 if gauge.calibration is None else gauge.calibration.height
    part = share(gauge, stream)
    blind = _blind(pairs)
    if now.raised is not None:
        told = f"{now.message}{blind}"
    else:
        name = f"{stream.name}, " if stream.name else ""
        told = f"nearest: {name}{_effect(gauge, stream)}{blind}"
    growing = tuple(its.name for pair in judged if share(*pair) >= GROWS and (its := pair[1]).name)
    state_ = "Drifted" if now.raised is not None else "Drifting" if part >= GROWS else "Stable"
    at = None if state.ended < 0 or gauge.kind in REALISED else state.ended // 1000  # sessions: see _read
    return Shown(
        name=monitor.name,
        state=state_,
        message=told,
        score=stream.detector.cusum,
        threshold=height,
        distance=stream.effect,
        names=now.names or growing[:32],
        part=part,
        at=at,
    )


def _effect(gauge: Gauge, stream: Stream) -> str:
    least = f", minEffect {gauge.min_effect:g}" if gauge.min_effect else ""
    return f"{sized(gauge, stream)}{least}"


def _blind(pairs: list[tuple[Gauge, Stream]]) -> str:
    """Which are not judged: Unknown is neither drift nor health."""
    unknown = [(stream.name, stream.blind or gauge.blind) for gauge, stream in pairs if stream.blind or gauge.blind]
    if not unknown:
        return ""
    if len(pairs) == 1:
        return f"; the last window was not judged: {unknown[0][1]}"
    names = ", ".join(name for name, _ in unknown[:8]) + (", …" if len(unknown) > 8 else "")
    return f"; {len(unknown)} of {len(pairs)} features are Unknown ({names}): {unknown[0][1]}"


def _why(case: Case, pairs: list[tuple[Gauge, Stream]]) -> str:
    found = [stream.blind or gauge.blind for gauge, stream in pairs if stream.blind or gauge.blind]
    if found:
        descriptive = [
            f"{its.name or gauge.kind} {its.effect:.3g}" for gauge, its in pairs if gauge.blind and its.effect > 0.0
        ]
        what = "size" if pairs[0][0].kind in REALISED else pairs[0][0].statistic
        plain = f"; {what} of the last window, descriptive only: " + ", ".join(descriptive[:8])
        return found[0] + (plain if descriptive else "")
    if any(gauge.kind in REALISED for gauge, _ in pairs) and case.state is not None:
        needed = 0 if case.calibrated is None else case.calibrated.grid.per_entity
        return f"{case.state.losses.open} of {needed} sessions of the first window have their outcomes"
    return "no window has ended yet"


def decimal(value: float | None, digits: int = 4) -> str | None:
    """A number for the status: fixed notation within what the API takes; beyond it, its end."""
    if value is None or math.isnan(value):
        return None
    text = f"{min(max(value, -999_999_999_999_999.0), 999_999_999_999_999.0):.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
