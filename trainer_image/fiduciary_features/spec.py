"""The features of one model, in order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_features.definitions import FEATURES, SETS, Feature
from fiduciary_features.series import Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary_features.bars import Bars

Floats = NDArray[np.float64]


def _as_it_is(column: str) -> Feature:
    return Feature(column, (column,), 1, 1, lambda series: series.column(column))


@dataclass(frozen=True)
class FeatureSpec:
    """Ordered features and the name of their set.

    Attributes:
        name: of the set, or ``"columns"`` where columns of the data are used as they are.
        features: in the order of the model's input.
    """

    name: str
    features: tuple[Feature, ...]

    @classmethod
    def of_set(cls, name: str) -> FeatureSpec:
        """Raises ``KeyError`` for a name that is not in :data:`SETS`."""
        return cls(name, tuple(FEATURES[each] for each in SETS[name]))

    @classmethod
    def of_builtin(cls, name: str, features: Sequence[str]) -> FeatureSpec:
        """Built-in features under a name of their own (a reference model's terms). Raises ``KeyError``."""
        return cls(name, tuple(FEATURES[each] for each in features))

    @classmethod
    def of_columns(cls, columns: Sequence[str]) -> FeatureSpec:
        """Columns of the data as they are: row t may hold only what was known at t; nobody here can check that."""
        return cls("columns", tuple(_as_it_is(column) for column in columns))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that are read, each once, in order of first use."""
        return tuple(dict.fromkeys(column for feature in self.features for column in feature.columns))

    @cached_property
    def lookback(self) -> int:
        """Rows that the feature with the longest lookback needs, its own row included."""
        return max(feature.lookback for feature in self.features)

    def compute(self, bars: Bars) -> Floats:
        """Feature values, entity by entity.

        Args:
            bars: sorted by (time, entity).

        Returns:
            ``(T, F)``; NaN where a lookback is not filled or a value is missing. Row t never depends on a later row.

        Raises:
            MissingColumn: ``bars`` lacks a column that a feature reads.
        """
        columns = {name: bars.column(name) for name in self.columns}
        result = np.empty((len(bars), len(self.features)))
        for rows in bars.each_entity():
            result[rows] = self.of_series({name: values[rows] for name, values in columns.items()})
        return result

    def of_series(self, columns: Mapping[str, Floats]) -> Floats:
        """Feature values of one instrument, as training and serving both compute them.

        Args:
            columns: ``(T,) float64`` for each of :attr:`columns`, in order of time.

        Returns:
            ``(T, F)``; row t has the same bits however many rows stand before its lookback.
        """
        series = Series(columns)
        result = np.stack([feature.compute(series) for feature in self.features], axis=1)
        result[~np.isfinite(result)] = np.nan
        return result

    def to_json(self) -> dict[str, Any]:
        """What ``features.json`` holds of the definitions."""
        return {
            "set": self.name,
            "lookback": self.lookback,
            "columns": list(self.columns),
            "features": [
                {
                    "name": feature.name,
                    "columns": list(feature.columns),
                    "lookback": feature.lookback,
                    "memory": feature.memory,
                }
                for feature in self.features
            ],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FeatureSpec:
        """Inverse of :meth:`to_json`.

        Raises:
            ValueError: this code computes a feature differently from what the document says (a version from another
                release): serving it would feed the model other numbers than it was trained on.
        """
        own = document["set"] == "columns"
        features = tuple(_as_it_is(each["name"]) if own else FEATURES[each["name"]] for each in document["features"])
        spec = cls(str(document["set"]), features)
        for said, has in zip(document["features"], spec.to_json()["features"], strict=True):
            if said != has:
                raise ValueError(f"feature {said['name']} was {said} when the model was trained and is {has} here")
        return spec
