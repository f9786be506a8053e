"""From a request's tensors to complete rows of raw features, or to a sentence that says what is wrong.

Two forms. *Bars*: one tensor per column of the data, ``[rows]`` or ``[series, rows]``, oldest first; the last row of
each series is predicted from. *Feature rows*: one tensor ``features``. Both may bring ``time`` and ``entity``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary_server.errors import BadRequest, Unusable
from fiduciary_server.tensors import floats, quoted, shape_of, texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary_server.reference import Reference
    from fiduciary_server.tensors import Tensor
    from fiduciary_server.version import Version

Floats = NDArray[np.float64]

FEATURES, TIME, ENTITY = "features", "time", "entity"
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Inputs:
    """What is predicted from.

    Attributes:
        raw: features before the transform, ``(n, F)`` or ``(n, window, F)``, NaN where one cannot be computed.
        times: of the predicted rows, None where none was sent.
        entities: of the predicted rows, "" where none was sent.
    """

    raw: Floats
    times: Sequence[str | None]
    entities: Sequence[str]

    @property
    def last(self) -> Floats:
        """``(n, F)``: the predicted rows themselves."""
        return self.raw if self.raw.ndim == 2 else self.raw[:, -1]

    def within(self, reference: Reference) -> Floats:
        """:attr:`last`, NaN where a feature is out of range: nobody knows what it would be in the right unit."""
        inside = (self.last >= reference.low) & (self.last <= reference.high)
        return np.where(inside, self.last, np.nan)


def read(tensors: Sequence[Tensor], version: Version) -> Inputs:
    """The rows of a request.

    Raises:
        BadRequest: what was seen, and what was expected.
    """
    named = {tensor.name: tensor for tensor in tensors}
    if len(named) < len(tensors):
        raise BadRequest("two tensors have the same name")
    if FEATURES in named:
        raw, form = _feature_rows(named, version)
    else:
        raw, form = _bars(named, version)
    return Inputs(raw, _times(named.get(TIME), len(raw), form), _entities(named.get(ENTITY), len(raw)))


def check(inputs: Inputs, version: Version) -> None:
    """Let complete rows pass that lie where rows of training lay, or not far from there.

    Raises:
        Unusable: a feature of a row cannot be computed, or is out of range.
    """
    reference = version.reference
    # One comparison for both: a NaN is inside of nothing.
    inside = (inputs.raw >= reference.low) & (inputs.raw <= reference.high)
    if inside.all():
        return
    names = version.features.names
    absent = ~np.isfinite(inputs.raw.reshape(-1, len(names))).all(axis=0)
    if absent.any():
        which = ", ".join(np.asarray(names)[absent][:8])
        raise Unusable(
            f"{which} cannot be computed from the rows sent; expected the last row complete, and at least three "
            "quarters of the rows before it (a session whose prices are all equal has no volatility)"
        )
    where = tuple(np.argwhere(~inside)[0])
    place = where[-1]
    raise Unusable(
        f"{names[place]} is {inputs.raw[where]:.6g}; expected {reference.low[place]:.6g} to "
        f"{reference.high[place]:.6g} (ten times the range of training on either side): check units and order of rows"
    )


def _feature_rows(named: Mapping[str, Tensor], version: Version) -> tuple[Floats, tuple[int, ...]]:
    """Raw features, and the shape that a tensor of times may have."""
    unknown = sorted(set(named) - {FEATURES, TIME, ENTITY})
    if unknown:
        raise BadRequest(f"tensors {quoted(unknown)} beside {FEATURES!r}; expected only {TIME!r} and {ENTITY!r} there")
    tensor = named[FEATURES]
    shape = shape_of(tensor)
    if shape[1:] != version.row_shape:
        expected = ["n", *version.row_shape]
        raise BadRequest(
            f"tensor {FEATURES!r} has shape {list(shape)}; expected {expected}: {', '.join(version.features.names)}"
        )
    return floats(tensor, shape), (shape[0],)


def _bars(named: Mapping[str, Tensor], version: Version) -> tuple[Floats, tuple[int, ...]]:
    """Raw features, and the shape that a tensor of times may have.

    Columns that are not of the form are left alone.
    """
    wanted = version.form.columns
    absent = [name for name in wanted if name not in named]
    if absent:
        seen = ", ".join(sorted(named)[:12]) or "none"
        raise BadRequest(
            f"no tensor {', '.join(map(repr, absent))}; sent were {seen[:200]}; expected one tensor for each of "
            f"{', '.join(wanted)}, or one tensor {FEATURES!r}"
        )
    shape = shape_of(named[wanted[0]])
    for name in wanted:
        if (other := shape_of(named[name])) != shape:
            raise BadRequest(
                f"tensor {name!r} has shape {list(other)}, {wanted[0]!r} has {list(shape)}; expected the same for each"
            )
    if len(shape) > 2 or shape[-1] < version.form.rows:
        raise BadRequest(
            f"the columns have shape {list(shape)}; expected [rows] or [series, rows] with at least "
            f"{version.form.rows} rows, oldest first"
        )
    sent = {name: floats(named[name], shape).reshape(-1, shape[-1]) for name in wanted}
    # What this version does not read was checked like the rest, and goes no further.
    columns = {name: sent[name][:, -version.rows :] for name in version.features.columns}
    _prices(columns)
    keep = version.window or 1
    rows = [
        version.features.of_series({name: values[place] for name, values in columns.items()})[-keep:]
        for place in range(len(sent[wanted[0]]))
    ]
    raw = np.stack(rows)
    return (raw if version.window is not None else raw[:, -1]), shape


def _prices(columns: Mapping[str, Floats]) -> None:
    """What the trainer refuses in its data is refused here too."""
    for name in PRICES:
        if name in columns and (columns[name] <= 0.0).any():
            raise BadRequest(f"tensor {name!r} holds a price that is zero or negative; expected positive prices")
    if "high" in columns and "low" in columns and (columns["high"] < columns["low"]).any():
        raise BadRequest("a row has a high below its low; expected high ≥ low")


def _entities(tensor: Tensor | None, n: int) -> Sequence[str]:
    if tensor is None:
        return [""] * n
    if (shape := shape_of(tensor)) != (n,):
        raise BadRequest(f"tensor {ENTITY!r} has shape {list(shape)}; expected [{n}], one for each prediction")
    return texts(tensor, shape)


def _times(tensor: Tensor | None, n: int, form: tuple[int, ...]) -> Sequence[str | None]:
    """Of each predicted row, as ISO 8601; a day is a date, an instant has the zone that it was sent with, in UTC."""
    if tensor is None:
        return [None] * n
    if (shape := shape_of(tensor)) not in ((n,), form):
        either = f"[{n}]" if form == (n,) else f"[{n}] or {list(form)}"
        raise BadRequest(f"tensor {TIME!r} has shape {list(shape)}; expected {either}")
    instants = [_instant(text) for text in texts(tensor, shape)]
    rows = 1 if shape == (n,) else shape[-1]
    for start in range(0, len(instants), rows):
        series = instants[start : start + rows]
        try:
            ascending = all(earlier < later for earlier, later in pairwise(series))
        except TypeError:  # some with a zone, some without
            raise BadRequest(f"tensor {TIME!r} mixes times with and without a zone") from None
        if not ascending:
            raise BadRequest(f"tensor {TIME!r} does not ascend; expected each series oldest first, every time once")
    return [_text(instant) for instant in instants[rows - 1 :: rows]]


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(
            f"tensor {TIME!r} holds {quoted(text)}; expected ISO 8601, such as 2018-01-02 or 2018-01-02T21:00:00Z"
        ) from None


def _text(instant: datetime) -> str:
    if instant.tzinfo is not None:
        return instant.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
    day = instant.date().isoformat()
    return day if instant.time() == time.min else instant.isoformat()
