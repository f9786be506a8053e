"""What each detector of a policy rests on: the reference merged to the policy's window and scored leave-block-out.

Made once for a version and a spec, and kept by whoever calls ``decide``: a few numbers per reference block, no counts
of blocks. Nothing here is in the state; its key is, so that another reference or question begins anew.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Literal

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide import identity
from fiduciary.decide.drift.scores import rounded, score, spread
from fiduciary.evidence.conformal import MOST_BLOCKS, Calibration
from fiduciary.evidence.cusum import LEAST_BLOCKS
from fiduciary.evidence.refusal import Refusal, Why
from fiduciary.evidence.reliability import added, reliability

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fiduciary.api.data import LabelKind
    from fiduciary.api.driftpolicy import DriftPolicySpec, Monitor
    from fiduciary.decide.drift.reference import Histogram, Reference
    from fiduciary.decide.drift.scores import Statistic

MEMORY_FACTOR = 5
UNEVEN_ROWS, UNEVEN_LENGTH = 0.25, 0.5
"""How far the rows of a window may be from those of a reference block: scaled scores are a first-order cure."""

MOST_DETECTORS = 140
"""What a state of 256 KiB holds, each with the scores of a hundred windows."""

Kind = Literal["feature", "prediction", "joint", "loss", "calibration"]
REALISED: tuple[Kind, ...] = ("loss", "calibration")
"""Kinds that are judged by windows of closed sessions, not of rows."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where windows end: at each multiple of ``rows`` counted rows, or of ``length`` on the wall clock.

    Attributes:
        rows: in a window, of all entities together.
        per_entity: of them, of one entity.
        length: ms; 0: windows are counted in rows.
        least, most: rows with which a window can be compared with the reference's.
    """

    rows: int
    per_entity: int
    length: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Gauge:
    """One quantity that is measured. ``calibration`` None: descriptive only, ``blind`` says why.

    ``total``: counts of the whole reference; ``typical``: median score of its blocks, what no drift looks like; of a
    loss, its mean, which is what was expected.
    """

    monitor: str
    name: str
    kind: Kind
    statistic: Statistic
    edges: tuple[float, ...]
    sd: float
    total: tuple[int, ...]
    min_effect: float
    for_windows: int
    calibration: Calibration | None = None
    typical: float = 0.0
    blind: str = ""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """All that is known of one version before its first window.

    Attributes:
        key: of version, reference and question: detector states of another key are of something else.
        edges_digest: counts over other edges are never compared; empty: there is no reference.
        blocks: reference blocks of the window's length.
        missing: rate of each feature in the reference.
        judged: detectors that share ``ertWindows``.
        run_time: windows between false alarms of each of them alone.
        expected: mean loss of the walk-forward in each bin of the prediction; empty: nothing is estimated.
    """

    key: str
    edges_digest: str
    grid: Grid
    blocks: int
    gauges: tuple[Gauge, ...]
    missing: tuple[tuple[str, float], ...]
    judged: int
    run_time: float
    expected: tuple[float | None, ...] = ()


def key(spec: DriftPolicySpec, policy_uid: str, version: str) -> str:
    """Identity of what is judged, before the reference is read. Actions and guards are not in it."""
    asked = [identity.set_fields(monitor) for monitor in spec.monitors]
    for monitor in asked:
        monitor.pop("actions", None)
    return identity.digest(
        [policy_uid, version, identity.set_fields(spec.window), spec.false_alarms.ert_windows, asked]
    )


def calibrated(
    spec: DriftPolicySpec, policy_uid: str, version: str, label: LabelKind, reference: Reference | None
) -> Calibrated | Refusal:
    """Calibration of one version (its digest) for one policy; ``reference`` None: the version carries none.

    A refusal means that the spec cannot be judged on this version; a single detector that cannot be calibrated is
    descriptive.
    """
    grid = _grid(spec, reference)
    if isinstance(grid, Refusal):
        return grid
    its_key = key(spec, policy_uid, version)
    found = [gauge for monitor in spec.monitors for gauge in _gauges(monitor, grid, label, reference)]
    if len(found) > MOST_DETECTORS:
        return Refusal(
            Why.TOO_LARGE,
            f"{len(found)} detectors (monitors × features), a status holds at most {MOST_DETECTORS}: take out "
            "monitors of features, or divide them over several policies",
        )
    judged = sum(not gauge.blind for gauge, _ in found) + sum(_by_itself(its, reference) for its in spec.monitors)
    run_time = float(max(1, judged) * spec.false_alarms.ert_windows)
    return Calibrated(
        key=its_key,
        edges_digest="" if reference is None else reference.edges_digest,
        grid=grid,
        blocks=0 if reference is None else _merged_blocks(reference, grid),
        gauges=tuple(_begun(gauge, scores, run_time, its_key) for gauge, scores in found),
        missing=() if reference is None else tuple((its.name, _missing_rate(its)) for its in reference.features),
        judged=judged,
        run_time=run_time,
        # Outcomes of returns are ranked, and the reference holds squared errors.
        expected=() if reference is None or label == "Return" else reference.loss_by_prediction,
    )


def _by_itself(monitor: Monitor, reference: Reference | None) -> bool:
    """Monitors that need no reference blocks and spend of the false alarms: missing rows, and the previous version."""
    if monitor.missing is not None:
        return reference is not None
    return monitor.realised_loss is not None and monitor.realised_loss.against == "PreviousVersion"


def _grid(spec: DriftPolicySpec, reference: Reference | None) -> Grid | Refusal:
    window = spec.window
    if window.length is not None:
        length = max(1, int(timedelta_of(window.length).total_seconds() * 1000))
        if reference is None:
            return Grid(0, 0, length, window.min_count or 1, 2**53)
        return _grid_of_length(reference, window.length, length, window.min_count)
    if reference is None:
        return Refusal(
            Why.PARAMETER,
            "the version carries no drift reference, so that nobody knows how many entities make a row each: use "
            "window.length, or train a version with this release",
        )
    rows = window.rows or 0
    if rows % reference.dates or not rows:
        low = max(1, rows // reference.dates) * reference.dates
        return Refusal(
            Why.PARAMETER,
            f"window.rows is {rows}; the reference keeps blocks of {reference.dates} dates, so that windows are "
            f"multiples of it: {low} or {low + reference.dates}",
        )
    return _even(reference, rows, 0, UNEVEN_ROWS, 1)


def _grid_of_length(reference: Reference, text: str, length: int, min_count: int | None) -> Grid | Refusal:
    """Rows per entity in this time, by how dense they were in training."""
    span = (reference.ends - reference.begins).total_seconds() * 1000
    dates = reference.blocks * reference.dates
    expected = length * max(1, dates - 1) / span if span > 0 else 0.0
    rows = max(1, round(expected / reference.dates)) * reference.dates
    if abs(rows - expected) > UNEVEN_ROWS * expected:
        return Refusal(
            Why.PARAMETER,
            f"window.length {text} holds about {expected:.3g} rows per entity, and the reference keeps blocks of "
            f"{reference.dates}: take a length of about {reference.dates}, {2 * reference.dates} or more rows",
        )
    return _even(reference, rows, length, UNEVEN_LENGTH, min_count or 1)


def _even(reference: Reference, per_entity: int, length: int, uneven: float, min_count: int) -> Grid | Refusal:
    # Panels grow and shrink: what the newest block held is the best guess of what a window holds.
    last = _merge(reference.prediction.blocks, per_entity // reference.dates, most=1)
    newest = max(
        (
            sum(block) + gone
            for its in reference.features
            for block, gone in _windows(its, per_entity, reference, most=1)
        ),
        default=sum(last[0]) if last else 0,
    )
    rows = newest or per_entity * reference.entities
    least, most = int(rows * (1.0 - uneven)), int(rows * (1.0 + uneven))
    return Grid(rows, per_entity, length, max(1, least, min_count), max(1, most, min_count))


def _merged_blocks(reference: Reference, grid: Grid) -> int:
    return min(MOST_BLOCKS, reference.blocks // (grid.per_entity // reference.dates))


def _windows(
    its: Histogram, per_entity: int, reference: Reference, most: int = MOST_BLOCKS
) -> list[tuple[tuple[int, ...], int]]:
    parts = per_entity // reference.dates
    counts = _merge(its.blocks, parts, most)
    missing = _merge(tuple((gone,) for gone in its.missing), parts, most)
    return [(block, gone[0]) for block, gone in zip(counts, missing, strict=True)]


def _merge(blocks: Sequence[tuple[int, ...]], parts: int, most: int = MOST_BLOCKS) -> list[tuple[int, ...]]:
    """Disjoint sums over ``parts`` base blocks, aligned at the end of the reference; the newest ``most``, in order."""
    count = min(most, len(blocks) // parts)
    first = len(blocks) - count * parts
    return [
        tuple(map(sum, zip(*blocks[start : start + parts], strict=True))) for start in range(first, len(blocks), parts)
    ]


def _gauges(
    monitor: Monitor, grid: Grid, label: LabelKind, reference: Reference | None
) -> Iterable[tuple[Gauge, list[float]]]:
    """What a monitor measures, and the scores of the reference's blocks; a blind one has none."""
    if monitor.realised_loss is not None and monitor.realised_loss.against == "Reference":
        yield _of_loss(monitor, grid, label, reference)
    if monitor.calibration is not None:
        yield _of_calibration(monitor, grid, label, reference)
    if monitor.histogram is None or monitor.statistic is None:
        return
    metric = monitor.histogram.metric
    if reference is None:
        blind = "the version carries no drift reference: train it with this release"
        yield _gauge(monitor, "", metric, None, blind), []
    elif metric == "feature":
        for its in reference.features:
            yield _of_histogram(monitor, metric, grid, reference, its)
    elif metric == "prediction":
        yield _of_histogram(monitor, metric, grid, reference, reference.prediction)
    elif reference.joint is None:
        yield _gauge(monitor, "", metric, None, f"no joint distance: {reference.without_joint}"), []
    else:
        yield _of_histogram(monitor, metric, grid, reference, reference.joint)


