"""The drift reference that the trainer logs with each version, as it is read: histograms per base block of dates.

The schema is in ``fiduciary_trainer/drift_reference.py``. What cannot be read is refused with the field, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from fiduciary.evidence.refusal import MAX_COUNT, MAX_MAGNITUDE, Refusal, Why

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of one quantity. Bin i holds ``edges[i-1] < x <= edges[i]``, the first and the last are open.

    ``blocks``: one tuple of counts per base block, oldest first. ``missing``: rows of each block without a value.
    ``memory``: rows over which a feature is smoothed; None: not known (prediction, joint distance).
    """

    name: str
    edges: tuple[float, ...]
    blocks: tuple[tuple[int, ...], ...]
    missing: tuple[int, ...]
    memory: int | None = None


Calibration = tuple[float, ...]
"""Of each of ten bins of equal width: forecasts, sum of their probabilities, events; 30 numbers."""
CLASSES = 10


@dataclass(frozen=True, slots=True)
class Reference:
    """What the inputs and forecasts of one version looked like in training, and what its walk-forward lost.

    Attributes:
        edges_digest: hash over all edges; counts over other edges are never compared.
        rows, entities: rows counted (entity, date).
        dates: dates in a base block.
        begins, ends: first and last date.
        prediction, joint: None with a reason in ``without_joint`` where the trainer kept none.
        loss_dates, loss: dates in a block of the walk-forward, and the mean squared error of each block.
        loss_by_prediction: mean squared error of the walk-forward in each bin of the prediction; None where it had no
            row, empty where the trainer kept none.
        calibration: predicted probabilities and events of each block of the walk-forward; empty where the label is no
            event, or the trainer kept none.
    """

    edges_digest: str
    rows: int
    entities: int
    dates: int
    begins: datetime
    ends: datetime
    features: tuple[Histogram, ...]
    prediction: Histogram
    joint: Histogram | None
    without_joint: str
    loss_dates: int
    loss: tuple[float, ...]
    loss_by_prediction: tuple[float | None, ...] = ()
    calibration: tuple[Calibration, ...] = ()

    @property
    def blocks(self) -> int:
        """Base blocks."""
        return len(self.prediction.blocks)


class _MalformedError(Exception):
    pass


def parsed(document: object) -> Reference | Refusal:
    """The reference of a decoded JSON document; a refusal names what was seen and what was expected."""
    try:
        return _reference(_object(document, "the drift reference"))
    except _MalformedError as error:
        return Refusal(Why.MALFORMED, f"{error}: train again with a trainer of this release")


def _reference(document: Mapping[str, Any]) -> Reference:
    version = document.get("schemaVersion")
    if version != SCHEMA:
        raise _MalformedError(f"schemaVersion of the drift reference is {version!r:.20}; this operator reads {SCHEMA}")
    block = _object(document.get("block"), "block")
    blocks = _count(block.get("count"), "block.count")
    features = _object(document.get("features"), "features")
    joint = _object(document.get("joint"), "joint")
    loss = _object(document.get("loss"), "loss")
    prediction = _object(document.get("prediction"), "prediction")
    unavailable = joint.get("unavailable")
    return Reference(
        edges_digest=_text(document.get("edgesSha256"), "edgesSha256"),
        rows=_count(document.get("rows"), "rows", least=1),
        entities=_count(document.get("entities"), "entities", least=1),
        dates=_count(block.get("dates"), "block.dates", least=1),
        begins=_time(document.get("from"), "from"),
        ends=_time(document.get("through"), "through"),
        features=tuple(_feature(name, _object(entry, name), blocks) for name, entry in features.items()),
        prediction=_histogram("", prediction, blocks),
        joint=None if unavailable is not None else _histogram("", joint, blocks),
        without_joint=f"{unavailable}" if unavailable is not None else "",
        loss_dates=_count(loss.get("dates"), "loss.dates", least=1),
        loss=tuple(_number(value, "loss.blocks") for value in _list(loss.get("blocks"), "loss.blocks")),
        loss_by_prediction=_by_prediction(loss, len(_list(prediction.get("edges"), "edges of prediction")) + 1),
        calibration=_calibrations(loss),
    )


