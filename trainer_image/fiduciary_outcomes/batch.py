"""What runtimes and outcome writers send, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from fiduciary_outcomes.calendar import canonical_time
from fiduciary_outcomes.document import Field, Object, Refused, envelope, model_name

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_RECORDS = 10_000
MOST_FEATURES = 1024
MOST_EDGES = 255
MOST_BINS = 20_000
"""Of all features together: a version's counts are written with each commit."""

HEX = re.compile(r"[0-9a-f]{8,64}")
BATCH = frozenset({"model", "version", "digest", "sender", "sequence", "features", "edges", "records"})
BATCH_OPTIONAL = frozenset({"reference", "predictionEdges", "jointEdges", "dropped"})
RECORD = frozenset({"predictionId", "entity", "time", "prediction", "bins"})
RECORD_OPTIONAL = frozenset(
    {"missing", "predictionBin", "jointBin", "requestId", "labelEnd", "model", "version", "digest"}
)
RECORD_ALL = RECORD | RECORD_OPTIONAL
OUTCOMES = frozenset({"model", "outcomes"})
OUTCOME = frozenset({"value"})
OUTCOME_OPTIONAL = frozenset({"entity", "labelEnd", "requestId", "return"})


@dataclass(frozen=True, slots=True)
class Layout:
    """What bin numbers mean; one for all batches of a version.

    Attributes:
        reference: hash of the edges; histograms over other edges are never compared.
        edges: inner edges of each feature: bins are 0 to that number.
        prediction_edges: the same of the prediction; None where its bin is not sent.
    """

    reference: str | None
    features: tuple[str, ...]
    edges: tuple[int, ...]
    prediction_edges: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """One prediction, or one that was refused because features were missing.

    Attributes:
        time: of the features' row, canonical; empty where the client sent none.
        prediction: None where there was none.
        label_end: canonical; empty where it follows from the time and the calendar.
        bins: per feature, None where the value was missing.
        joint_bin: of the distance of all features together, None where one is missing, or it is not kept.
    """

    prediction_id: str
    entity: str
    time: str
    request: str
    label_end: str
    prediction: float | None
    bins: tuple[int | None, ...]
    prediction_bin: int | None
    joint_bin: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Predictions of one version from one process, and what it had to drop since its batch before.

    Attributes:
        joint_edges: inner edges of the joint distance; None where its bin is not sent. Not of the layout: a runtime of
            before sends the same version without it.
        dropped: (time, count); time is empty where it is not known.
    """

    model: str
    version: str
    digest: str
    sender: str
    sequence: int
    layout: Layout
    joint_edges: int | None
    records: tuple[Record, ...]
    dropped: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """One outcome: of (entity, label end), or of a request."""

    entity: str
    label_end: str
    request: str
    value: float
    next_return: float | None


def read_batch(data: bytes, namespace: str) -> Batch:
    """Raises :class:`Refused`: nothing of the batch is taken."""
    found = envelope(data, BATCH, BATCH_OPTIONAL)
    features = tuple(field.text(128) for field in found["features"].items(MOST_FEATURES))
    if len(set(features)) != len(features):
        found["features"].refuse("names that differ")
    edges = tuple(field.integer(0, MOST_EDGES) for field in found["edges"].items(MOST_FEATURES))
    if len(edges) != len(features):
        raise Refused("BadField", f"edges has {len(edges)} items; expected one for each of {len(features)} features")
    if sum(edges) + len(edges) > MOST_BINS:
        found["edges"].refuse(f"at most {MOST_BINS} bins for all features together", "TooManyBins")
    layout = Layout(
        reference=found["reference"].text(64, 8, HEX, "hexadecimal digits") if "reference" in found else None,
        features=features,
        edges=edges,
        prediction_edges=found["predictionEdges"].integer(0, MOST_EDGES) if "predictionEdges" in found else None,
    )
    joint_edges = found["jointEdges"].integer(0, MOST_EDGES) if "jointEdges" in found else None
    records = found["records"]
    return Batch(
        model=model_name(found["model"], namespace),
        version=found["version"].text(32),
        digest=found["digest"].digest(),
        sender=found["sender"].text(),
        sequence=found["sequence"].integer(),
        layout=layout,
        joint_edges=joint_edges,
        records=tuple(
            _record(records, i, item, layout, joint_edges) for i, item in enumerate(records.list(MOST_RECORDS))
        ),
        dropped=_dropped(found),
    )


def _dropped(found: Object) -> tuple[tuple[str, int], ...]:
    if "dropped" not in found:
        return ()
    result: list[tuple[str, int]] = []
    for field in found["dropped"].items(MOST_RECORDS):
        item = field.object(frozenset({"count"}), frozenset({"time"}))
        result.append((_time(item["time"]) if "time" in item else "", item["count"].integer(1)))
    return tuple(result)


def _time(field: Field) -> str:
    text = field.text(40, what="an ISO 8601 date or date-time")
    try:
        return canonical_time(text)
    except ValueError:
        field.refuse("an ISO 8601 date or date-time")


def _record(records: Field, index: int, item: object, layout: Layout, joint_edges: int | None) -> Record:
    """The hot path: one pass without intermediate objects; what does not fit is looked at again, to be named."""
    if isinstance(item, dict) and RECORD <= (found := cast("dict[str, Any]", item)).keys() <= RECORD_ALL:
        entity, time, value, bins = found["entity"], found["time"], found["prediction"], found["bins"]
        own_bin, request, name = found.get("predictionBin"), found.get("requestId"), found["predictionId"]
        joint = found.get("jointBin")
        if (
            type(entity) is str
            and type(time) is str
            and type(name) is str
            and type(value) is float
            and -1e100 <= value <= 1e100
            and len(entity) <= 253
            and 0 < len(name) <= 128
            and "\0" not in entity
            and "\0" not in name
            and (request is None or (type(request) is str and 0 < len(request) <= 253 and "\0" not in request))
            and isinstance(bins, list)
            and len(cast("list[int | None]", bins)) == len(layout.edges)
            and (own_bin is None or (type(own_bin) is int and 0 <= own_bin <= (layout.prediction_edges or -1)))
            and (joint is None or (type(joint) is int and 0 <= joint <= (joint_edges or -1)))
            and "labelEnd" not in found
            and _bins_fit(row := cast("list[int | None]", bins), layout.edges)
        ):
            try:
                return Record(name, entity, canonical_time(time), request or "", "", value, tuple(row), own_bin, joint)
            except ValueError:
                pass
    return _slow_record(Field(f"{records.path}[{index}]", cast("object", item)), layout, joint_edges)


def _bins_fit(bins: Sequence[int | None], edges: Sequence[int]) -> bool:
    return all(
        value is None or (type(value) is int and 0 <= value <= most) for value, most in zip(bins, edges, strict=True)
    )


def _slow_record(field: Field, layout: Layout, joint_edges: int | None) -> Record:
    item = field.object(RECORD, RECORD_OPTIONAL)
    bins: list[int | None] = []
    for position, each in enumerate(item["bins"].items(MOST_FEATURES)):
        if position >= len(layout.edges):
            break
        bins.append(None if each.value is None else each.integer(0, layout.edges[position]))
    if len(bins) != len(layout.edges) or len(item["bins"].list(MOST_FEATURES)) != len(layout.edges):
        item["bins"].refuse(f"one bin number (or null) for each of {len(layout.edges)} features")
    if "predictionBin" in item and layout.prediction_edges is None:
        item["predictionBin"].refuse("predictionEdges in the batch, which says how many bins there are")
    if "jointBin" in item and joint_edges is None:
        item["jointBin"].refuse("jointEdges in the batch, which says how many bins there are")
    return Record(
        prediction_id=item["predictionId"].text(128),
        entity=item["entity"].text(least=0),
        time=_time(item["time"]) if "time" in item else "",
        request=item["requestId"].optional_text() or "",
        label_end=_time(item["labelEnd"]) if "labelEnd" in item else "",
        prediction=item["prediction"].number() if "prediction" in item else None,
        bins=tuple(bins),
        prediction_bin=item.optional("predictionBin", lambda each: each.integer(0, layout.prediction_edges or 0)),
        joint_bin=item.optional("jointBin", lambda each: each.integer(0, joint_edges or 0)),
    )


def read_outcomes(data: bytes, namespace: str) -> tuple[str, list[Sent | Refused]]:
    """The model, and for each item an outcome or why it is none: one bad value does not hold up the others.

    Raises:
        Refused: the body as a whole cannot be read.
    """
    found = envelope(data, OUTCOMES)
    items: list[Sent | Refused] = []
    for field in found["outcomes"].items(MOST_RECORDS, 1):
        try:
            items.append(_outcome(field))
        except Refused as refused:
            items.append(refused)
    return model_name(found["model"], namespace), items


def _outcome(field: Field) -> Sent:
    item = field.object(OUTCOME, OUTCOME_OPTIONAL)
    by_request = "requestId" in item
    if by_request == ("labelEnd" in item) or (by_request and "entity" in item):
        raise Refused(
            "BadField",
            f"{field.path} names {', '.join(sorted(item.content))}; expected entity and labelEnd, or requestId",
        )
    return Sent(
        entity="" if by_request or "entity" not in item else item["entity"].text(least=0),
        label_end="" if by_request else _time(item["labelEnd"]),
        request=item["requestId"].text() if by_request else "",
        value=item["value"].number(),
        next_return=item["return"].number() if "return" in item else None,
    )
