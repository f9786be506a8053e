"""What no market writes: rows that were copied, several series in one, a feed that died before asOf.

Each of these passes every check of types and prices, and each has been sold as a result: a gap filled backwards shows
tomorrow's prices today, two instruments in one sequence give returns of their price difference, and a column that
stopped moving is, from now on, all that a served model will see of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fiduciary_trainer.outcome import DataRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from fiduciary_trainer.job import Contract

LAGS = range(2, 21)
"""Rows apart at which a price is compared with itself."""

FEWEST_ROWS = 250
"""Below this, how far a price moves over twenty rows is too uncertain to refuse anything."""

NARROWER = 0.8
"""A price that is nearer to itself several rows ago than to the row before, by this share, is not one price."""

BARS = frozenset({"open", "high", "low", "close"})

DEAD_ROWS = 10
LIVELY = 0.05
"""A column is lively if less than this share of its rows repeats the row before; only such a column can die."""


def check(table: pd.DataFrame, contract: Contract) -> None:
    """Run the three checks.

    Args:
        table: value columns are float64, rows ascend in time within each entity.
        contract: the job.

    Raises:
        DataRefused: RepeatedRows, MixedSeries or DeadColumn.
    """
    _repeated(table, contract)
    _mixed(table, contract)
    _dead(table, contract)


def _series(table: pd.DataFrame, contract: Contract) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each entity's rows, with words that name it in a message."""
    entity = contract.data.entity
    if entity is None:
        yield "", table
        return
    for name, rows in table.groupby(entity, sort=True):
        yield f" of {name}", rows


def _repeated(table: pd.DataFrame, contract: Contract) -> None:
    """A bar that equals another bar in every column is a filled gap or a copy, so it counts as missing.

    A session without trade has one price and is no copy; without a column of volume only a bar that equals the next
    one counts, since prices in coarse ticks do come back.
    """
    names = list(contract.data.columns)
    if not set(names) >= BARS:
        return
    repeated, example = 0, ""
    for words, rows in _series(table, contract):
        moved = rows["high"] > rows["low"]
        if "volume" in names:
            copies = rows.duplicated(names) & moved
        else:
            copies = (rows[names] == rows[names].shift(1)).all(axis=1) & moved
        repeated += int(copies.sum())
        if not example and bool(copies.any()):
            example = f"{str(rows.loc[copies, contract.data.time].iloc[0])[:10]}{words}"
    limit = contract.data.checks.max_missing or 0.0
    share = repeated / len(table)
    if share > limit:
        raise DataRefused(
            "RepeatedRows",
            f"{repeated} rows ({100 * share:.3g} %) repeat another row in all of {', '.join(names)}, first {example}; "
            f"they count as missing values, of which at most {100 * limit:.3g} % are allowed (data.checks.maxMissing). "
            "A gap that is filled shows prices that were not known, and a copy is learned and tested twice: leave gaps "
            "empty and remove copies",
        )


def _mixed(table: pd.DataFrame, contract: Contract) -> None:
    """Several instruments in one sequence.

    A price with independent moves and any noise of quoting or rounding is, on average, at least as far from itself q
    rows ago as from the row before (Roll 1984: the first autocorrelation of its moves is no lower than -1/2). One that
    is nearer to itself several rows ago jumps between levels.
    """
    data = contract.data
    for words, rows in _series(table, contract):
        price = rows[data.column].to_numpy(dtype=np.float64)
        price = np.log(price[np.isfinite(price) & (price > 0.0)])
        if len(price) < FEWEST_ROWS:
            continue
        step = float(np.median(np.abs(np.diff(price))))
        if step == 0.0:
            continue
        apart = {lag: float(np.median(np.abs(price[lag:] - price[:-lag]))) for lag in LAGS}
        lag = min(apart, key=lambda each: apart[each])
        if apart[lag] < NARROWER * step:
            hint = "name their column in data.entity" if data.entity is None else "correct the column of data.entity"
            raise DataRefused(
                "MixedSeries",
                f"column {data.column!r}{words} is typically {100 * step:.3g} % away from the row before and only "
                f"{100 * apart[lag]:.3g} % from {lag} rows before, which no single price is: {lag} instruments seem to "
                f"take turns in one sequence; {hint}, or deliver one instrument",
            )


def _dead(table: pd.DataFrame, contract: Contract) -> None:
    """A column that always moved and has not moved for the last rows: the feed ended, the file goes on."""
    for name in contract.data.columns:
        for words, rows in _series(table, contract):
            values = rows[name].to_numpy(dtype=np.float64)
            known = np.isfinite(values)
            if int(known.sum()) < FEWEST_ROWS:
                continue
            values, times = values[known], rows[contract.data.time].to_numpy()[known]
            still = np.diff(values) == 0.0
            run = len(still) if still.all() else int(np.argmin(still[::-1]))
            before = still[: len(still) - run]
            if run >= DEAD_ROWS and len(before) and float(before.mean()) < LIVELY:
                raise DataRefused(
                    "DeadColumn",
                    f"column {name!r}{words} has not moved since {str(times[-run - 1])[:10]}, for {run + 1} rows up to "
                    f"{contract.as_of}, and repeated itself in {100 * float(before.mean()):.2g} % of the "
                    "rows before: its feed seems to have ended. A model trained on it would be served a constant; "
                    "repair the feed, set data.asOf before its end, or leave the column out",
                )
