"""Alarms: raised when a detector passes its threshold, ended when the drift is, or when it was acted on.

They are brought up to date after every folded window, so that it does not matter how many windows a reconcile folds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.decide import identity, reasons
from fiduciary.decide.drift.fold import acted_on, quiet_windows
from fiduciary.decide.drift.losses import versus_threshold
from fiduciary.decide.drift.state import Alarm
from fiduciary.evidence.edetector import EDetector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fiduciary.api.driftpolicy import Monitor
    from fiduciary.decide.drift.calibrate import Calibrated, Gauge
    from fiduciary.decide.drift.state import Limit, State, Stream, Versus

MOST_NAMES = 32
TOLD = {
    "prediction": "predictions drifted",
    "joint": "inputs drifted together",
    "loss": "the loss rose",
    "calibration": "probabilities are no longer honest",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What a monitor's detectors say together. ``raised``: window, session or time that raised it; None: no alarm."""

    monitor: str
    raised: int | None
    names: tuple[str, ...]
    message: str


def updated(monitors: Iterable[Monitor], calibrated: Calibrated, state: State, at: int) -> State:
    """The state with its alarms as its detectors are. ``at``: end of the window or session (s)."""
    before = {alarm.monitor: alarm for alarm in state.alarms}
    after: list[Alarm] = []
    for monitor in sorted(monitors, key=lambda its: its.name):
        alarm, now = before.get(monitor.name), standing(calibrated, state, monitor)
        if now.raised is not None and (alarm is None or alarm.until is not None):
            # Of what this monitor alone has seen: windows, values and sessions come in any order.
            seen = "" if monitor.query else state.sessions if monitor.realised else state.chain
            digest = identity.digest([state.key, monitor.name, now.raised, now.message, seen])
            alarm = Alarm(monitor.name, at, now.raised, now.names, now.message, digest)
        elif now.raised is not None and alarm is not None:
            alarm = replace(alarm, names=now.names, message=now.message)
        elif alarm is not None and alarm.until is None:
            alarm = replace(alarm, until=at, reason=reasons.BACK_TO_REFERENCE)
        if alarm is not None:
            after.append(alarm)
    return replace(state, alarms=tuple(after))


def ended(state: State, monitors: Iterable[str], at: int, reason: str) -> State:
    """These monitors begin anew: what they asked for was done."""
    names = frozenset(monitors)
    return replace(
        state,
        streams=tuple(acted_on(stream) if stream.monitor in names else stream for stream in state.streams),
        limits=tuple(replace(its, run=0, quiet=0, alarm=None) if its.monitor in names else its for its in state.limits),
        versus=tuple(
            replace(its, detector=its.detector.reset(), alarm=None, over=EDetector(), half=0.0)
            if its.monitor in names
            else its
            for its in state.versus
        ),
        alarms=tuple(
            replace(alarm, until=at, reason=reason) if alarm.monitor in names and alarm.until is None else alarm
            for alarm in state.alarms
        ),
    )


def standing(calibrated: Calibrated, state: State, monitor: Monitor) -> Standing:
    """One monitor as its detectors are."""
    if monitor.query is not None or monitor.missing is not None:
        limit = next((its for its in state.limits if its.monitor == monitor.name), None)
        return _of_limit(monitor, limit)
    if monitor.beside_previous:
        versus = next((its for its in state.versus if its.monitor == monitor.name), None)
        return _of_versus(calibrated, monitor, versus)
    pairs = [
        (gauge, stream)
        for gauge, stream in zip(calibrated.gauges, state.streams, strict=True)
        if gauge.monitor == monitor.name
    ]
    return _of_streams(monitor, pairs)


def share(gauge: Gauge, stream: Stream) -> float:
    """Evidence over its threshold."""
    calibration = gauge.calibration
    return 0.0 if calibration is None else stream.detector.cusum / calibration.height


def _of_streams(monitor: Monitor, pairs: list[tuple[Gauge, Stream]]) -> Standing:
    drifted = sorted(
        (pair for pair in pairs if pair[1].alarm is not None), key=lambda pair: (-share(*pair), pair[1].name)
    )
    if not drifted:
        return Standing(monitor.name, None, (), "")
    judged = [pair for pair in pairs if pair[0].calibration is not None]
    gauge, stream = drifted[0]
    height = 0.0 if gauge.calibration is None else gauge.calibration.height
    names = tuple(its.name for _, its in drifted if its.name)[:MOST_NAMES]
    if gauge.kind == "feature":
        told = f"{len(drifted)} of {len(judged)} judged features drifted ({100 * len(drifted) / len(judged):.0f} %), "
        told += f"{stream.name} most"
    else:
        told = TOLD[gauge.kind]
    evidence = f"evidence {stream.detector.cusum:.2f} of {height:.2f}, since window {stream.since}"
    message = f"{told}: {sized(gauge, stream)}, {evidence}"
    return Standing(monitor.name, min(its.alarm for _, its in drifted if its.alarm is not None), names, message)


def sized(gauge: Gauge, stream: Stream) -> str:
    """The size of what is seen since the evidence began to grow, with its unit."""
    if gauge.kind == "loss":
        expected = gauge.typical
        return f"mean loss {expected + stream.effect:.4g}, {expected:.4g} expected from validation"
    if gauge.kind == "calibration":
        return f"events come {100 * stream.effect:.3g} points beside their probabilities, beyond sampling"
    return f"{gauge.statistic} {stream.effect:.3g} beyond sampling"


def _of_limit(monitor: Monitor, limit: Limit | None) -> Standing:
    if limit is None or limit.alarm is None:
        return Standing(monitor.name, None, (), "")
    value = 0.0 if limit.value is None else limit.value
    if monitor.missing is not None:
        bound = f"missing in more than {monitor.missing.above} of the rows"
        told = f"{len(limit.names)} features are {bound}, up to {value:.3g}"
        now = f"up to {value:.3g} of a feature's rows are missing"
    else:
        bound = f"above {monitor.above}" if monitor.above is not None else f"below {monitor.below}"
        now = f"the query's value is {value:.6g}"
        told = f"{now}, {bound}"
    message = f"{told}, for {limit.run} windows in a row"
    if limit.quiet:
        needed = quiet_windows(monitor.for_windows)
        message = f"{now}; it was {bound}, and within the limit in {limit.quiet} of {needed} windows that end the alarm"
    return Standing(monitor.name, limit.alarm, limit.names[:MOST_NAMES], message)


def _of_versus(calibrated: Calibrated, monitor: Monitor, versus: Versus | None) -> Standing:
    if versus is None or versus.alarm is None:
        return Standing(monitor.name, None, (), "")
    log_e = versus.detector.log_e or 0.0
    message = (
        f"worse than the previous version on the same sessions: log evidence {log_e:.2f}, threshold "
        f"{versus_threshold(calibrated):.2f}, mean difference {versus.detector.burn_in.mean:.3g} over "
        f"{versus.detector.burn_in.count} sessions"
    )
    return Standing(monitor.name, versus.alarm, (), message)