def _by_prediction(loss: Mapping[str, Any], bins: int) -> tuple[float | None, ...]:
    """Nothing from a trainer of an earlier release: what is made of it is an estimate, and no detector."""
    if "byPrediction" not in loss:
        return ()
    where = "loss.byPrediction.mean"
    found = _list(_object(loss["byPrediction"], "loss.byPrediction").get("mean"), where)
    if len(found) != bins:
        raise _MalformedError(f"{where} holds {len(found)} bins; the prediction has {bins}")
    return tuple(None if value is None else _number(value, where) for value in found)


def _calibrations(loss: Mapping[str, Any]) -> tuple[Calibration, ...]:
    kept = loss.get("calibration")
    if kept is None:
        return ()
    blocks = _list(_object(kept, "loss.calibration").get("blocks"), "loss.calibration.blocks")
    return tuple(_calibration(_list(block, "loss.calibration.blocks")) for block in blocks)


def _calibration(bins: list[object]) -> Calibration:
    """From [bin, forecasts, sum of their probabilities, events] of each bin that has any."""
    made, where = [0.0] * (3 * CLASSES), "loss.calibration"
    for entry in bins:
        values = _list(entry, where)
        if len(values) != 4:
            raise _MalformedError(f"{where} holds {entry!r:.40}; expected bin, forecasts, probabilities, events")
        number, rows, events = (_count(values[place], where) for place in (0, 1, 3))
        likely = _number(values[2], where)
        if number >= CLASSES or events > rows or not 0.0 <= likely <= rows:
            raise _MalformedError(f"{where} holds {entry!r:.40}; expected one of {CLASSES} bins and shares of its rows")
        made[3 * number : 3 * number + 3] = [float(rows), likely, float(events)]
    return tuple(made)


def _feature(name: str, entry: Mapping[str, Any], blocks: int) -> Histogram:
    sparse = _object(_object(entry.get("missing"), f"{name}.missing").get("blocks"), f"{name}.missing.blocks")
    missing = [0] * blocks
    for place, rows in sparse.items():
        if not place.isdecimal() or int(place) >= blocks:
            raise _MalformedError(f"{name}.missing.blocks names block {place!r:.20} of {blocks}")
        missing[int(place)] = _count(rows, f"{name}.missing.blocks")
    memory = _count(entry.get("memory"), f"{name}.memory", least=1)
    return _histogram(name, entry, blocks, tuple(missing), memory)


def _histogram(
    name: str, entry: Mapping[str, Any], blocks: int, missing: tuple[int, ...] = (), memory: int | None = None
) -> Histogram:
    what = name or "prediction or joint"
    edges = tuple(_number(edge, f"edges of {what}") for edge in _list(entry.get("edges"), f"edges of {what}"))
    if any(low >= high for low, high in pairwise(edges)):
        raise _MalformedError(f"edges of {what} are not increasing")
    rows = _list(entry.get("counts"), f"counts of {what}")
    counts = tuple(
        tuple(_count(count, f"counts of {what}") for count in _list(row, f"counts of {what}")) for row in rows
    )
    if len(counts) != blocks or any(len(row) != len(edges) + 1 for row in counts):
        raise _MalformedError(f"counts of {what} are not {blocks} blocks of {len(edges) + 1} bins")
    return Histogram(name, edges, counts, missing or (0,) * blocks, memory)


def _object(value: object, where: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    raise _MalformedError(f"{where} is {value!r:.40}; expected an object")


def _list(value: object, where: str) -> list[object]:
    if isinstance(value, list):
        return cast("list[object]", value)
    raise _MalformedError(f"{where} is {value!r:.40}; expected a list")


def _count(value: object, where: str, least: int = 0) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT:
        return value
    raise _MalformedError(f"{where} is {value!r:.40}; expected a whole number of at least {least}")


def _number(value: object, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_MAGNITUDE:
        return float(value)
    raise _MalformedError(f"{where} holds {value!r:.40}; expected a finite number")


def _text(value: object, where: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise _MalformedError(f"{where} is {value!r:.40}; expected a text")


def _time(value: object, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(_text(value, where))
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _MalformedError(f"{where} is {value!r:.40}; expected a date") from None
