"""CSV and Parquet, with asOf applied while reading: what is too late is not kept, not even for a moment's look.

Both are streamed in batches of rows: of a file only the columns that the document names are kept, and rows that are
too late leave each batch before anything else sees it. Parquet row groups after asOf are not decoded at all, nor are
columns that are not named. So memory follows what is used, not what the files hold.
"""

from __future__ import annotations

import gzip
import itertools
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fiduciary_trainer.data.locations import UNREACHABLE
from fiduciary_trainer.outcome import DataRefused, Retryable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fiduciary_trainer.data.locations import Locations
    from fiduciary_trainer.job import Contract, Files

CHUNK = 100_000
"""Rows at a time."""

BUFFER = 1 << 20
"""Bytes of a column that are read ahead: a whole row group may be gigabytes."""


def read(source: Files, contract: Contract, locations: Locations, *, also: Sequence[str] = ()) -> pd.DataFrame:
    """All files of a URI, in order of their names: the columns that the document names, and ``also`` others.

    Raises:
        DataRefused: nothing is there, access is denied, or a file is not of the format.
        Retryable: the storage cannot be reached.
    """
    filesystem, pattern = locations.open(source.uri)
    try:
        names = names_of(filesystem, pattern)
        if not names:
            raise DataRefused(
                "SourceNotFound",
                f"{source.uri} names no file; expected at least one {source.format} file there; check the path",
            )
        gathered = Gathered()
        for name in names:
            with filesystem.open(name, "rb") as file:
                gathered.take(_parts(file, name, source.format, contract, also))
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
    return gathered.table()


def names_of(filesystem: Any, pattern: str) -> list[str]:
    """Files that a path, a folder or a pattern names, in order; none where nothing is there."""
    if any(sign in pattern for sign in "*?["):
        return sorted(str(name) for name in filesystem.glob(pattern))
    if filesystem.isdir(pattern):
        return sorted(str(name) for name in filesystem.glob(f"{pattern.rstrip('/')}/*") if filesystem.isfile(name))
    return [pattern] if filesystem.exists(pattern) else []


def _parts(file: IO[bytes], name: str, form: str, contract: Contract, also: Sequence[str]) -> Iterator[pd.DataFrame]:
    if form == "Parquet":
        return read_parquet(file, contract, name, also)
    return read_csv(file, contract, compressed=name.endswith(".gz"), name=name, also=also)