def _gauge(monitor: Monitor, name: str, kind: Kind, its: Histogram | None, blind: str = "") -> Gauge:
    edges = () if its is None else its.edges
    return Gauge(
        monitor=monitor.name,
        name=name,
        kind=kind,
        statistic=monitor.statistic or "PSI",
        edges=edges,
        sd=spread(edges) or 1.0,
        total=() if its is None else tuple(map(sum, zip(*its.blocks, strict=True))),
        min_effect=float(monitor.min_effect or 0),
        for_windows=monitor.for_windows,
        blind=blind,
    )


def _of_histogram(
    monitor: Monitor, kind: Kind, grid: Grid, reference: Reference, its: Histogram
) -> tuple[Gauge, list[float]]:
    blind = _too_short(grid, its) or _too_few(_merged_blocks(reference, grid), grid)
    gauge = _gauge(monitor, its.name, kind, its, blind)
    if blind:
        return gauge, []
    if len(its.edges) < 1:
        return _blinded(gauge, "it has one value in the reference, so that there is nothing to compare"), []
    found: list[float] = []
    for block, _ in _windows(its, grid.per_entity, reference):
        rest = tuple(all_ - own for all_, own in zip(gauge.total, block, strict=True))
        value = score(gauge.statistic, gauge.edges, gauge.sd, rest, block)
        if isinstance(value, Refusal):
            return _blinded(gauge, f"a block of the reference cannot be scored: {value.message}"), []
        found.append(value)
    return gauge, found


