"""What each monitor shows: its state, its score against its threshold, and why where it shows nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fiduciary.decide.drift.alarms import share, standing
from fiduciary.decide.drift.losses import versus_threshold
from fiduciary.decide.drift.queries import queries
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

LOSSES_NOT_READ = (
    "realised losses are not read in this release: no ledger is begun for a policy, so that nothing is judged"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """One monitor now. ``part``: evidence over threshold, for the comparison of monitors; ``names``: what drifted."""

    name: str
    state: MonitorState
    message: str
    score: float | None = None
    threshold: float | None = None
    distance: float | None = None
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
    if monitor.realised_loss is not None and not case.world.losses:
        return Shown(monitor.name, "Unknown", LOSSES_NOT_READ)
    if monitor.realised_loss is not None and monitor.realised_loss.against == "PreviousVersion":
        found = next((its for its in state.versus if its.monitor == monitor.name), None)
        return _of_versus(case, monitor, found, calibrated, state)
    return _of_streams(case, monitor, calibrated, state)


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
        return Shown(monitor.name, "Drifted", now.message, limit.value, threshold, None, now.names, part, seen)
    how = f"beyond the limit in {limit.run} windows in a row, {monitor.for_windows} are an alarm"
    return Shown(
        monitor.name, "Drifting" if limit.run else "Stable", how, limit.value, threshold, None, limit.names, part, seen
    )


def _of_versus(case: Case, monitor: Monitor, versus: Versus | None, calibrated: Calibrated, state: State) -> Shown:
    threshold = versus_threshold(calibrated)
    if case.model is not None and case.model.previous is None:
        return Shown(monitor.name, "Unknown", "there is no previous version to compare with", threshold=threshold)
    log_e = None if versus is None else versus.detector.log_e
    if versus is None or log_e is None:
        seen = 0 if versus is None else versus.detector.burn_in.count
        told = f"{seen} sessions with both versions' losses; the first {BURN_IN} set the scale and are not judged"
        return Shown(monitor.name, "Unknown", told, threshold=threshold)
    now = standing(calibrated, state, monitor)
    part = max(0.0, log_e / threshold)
    mean = versus.detector.burn_in.mean
    told = f"mean difference of losses {mean:.3g} over {versus.detector.burn_in.count} sessions, positive is worse"
    if now.raised is not None:
        return Shown(monitor.name, "Drifted", f"{now.message}; {told}", log_e, threshold, mean, (), part)
    return Shown(monitor.name, "Drifting" if part >= GROWS else "Stable", told, log_e, threshold, mean, (), part)


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
    at = None if state.ended < 0 or gauge.kind == "loss" else state.ended // 1000
    return Shown(
        monitor.name, state_, told, stream.detector.cusum, height, stream.effect, now.names or growing[:32], part, at
    )


def _effect(gauge: Gauge, stream: Stream) -> str:
    if gauge.kind == "loss":
        return f"mean loss of the last window {stream.effect:.4g}"
    least = f", minEffect {gauge.min_effect:g}" if gauge.min_effect else ""
    return f"{gauge.statistic} {stream.effect:.3g} beyond what sampling shows{least}"


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
        plain = f"; {pairs[0][0].statistic} of the last window, descriptive only: " + ", ".join(descriptive[:8])
        return found[0] + (plain if descriptive else "")
    if any(gauge.kind == "loss" for gauge, _ in pairs) and case.state is not None:
        needed = 0 if case.calibrated is None else case.calibrated.grid.per_entity
        return f"{case.state.losses.open} of {needed} sessions of the first window have their outcomes"
    return "no window has ended yet"


def decimal(value: float | None, digits: int = 4) -> str | None:
    """A number for the status: fixed notation within what the API takes; beyond it, its end."""
    if value is None or math.isnan(value):
        return None
    text = f"{min(max(value, -999_999_999_999_999.0), 999_999_999_999_999.0):.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
