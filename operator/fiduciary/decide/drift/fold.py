"""Folding a closed window: each detector and each limit takes it in once. No rule about actions is in here."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.decide.drift.calibrate import REALISED
from fiduciary.decide.drift.scores import distance, excess, rounded, sampling
from fiduciary.decide.drift.state import Limit, Stream
from fiduciary.evidence.cusum import REFERENCE_VALUE
from fiduciary.evidence.refusal import Refusal
from fiduciary.evidence.reliability import added, miscalibration
from fiduciary.evidence.tails import log_binomial_tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary.decide.drift.calibrate import Calibrated, Gauge
    from fiduciary.decide.drift.windows import Window

RECOVERED = 3.5
"""An alarm ends when the evidence that the scores are the reference's again passes this: a CUSUM of ½ - z, which under
a drift of one standard deviation does so once in 200 windows, and without drift within about nine."""
QUIET = 3
ENOUGH = 0.9
"""Share of the fewest rows of a window in which a feature has to have a value."""


def fold_window(calibrated: Calibrated, streams: tuple[Stream, ...], window: Window) -> tuple[Stream, ...]:
    """All detectors of histograms with this window; those of losses stand still."""
    by_name = {its.name: its.bins for its in window.features}
    rates = dict(calibrated.missing)
    made: list[Stream] = []
    for gauge, stream in zip(calibrated.gauges, streams, strict=True):
        if gauge.kind in REALISED:
            made.append(stream)
            continue
        counts = {"prediction": window.prediction, "joint": window.joint}.get(gauge.kind, by_name.get(gauge.name, ()))
        needed = ENOUGH * calibrated.grid.least * (1.0 - rates.get(gauge.name, 0.0))
        why = _unusable(gauge, counts, needed)
        made.append(_described(gauge, stream, counts, why) if why else taken(gauge, stream, window.last, counts))
    return tuple(made)


def _unusable(gauge: Gauge, counts: Sequence[int], needed: float) -> str:
    if gauge.blind:
        return gauge.blind
    if not counts:
        return "the scorer counts nothing of it for this version: serve it with the runtime of this release"
    if len(counts) != len(gauge.total):
        return f"the scorer counts {len(counts)} bins and the reference has {len(gauge.total)}: they are not comparable"
    rows = sum(counts)
    return f"it has a value in {rows} rows of the window, at least {needed:.0f} are needed" if rows < needed else ""


def _described(gauge: Gauge, stream: Stream, counts: Sequence[int], why: str) -> Stream:
    """Not judged: the plain distance is told, where there is one."""
    comparable = len(counts) == len(gauge.total) and min((*gauge.total, *counts), default=-1) >= 0
    found = distance(gauge.statistic, gauge.edges, gauge.sd, gauge.total, counts) if comparable and gauge.blind else 0.0
    # What a gauge says of itself is not kept with each stream of it.
    return replace(stream, blind="" if gauge.blind else why, effect=0.0 if isinstance(found, Refusal) else found)


def taken(gauge: Gauge, stream: Stream, number: int, counts: tuple[int, ...]) -> Stream:
    """One detector with the counts of window ``number``."""
    found = distance(gauge.statistic, gauge.edges, gauge.sd, gauge.total, counts)
    if isinstance(found, Refusal):
        return replace(stream, blind=found.message)
    usual = sampling(gauge.statistic, sum(gauge.total), sum(counts))
    return scored(gauge, stream, number, rounded(found / usual), max(0.0, found - gauge.typical * usual), counts)


def realised(gauge: Gauge, stream: Stream, number: int, value: float, sums: tuple[float, ...]) -> Stream:
    """One detector of losses or calibration with the score of window ``number`` of closed sessions."""
    if gauge.blind:
        return replace(stream, effect=size(gauge, sums), last=number)
    merged = added(stream.sums, sums)  # kept only while evidence grows, or an alarm lasts
    after = scored(gauge, stream, number, value, size(gauge, merged))
    if after.blind:
        return after
    return replace(after, sums=merged if after.detector.cusum > 0.0 or after.alarm is not None else ())


def size(gauge: Gauge, sums: tuple[float, ...]) -> float:
    """What is compared with ``minEffect``: mean loss above what the walk-forward lost, or points of probability."""
    if gauge.kind == "calibration":
        return rounded(miscalibration(sums))
    return rounded(sums[1] / sums[0] - gauge.typical) if sums and sums[0] else 0.0


def scored(
    gauge: Gauge, stream: Stream, number: int, value: float, effect: float, counts: tuple[int, ...] = ()
) -> Stream:
    """One detector with the score of window ``number``. ``effect``: of it alone; ``counts``: empty for what is
    realised."""
    calibration = gauge.calibration
    if calibration is None:
        return stream
    before = stream.detector
    detector = before.fold(calibration, before.last + 1, value)
    if isinstance(detector, Refusal):
        return replace(stream, blind=detector.message)
    merged = counts
    if stream.counts:  # kept only while evidence grows, or an alarm lasts
        merged = tuple(map(sum, zip(stream.counts, counts, strict=True)))
        found = excess(gauge.statistic, gauge.edges, gauge.sd, gauge.total, merged, gauge.typical)
        if isinstance(found, Refusal):
            return replace(stream, blind=found.message)
        effect = found
    large = detector.cusum > calibration.height and effect >= gauge.min_effect
    grows, above = detector.cusum > 0.0, stream.above + 1 if large else 0
    alarm, recovery = stream.alarm, 0.0
    if alarm is None:
        alarm = number if above >= gauge.for_windows else None
    else:
        recovery = max(0.0, stream.recovery + REFERENCE_VALUE - detector.score)
    # Written out: hundreds of detectors are folded with each window, and ``replace`` costs as much as the rest of it.
    after = Stream(
        monitor=stream.monitor,
        name=stream.name,
        detector=detector,
        since=(stream.since if stream.since >= 0 else number) if grows else -1,
        counts=merged if grows or stream.alarm is not None else (),
        above=above,
        last=number,
        effect=effect,
        alarm=alarm,
        recovery=recovery,
    )
    return acted_on(after) if recovery > RECOVERED else after


def acted_on(stream: Stream) -> Stream:
    """The alarm is over: the sum starts again, what was learned stays."""
    return replace(
        stream, detector=stream.detector.reset(), since=-1, counts=(), sums=(), above=0, alarm=None, recovery=0.0
    )


def fold_missing(
    limit: Limit, window: Window, above: float, rates: Mapping[str, float], run_time: float, for_windows: int
) -> Limit:
    """Features that are missing in more rows than ``above``, and more than chance explains: P(Bin(n, rate in the
    reference) >= y) <= 1/run time, of each."""
    beyond: list[tuple[float, str]] = []
    largest = 0.0
    for its in window.features:
        share = its.missing / window.rows if window.rows else 0.0
        largest = max(largest, share)
        usual = rates.get(its.name, 0.5)
        if share > above and its.missing <= window.rows:
            tail = log_binomial_tail(window.rows, its.missing, usual) if usual < 1.0 else 0.0
            if tail <= -math.log(run_time * max(1, len(window.features))):
                beyond.append((-share, its.name))
    if not window.features:
        return replace(limit, last=window.end.at, blind="the scorer counts no features of this version")
    names = tuple(name for _, name in sorted(beyond))
    return limited(limit, window.end.at, largest, names, bool(names), for_windows)


def limited(limit: Limit, at: int, value: float, names: tuple[str, ...], beyond: bool, for_windows: int) -> Limit:
    """With the next value of a monitor with a fixed limit: so many windows in a row beyond it are an alarm, and
    :func:`quiet_windows` in a row within it end it, so that a value that dances around its limit is one alarm."""
    run = limit.run + 1 if beyond else 0
    if limit.alarm is None:
        return Limit(limit.monitor, run, 0, at, value, names, at if run >= for_windows else None)
    quiet = 0 if beyond else limit.quiet + 1
    if quiet >= quiet_windows(for_windows):
        return Limit(limit.monitor, run, 0, at, value, names)
    return Limit(limit.monitor, run, quiet, at, value, names if beyond else limit.names, limit.alarm)


def quiet_windows(for_windows: int) -> int:
    """Windows in a row within a limit that end an alarm: as many as raised it, at least :data:`QUIET`."""
    return max(for_windows, QUIET)