def _of_loss(monitor: Monitor, grid: Grid, label: LabelKind, reference: Reference | None) -> tuple[Gauge, list[float]]:
    if reference is None:
        return _gauge(monitor, "", "loss", None, "the version carries no drift reference"), []
    if label == "Return":
        blind = "the reference holds squared errors and outcomes of returns are ranked: compare with PreviousVersion"
        return _gauge(monitor, "", "loss", None, blind), []
    if grid.per_entity % reference.loss_dates:
        blind = f"windows of {grid.per_entity} rows are no multiple of the reference's {reference.loss_dates} dates"
        return _gauge(monitor, "", "loss", None, blind), []
    parts = grid.per_entity // reference.loss_dates
    means = _merge_means(reference.loss, parts)
    return _gauge(monitor, "", "loss", None, _too_few(len(means), grid)), means


def _of_calibration(
    monitor: Monitor, grid: Grid, label: LabelKind, reference: Reference | None
) -> tuple[Gauge, list[float]]:
    blind = ""
    if label != "Direction":
        blind = f"the label is {label}, whose forecasts are no probabilities"
    elif reference is None or not reference.calibration:
        blind = "the version carries no calibration of its walk-forward: train it with this release"
    elif grid.per_entity % reference.loss_dates:
        blind = f"windows of {grid.per_entity} rows are no multiple of the reference's {reference.loss_dates} dates"
    if blind or reference is None:
        return _gauge(monitor, "", "calibration", None, blind), []
    parts = grid.per_entity // reference.loss_dates
    merged = [reduce(added, one) for one in _newest(reference.calibration, parts)]
    return _gauge(monitor, "", "calibration", None, _too_few(len(merged), grid)), [
        rounded(reliability(one)) for one in merged
    ]