class Gathered:
    """Batches that become one table. Columns grow in place: nothing is ever held twice but the batch that is added."""

    def __init__(self) -> None:
        self._columns: dict[str, np.ndarray] = {}
        self._seen: dict[str, None] = {}
        self._rows = 0

    def take(self, parts: Iterable[pd.DataFrame]) -> None:
        """Add batches. A column that one of them lacks is missing in its rows."""
        for part in parts:
            self._seen |= dict.fromkeys(part.attrs.get("seen", part.columns))
            end = self._rows + len(part)
            for name in dict.fromkeys([*self._columns, *part.columns]):
                values = part[name].to_numpy() if name in part.columns else np.full(len(part), np.nan)
                self._columns[name] = self._grown(self._columns.get(name), values, end)
                self._columns[name][self._rows : end] = values
            self._rows = end

    def _grown(self, column: np.ndarray | None, values: np.ndarray, end: int) -> np.ndarray:
        """The column with room up to ``end`` and of a type that holds both."""
        if column is None:
            column = np.full(self._rows, np.nan) if self._rows else np.empty(0, values.dtype)
        if column.dtype != values.dtype:
            numbers = column.dtype.kind in "iufb" and values.dtype.kind in "iufb"
            column = column.astype(np.promote_types(column.dtype, values.dtype) if numbers else object)
        if len(column) < end:
            column.resize(max(end, len(column) * 5 // 4), refcheck=False)  # the allocator moves pages, not bytes
        return column

    def table(self) -> pd.DataFrame:
        """All rows; ``attrs["seen"]`` names the columns of the files, those that were not read too."""
        for column in self._columns.values():
            column.resize(self._rows, refcheck=False)
        table = pd.DataFrame(self._columns, copy=False)
        table.attrs["seen"] = list(self._seen)
        return table


def _wanted(contract: Contract, there: Iterable[str], also: Sequence[str]) -> list[str]:
    """Columns of a file that are read."""
    data, names = contract.data, set(there)
    wanted = (data.time, data.entity, *data.columns, *also)
    return [each for each in dict.fromkeys(wanted) if each is not None and each in names]


def read_csv(
    file: IO[bytes],
    contract: Contract,
    *,
    rename: Mapping[str, str] | None = None,
    time: str | None = None,
    compressed: bool = False,
    name: str = "",
    also: Sequence[str] = (),
) -> Iterator[pd.DataFrame]:
    """Rows before the cutoff, in batches.

    Args:
        file: opened for reading bytes.
        contract: for asOf and the columns.
        rename: names in the file -> names in the result, which then has all columns, not only those of the document.
        time: time column after renaming; default that of the contract.
        compressed: gzip.
        name: for messages.
        also: columns beside those of the document.

    Yields:
        Columns as they are in the file but the time, which is ``datetime64[ns]`` in UTC without a zone.
    """
    column = time or contract.data.time
    try:
        opened = gzip.GzipFile(fileobj=file) if compressed else file
        entity = contract.data.entity
        for chunk in _chunks(opened, None if entity in also else entity):  # a join key is what it is in Feast's sources
            table = chunk.rename(columns=dict(rename or {}))
            if column not in table.columns:
                raise _no_time(column, list(table.columns))
            seen = list(table.columns)
            part = table if rename is not None else table[_wanted(contract, seen, also)].copy()
            part[column] = _times(part[column], column)
            part = part[part[column].to_numpy() < contract.cutoff]
            part.attrs["seen"] = seen
            yield part
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        if "out of memory" in str(error):  # the tokenizer's word for it is the one for a malformed file
            raise MemoryError(str(error)) from None
        raise DataRefused(
            "UnreadableFile", f"{name or 'the file'} is not CSV with a header ({type(error).__name__}); check format"
        ) from None


def _chunks(file: Any, entity: str | None) -> Iterator[pd.DataFrame]:
    # utf-8-sig: spreadsheets put a byte order mark before the first column's name. A lone dot is how FRED and SAS
    # write a missing value. An entity is text: 037833100 is a number only while no other in its chunk has a letter.
    yield from pd.read_csv(
        file,
        chunksize=CHUNK,
        encoding="utf-8-sig",
        float_precision="round_trip",
        na_values=["."],
        dtype=None if entity is None else {entity: str},
    )


def read_parquet(
    file: IO[bytes], contract: Contract, name: str = "", also: Sequence[str] = ()
) -> Iterator[pd.DataFrame]:
    """Rows before the cutoff, as :func:`read_csv`; only the columns that the document names are decoded."""
    data = contract.data
    try:
        reader = pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
        schema = reader.schema_arrow
        if data.time not in schema.names:
            raise _no_time(data.time, schema.names)
        columns = _wanted(contract, schema.names, also)
        limit = _limit(schema.field(data.time).type, contract)
        groups = [g for g in range(reader.num_row_groups) if not _is_late(reader, g, data.time, limit)]
        batches = reader.iter_batches(batch_size=CHUNK, row_groups=groups, columns=columns)
        for batch in itertools.chain([schema.empty_table().select(columns)], batches):
            part = _early(batch, data.time, limit).to_pandas()
            part[data.time] = _times(part[data.time], data.time)
            part = part[part[data.time].to_numpy() < contract.cutoff]
            part.attrs["seen"] = schema.names
            yield part
    except pa.ArrowInvalid as error:
        raise DataRefused(
            "UnreadableFile", f"{name or 'the file'} is not Parquet ({type(error).__name__}); check format"
        ) from None


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
    if limit is None:
        return False
    # By its path: Parquet counts the leaves of nested columns, Arrow's schema the columns.
    leaves = map(reader.metadata.row_group(group).column, range(reader.metadata.num_columns))
    statistics = next(leaf.statistics for leaf in leaves if leaf.path_in_schema == column)
    if statistics is None or not statistics.has_min_max:
        return False
    earliest = pd.Timestamp(statistics.min)
    return earliest >= pd.Timestamp(limit.as_py()).tz_localize(None).tz_localize(earliest.tz)


def _early(batch: pa.Table | pa.RecordBatch, column: str, limit: pa.Scalar | None) -> pa.Table | pa.RecordBatch:
    if limit is None:
        return batch
    return batch.filter(pc.less(batch[column].cast(limit.type), limit))


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
