"""Rows up to asOf, checked, with their digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fiduciary_features import Bars
from fiduciary_trainer.data import checks, feature_store, files, library
from fiduciary_trainer.data.digest import digest
from fiduciary_trainer.data.locations import Locations
from fiduciary_trainer.job import Contract, Dataset, Feast

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Loaded", "Locations", "load"]


@dataclass(frozen=True)
class Loaded:
    """What was read.

    Attributes:
        bars: every row up to asOf, sorted by (time, entity), with the columns that the document names.
        digest: ``sha256:`` over all of it.
        rows: how many.
        first, last: date of the oldest and the newest row, ``YYYY-MM-DD``.
        where: for people and MLflow: the dataset's name or the URI.
    """

    bars: Bars
    digest: str
    rows: int
    first: str
    last: str
    where: str


def load(contract: Contract, locations: Locations | None = None) -> Loaded:
    """Read the source of ``contract``, no row after asOf, and check it.

    Raises:
        DataRefused: a check failed, or the source is not there.
        Retryable: the source cannot be reached now.
        BadContract: a dataset or calendar that this image does not know.
    """
    places = locations or Locations()
    source = contract.data.source
    if isinstance(source, Dataset):
        table, where = library.read(source.name, contract), source.name
    elif isinstance(source, Feast):
        table, where = feature_store.read(source, contract, places), f"feature service {source.feature_service}"
    else:
        table, where = files.read(source, contract, places), source.uri
    checks.check(table, contract, where)
    bars = _bars(table, contract)
    first, last = str(bars.time[0])[:10], str(bars.time[-1])[:10]
    return Loaded(bars, digest(bars), len(bars), first, last, where)


def _bars(table: pd.DataFrame, contract: Contract) -> Bars:
    data = contract.data
    time = table[data.time].to_numpy(dtype="datetime64[ns]")
    entity = np.full(len(table), "") if data.entity is None else np.array([str(each) for each in table[data.entity]])
    columns = {name: table[name].to_numpy(dtype=np.float64) for name in data.columns}
    return Bars(time, entity, columns).take(np.lexsort((entity, time)))