def _newest(blocks: Sequence[tuple[float, ...]], parts: int) -> list[Sequence[tuple[float, ...]]]:
    """Groups of ``parts`` blocks, aligned at the end of the reference."""
    count = min(MOST_BLOCKS, len(blocks) // parts)
    first = len(blocks) - count * parts
    return [blocks[start : start + parts] for start in range(first, len(blocks), parts)]


def _merge_means(blocks: Sequence[float], parts: int) -> list[float]:
    count = min(MOST_BLOCKS, len(blocks) // parts)
    first = len(blocks) - count * parts
    return [rounded(sum(blocks[start : start + parts]) / parts) for start in range(first, len(blocks), parts)]


def _too_short(grid: Grid, its: Histogram) -> str:
    if its.memory is None or grid.per_entity >= MEMORY_FACTOR * its.memory:
        return ""
    needed = MEMORY_FACTOR * its.memory
    return f"it averages over {its.memory} rows, so that windows need at least {needed} and hold {grid.per_entity}"


def _too_few(blocks: int, grid: Grid) -> str:
    if blocks >= LEAST_BLOCKS:
        return ""
    return (
        f"the reference holds {blocks} blocks of {grid.per_entity} rows, {LEAST_BLOCKS} are needed to know what is "
        "usual: take a shorter window or a longer history"
    )


def _blinded(gauge: Gauge, blind: str) -> Gauge:
    return replace(gauge, blind=blind)


def _begun(gauge: Gauge, scores: list[float], run_time: float, its_key: str) -> Gauge:
    if gauge.blind:
        return gauge
    text = f"{its_key}/{gauge.monitor}/{gauge.name}"
    seed = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)
    calibration = Calibration.of(scores, run_time, seed)
    if isinstance(calibration, Refusal):
        return _blinded(gauge, calibration.message)
    typical = math.fsum(scores) / len(scores) if gauge.kind == "loss" else sorted(scores)[len(scores) // 2]
    return replace(gauge, calibration=calibration, typical=typical)


def _missing_rate(its: Histogram) -> float:
    """With half a row more of either: what never happened is rare, not impossible."""
    gone, rows = sum(its.missing), sum(map(sum, its.blocks))
    return (gone + 0.5) / (gone + rows + 1.0)
