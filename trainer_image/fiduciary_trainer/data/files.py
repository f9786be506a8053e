"""CSV and Parquet, with asOf applied while reading: what is too late is not kept, not even for a moment's look.

Parquet row groups after asOf are not decoded at all; CSV is read in chunks, and rows that are too late leave each
chunk before anything else sees it.
"""

from __future__ import annotations

import gzip
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fiduciary_trainer.data.locations import UNREACHABLE
from fiduciary_trainer.outcome import DataRefused, Retryable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fiduciary_trainer.contract import Contract, Files
    from fiduciary_trainer.data.locations import Locations

CHUNK = 100_000
"""Rows of CSV at a time."""


def read(source: Files, contract: Contract, locations: Locations) -> pd.DataFrame:
    """All files of a URI, in order of their names.

    Raises:
        DataRefused: nothing is there, access is denied, or a file is not of the format.
        Retryable: the storage cannot be reached.
    """
    filesystem, pattern = locations.open(source.uri)
    try:
        names = _names(filesystem, pattern)
        if not names:
            raise DataRefused(
                "SourceNotFound",
                f"{source.uri} names no file; expected at least one {source.format} file there; check the path",
            )
        tables = [_read_one(filesystem, name, source.format, contract) for name in names]
    except FileNotFoundError:
        raise DataRefused("SourceNotFound", f"{source.uri} does not exist; check bucket or claim and path") from None
    except PermissionError:
        raise DataRefused(
            "AccessDenied", f"{source.uri} may not be read with the credentials given; check the Secret of secretRef"
        ) from None
    except UNREACHABLE as error:
        raise Retryable(
            "SourceUnreachable", f"{source.uri} cannot be reached ({type(error).__name__}); it is tried again"
        ) from None
    return pd.concat(tables, ignore_index=True)


def _names(filesystem: Any, pattern: str) -> list[str]:
    if any(sign in pattern for sign in "*?["):
        return sorted(str(name) for name in filesystem.glob(pattern))
    if filesystem.isdir(pattern):
        return sorted(str(name) for name in filesystem.glob(f"{pattern.rstrip('/')}/*") if filesystem.isfile(name))
    return [pattern] if filesystem.exists(pattern) else []


def _read_one(filesystem: Any, name: str, form: str, contract: Contract) -> pd.DataFrame:
    with filesystem.open(name, "rb") as file:
        if form == "Parquet":
            return read_parquet(file, contract, name)
        return read_csv(file, contract, compressed=name.endswith(".gz"), name=name)


def read_csv(
    file: IO[bytes],
    contract: Contract,
    *,
    rename: Mapping[str, str] | None = None,
    time: str | None = None,
    compressed: bool = False,
    name: str = "",
) -> pd.DataFrame:
    """Rows before the cutoff.

    Args:
        file: opened for reading bytes.
        contract: for asOf and the time column.
        rename: names in the file -> names in the result.
        time: time column after renaming; default that of the contract.
        compressed: gzip.
        name: for messages.

    Returns:
        All columns as they are in the file but the time, which is ``datetime64[ns]`` in UTC without a zone.
    """
    column = time or contract.data.time
    kept: list[pd.DataFrame] = []
    try:
        opened = gzip.GzipFile(fileobj=file) if compressed else file
        for chunk in _chunks(opened):
            table = chunk.rename(columns=dict(rename or {}))
            if column not in table.columns:
                raise _no_time(column, list(table.columns))
            table[column] = _times(table[column], column)
            kept.append(table[table[column].to_numpy() < contract.cutoff])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise DataRefused(
            "UnreadableFile", f"{name or 'the file'} is not CSV with a header ({type(error).__name__}); check format"
        ) from None
    return pd.concat(kept, ignore_index=True)


def _chunks(file: Any) -> Iterator[pd.DataFrame]:
    # utf-8-sig: spreadsheets put a byte order mark before the first column's name. A lone dot is how FRED and SAS
    # write a missing value.
    yield from pd.read_csv(file, chunksize=CHUNK, encoding="utf-8-sig", float_precision="round_trip", na_values=["."])


def read_parquet(file: IO[bytes], contract: Contract, name: str = "") -> pd.DataFrame:
    """Rows before the cutoff, as :func:`read_csv`; only the columns that the document names are decoded."""
    data = contract.data
    try:
        reader = pq.ParquetFile(file)
        schema = reader.schema_arrow
        if data.time not in schema.names:
            raise _no_time(data.time, schema.names)
        wanted = [each for each in (data.time, data.entity, *data.columns) if each is not None]
        columns = [each for each in dict.fromkeys(wanted) if each in schema.names]
        limit = _limit(schema.field(data.time).type, contract)
        groups = [g for g in range(reader.num_row_groups) if not _is_late(reader, g, data.time, limit)]
        parts = [_early(reader.read_row_group(group, columns=columns), data.time, limit) for group in groups]
        table = pa.concat_tables(parts) if parts else schema.empty_table().select(columns)
    except pa.ArrowInvalid as error:
        raise DataRefused(
            "UnreadableFile", f"{name or 'the file'} is not Parquet ({type(error).__name__}); check format"
        ) from None
    frame = table.to_pandas()
    frame[data.time] = _times(frame[data.time], data.time)
    return frame[frame[data.time].to_numpy() < contract.cutoff].reset_index(drop=True)


def _limit(kind: pa.DataType, contract: Contract) -> pa.Scalar | None:
    """The cutoff as a value of the time column, or None for text, which is compared after parsing."""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        return pa.scalar(pd.Timestamp(contract.cutoff, tz="UTC" if zone else None)).cast(
            pa.timestamp("ns", "UTC" if zone else None)
        )
    return None


def _is_late(reader: pq.ParquetFile, group: int, column: str, limit: pa.Scalar | None) -> bool:
    """Whether the statistics of a row group say that all of it is at or after the limit."""
    index = reader.schema_arrow.names.index(column)
    if limit is None:
        return False
    statistics = reader.metadata.row_group(group).column(index).statistics
    if statistics is None or not statistics.has_min_max:
        return False
    earliest = pd.Timestamp(statistics.min)
    return earliest >= pd.Timestamp(limit.as_py()).tz_localize(None).tz_localize(earliest.tz)


def _early(table: pa.Table, column: str, limit: pa.Scalar | None) -> pa.Table:
    if limit is None:
        return table
    return table.filter(pc.less(table[column].cast(limit.type), limit))


def _times(values: pd.Series, column: str) -> pd.Series:
    """Parse times; a zone is converted to UTC and taken away."""
    try:
        if pd.api.types.is_numeric_dtype(values):
            raise ValueError
        parsed = pd.to_datetime(values, utc=True, errors="raise", format=None)
    except (ValueError, TypeError, OverflowError):
        kind = "numbers" if pd.api.types.is_numeric_dtype(values) else "texts that are no times"
        raise DataRefused(
            "UnreadableTimes", f"column {column!r} holds {kind}; expected dates or timestamps such as 2017-12-29"
        ) from None
    missing = int(parsed.isna().sum())
    if missing:
        raise DataRefused("UnreadableTimes", f"column {column!r} lacks {missing} values; every row needs a time")
    return parsed.dt.tz_localize(None).astype("datetime64[ns]")


def _no_time(column: str, seen: list[str]) -> DataRefused:
    names = ", ".join(map(str, seen[:30]))
    return DataRefused(
        "MissingColumn", f"the time column {column!r} is missing; the data has {names}; set data.time to one of them"
    )
