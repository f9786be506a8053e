"""Rows of market data as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Times = NDArray[np.datetime64]


class MissingColumn(LookupError):
    """A feature or label needs a column that the data lacks. ``args[0]`` is its name."""


@dataclass(frozen=True)
class Bars:
    """Rows of one or several instruments, sorted by (time, entity), each pair once.

    Attributes:
        time: ``(T,) datetime64[ns]``, when the row was complete (the close of a session).
        entity: ``(T,)`` instrument; ``""`` throughout for a single series.
        columns: ``(T,) float64`` by name, NaN where a value is missing.
    """

    time: Times
    entity: NDArray[np.str_]
    columns: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.time)

    def column(self, name: str) -> Floats:
        """Raises :class:`MissingColumn`."""
        try:
            return self.columns[name]
        except KeyError:
            raise MissingColumn(name) from None

    def each_entity(self) -> Iterator[Ints]:
        """Row indices of one entity after the other, in order of time: series are never mixed."""
        order = np.argsort(self.entity, kind="stable")
        starts = np.flatnonzero(self.entity[order][1:] != self.entity[order][:-1]) + 1
        yield from (part.astype(np.int64) for part in np.split(order, starts) if len(part))

    def take(self, rows: NDArray[np.bool_] | Ints) -> Bars:
        """The chosen rows, in their order."""
        return Bars(self.time[rows], self.entity[rows], {name: values[rows] for name, values in self.columns.items()})
