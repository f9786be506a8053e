"""Datasets that ship inside Python packages, read from the package's files without importing it.

Importing arch or skfolio would need statsmodels, scikit-learn and cvxpy for a few CSV files.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from fiduciary_trainer.data import files
from fiduciary_trainer.outcome import BadContract

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from fiduciary_trainer.job import Contract


@dataclass(frozen=True)
class _Shipped:
    """One file of one package.

    Attributes:
        package: distribution name.
        path: of the file inside it.
        columns: name in the file -> name of the column that the trainer offers.
        wide: the file has one column an instrument; it becomes rows of (date, symbol, close).
    """

    package: str
    path: str
    columns: Mapping[str, str]
    wide: bool = False


_BARS = {
    "Date": "date",
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Adj Close": "adj_close",
    "Volume": "volume",
}

DATASETS: Mapping[str, _Shipped] = {
    "arch/sp500": _Shipped("arch", "arch/data/sp500/sp500.csv.gz", _BARS),
    "arch/nasdaq": _Shipped("arch", "arch/data/nasdaq/nasdaq.csv.gz", _BARS),
    "arch/vix": _Shipped("arch", "arch/data/vix/vix.csv.gz", {"Date": "date", "vix": "close"}),
    "arch/wti": _Shipped("arch", "arch/data/wti/wti.csv.gz", {"Date": "date", "DCOILWTICO": "close"}),
    "skfolio/sp500_dataset": _Shipped(
        "skfolio", "skfolio/datasets/data/sp500_dataset.csv.gz", {"Date": "date"}, wide=True
    ),
    "skfolio/sp500_index": _Shipped(
        "skfolio", "skfolio/datasets/data/sp500_index.csv.gz", {"Date": "date", "SP500": "close"}
    ),
    "skfolio/factors_dataset": _Shipped(
        "skfolio", "skfolio/datasets/data/factors_dataset.csv.gz", {"Date": "date"}, wide=True
    ),
}
"""Daily prices. Columns: date, then open, high, low, close, adj_close, volume or close alone; wide ones have symbol."""


def read(name: str, contract: Contract) -> pd.DataFrame:
    """Rows of a dataset up to asOf. Raises :class:`BadContract` for a name that this image does not ship."""
    shipped = DATASETS.get(name)
    if shipped is None:
        raise BadContract(
            "UnknownDataset", f"data.source.dataset.name is {name!r}; this trainer ships {', '.join(DATASETS)}"
        )
    try:
        path = Path(str(distribution(shipped.package).locate_file(shipped.path)))
    except PackageNotFoundError:
        raise BadContract(
            "UnknownDataset", f"{name} ships inside the package {shipped.package}, which this image lacks; install it"
        ) from None
    with path.open("rb") as file:
        gathered = files.Gathered()
        gathered.take(files.read_csv(file, contract, rename=shipped.columns, time="date", compressed=True))
    table = gathered.table()
    if shipped.wide:
        table = table.melt(id_vars="date", var_name="symbol", value_name="close").dropna(subset="close")
        table = table.sort_values(["date", "symbol"], kind="stable", ignore_index=True)
    return table
