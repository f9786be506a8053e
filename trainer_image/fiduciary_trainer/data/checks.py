"""What data must be like. Each refusal says what was seen, what was expected, and what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from fiduciary_trainer.data import plausible
from fiduciary_trainer.outcome import BadContract, DataRefused

if TYPE_CHECKING:
    from fiduciary_trainer.job import Contract

PRICES = ("open", "high", "low", "close")
_DAY = timedelta(days=1)


def check(table: pd.DataFrame, contract: Contract, where: str) -> None:
    """Run all checks, most basic first; columns become float64 in place.

    Raises:
        DataRefused: the first check that failed.
        BadContract: ``data.calendar`` is not a calendar.
    """
    data = contract.data
    _columns(table, contract, where)
    if len(table) == 0:
        raise DataRefused("TooFewRows", f"{where} has no row up to {contract.as_of}; check the file and data.asOf")
    _numbers(table, contract)
    _order(table, contract)
    for name in data.columns:
        _missing(table[name], data.checks.max_missing)
    _prices(table, contract)
    if data.checks.min_rows is not None and len(table) < data.checks.min_rows:
        raise DataRefused(
            "TooFewRows",
            f"{where} has {len(table)} rows up to {contract.as_of}; at least {data.checks.min_rows} are expected "
            "(data.checks.minRows); use a longer history",
        )
    _staleness(table, contract, where)
    plausible.check(table, contract)


def _columns(table: pd.DataFrame, contract: Contract, where: str) -> None:
    data = contract.data
    needed = [*data.columns, *([] if data.entity is None else [data.entity])]
    absent = [name for name in needed if name not in table.columns]
    if absent:
        seen = ", ".join(str(name) for name in table.attrs.get("seen", list(table.columns))[:30])
        raise DataRefused(
            "MissingColumn",
            f"{where} lacks {', '.join(absent)}; it has {seen}; "
            "rename the columns in the data or choose other features (data.features) and label (data.label)",
        )


def _numbers(table: pd.DataFrame, contract: Contract) -> None:
    """The types, with pandera: every value column is a number or missing, the entity is never missing."""
    data = contract.data
    columns = {name: pa.Column("float64", nullable=True, coerce=True) for name in data.columns}
    if data.entity is not None:
        columns[data.entity] = pa.Column(nullable=False)
    wrong: list[str] = []
    for name, expected in columns.items():  # one after the other: the copy of one column is in memory, not of all
        try:
            typed = pa.DataFrameSchema({name: expected}, strict=False).validate(table[[name]], lazy=True)
        except SchemaErrors:  # what pandera says beyond the name quotes cells of the data
            wrong.append(name)
            continue
        if name != data.entity:
            values = typed[name].to_numpy(copy=True)
            values[np.isinf(values)] = np.nan  # an overflow of whoever wrote the file; counted as missing
            table[name] = values
    if data.entity in wrong:
        raise DataRefused("MissingEntity", f"column {data.entity!r} has rows without a value; every row needs one")
    if wrong:
        raise DataRefused(
            "NotANumber",
            f"column {', '.join(map(repr, wrong))} holds values that are no numbers; expected decimals or empty cells",
        )


def _order(table: pd.DataFrame, contract: Contract) -> None:
    """Duplicates, and rows that are not in order of time within their entity."""
    data = contract.data
    key = [data.time] if data.entity is None else [data.time, data.entity]
    doubled = table.duplicated(key)
    if bool(doubled.any()):
        first = table.loc[doubled, key].iloc[0]
        hint = (
            "; if the data holds several instruments, name their column in data.entity" if data.entity is None else ""
        )
        raise DataRefused(
            "DuplicateRows",
            f"{int(doubled.sum())} rows repeat the {' and '.join(key)} of an earlier row, first {_words(first)}; "
            f"each may come once; remove them{hint}",
        )
    times = table[data.time]
    steps = times.diff() if data.entity is None else times.groupby(table[data.entity], sort=False).diff()
    back = steps < pd.Timedelta(0)
    if bool(back.any()):
        first = table.loc[back, key].iloc[0]
        raise DataRefused(
            "UnorderedRows",
            f"{int(back.sum())} rows are earlier than the row before them in column {data.time!r}, first "
            f"{_words(first)}; rows must ascend in time, as values computed from rows above them would come from the "
            "future otherwise; sort the data where it is made",
        )


def _missing(values: pd.Series, limit: float | None) -> None:
    share = float(values.isna().mean())
    if limit is not None and share > limit:
        raise DataRefused(
            "MissingValues",
            f"column {values.name!r} lacks {100 * share:.4g} % of its values; at most {100 * limit:.4g} % may be "
            "missing (data.checks.maxMissing); repair the data",
        )


def _prices(table: pd.DataFrame, contract: Contract) -> None:
    data = contract.data
    prices = [name for name in data.columns if name in PRICES or name == data.column]
    negative = {name: count for name in prices if (count := int((table[name] <= 0).sum()))}
    if negative:
        seen = ", ".join(f"{count} in column {name!r}" for name, count in negative.items())
        raise DataRefused(
            "NegativePrices",
            f"prices that are zero or negative: {seen}; prices must be positive, since their logarithms are used; "
            "repair the data",
        )
    for name in data.columns:
        if int(table[name].nunique(dropna=True)) < 2:
            raise DataRefused(
                "ConstantColumn", f"column {name!r} has the same value in all rows; nothing can be learned from it"
            )
    if {"high", "low"} <= set(data.columns):
        upside_down = int((table["high"] < table["low"]).sum())
        if upside_down:
            raise DataRefused(
                "InconsistentPrices",
                f"{upside_down} rows have a high below the low; expected high ≥ low; repair the data",
            )


def _staleness(table: pd.DataFrame, contract: Contract, where: str) -> None:
    limit = contract.data.checks.max_staleness
    if limit is None:
        return
    last = pd.Timestamp(table[contract.data.time].max())
    as_of = pd.Timestamp(contract.as_of)
    if contract.data.calendar is None:
        age, unit = max(as_of - last.normalize(), timedelta(0)), "days"
    else:
        age, unit = _sessions_after(last, as_of, contract.data.calendar) * _DAY, f"sessions of {contract.data.calendar}"
    if age > limit:
        raise DataRefused(
            "StaleData",
            f"the newest row of {where} is of {last.date()}, {age / _DAY:.4g} {unit} before {contract.as_of}; at most "
            f"{limit / _DAY:.4g} are allowed (data.checks.maxStaleness); deliver newer rows or set data.asOf",
        )


def _sessions_after(last: pd.Timestamp, as_of: pd.Timestamp, calendar: str) -> int:
    """Sessions of the exchange that began after the newest row, up to asOf."""
    import exchange_calendars  # half a second, only needed here
    from exchange_calendars.errors import InvalidCalendarName

    if last.normalize() >= as_of:
        return 0
    # A calendar needs a few sessions to be built; two weeks around always hold some.
    margin = timedelta(days=14)
    try:
        exchange = exchange_calendars.get_calendar(calendar, start=last.normalize() - margin, end=as_of + margin)
    except InvalidCalendarName:
        raise BadContract(
            "UnknownCalendar", f"data.calendar is {calendar!r}; expected an exchange code such as XNYS, XLON or 24/7"
        ) from None
    return int(((exchange.sessions > last.normalize()) & (exchange.sessions <= as_of)).sum())


def _words(row: pd.Series) -> str:
    return ", ".join(str(value).removesuffix(" 00:00:00") for value in row)
