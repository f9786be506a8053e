"""Reads a table of outcomes and turns its rows into what the scorer takes. What is no outcome is refused by its row."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import requests

from fiduciary_trainer.data.files import UNREACHABLE, names_of
from fiduciary_trainer.outcome import DataRefused, Retryable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fiduciary_trainer.data.locations import Locations
    from fiduciary_trainer.outcomes.document import Document

MOST_BYTES = 1 << 30
SECONDS = 60.0
BEARER = "token"
"""Key of the Secret with what an HTTP source asks for."""


def outcomes(document: Document, locations: Locations, now: pd.Timestamp) -> list[dict[str, Any]]:
    """All outcomes of the source whose label has ended within ``document.within`` days of ``now``, oldest first.

    Raises:
        DataRefused: nothing is there, access is denied, a column is missing, or a cell is none.
        Retryable: the source cannot be reached.
    """
    found: list[dict[str, Any]] = []
    for name, content in _contents(document, locations):
        table = _table(content, name, document)
        lacking = [column for column in document.columns.values() if column not in table.columns]
        if lacking:
            seen = ", ".join(map(str, table.columns[:30]))
            raise DataRefused("MissingColumn", f"{name} lacks the column {lacking[0]!r}; it has {seen}")
        found += _items(table, name, document, now)
    return sorted(found, key=lambda item: (item.get("labelEnd", ""), item.get("entity", "")))


def _contents(document: Document, locations: Locations) -> Iterator[tuple[str, io.BytesIO]]:
    uri = document.source.uri
    if uri.startswith(("https://", "http://")):
        yield uri, _downloaded(uri, locations)
        return
    filesystem, pattern = locations.open(uri)
    try:
        names = names_of(filesystem, pattern)
        if not names:
            raise DataRefused("SourceNotFound", f"{uri} names no file; check the path")
        for name in names:
            yield name, io.BytesIO(filesystem.cat_file(name))
    except FileNotFoundError:
        raise DataRefused("SourceNotFound", f"{uri} does not exist; check bucket or claim and path") from None
    except PermissionError:
        raise DataRefused("AccessDenied", f"{uri} may not be read with the credentials given") from None
    except UNREACHABLE as error:
        raise Retryable("SourceUnreachable", f"{uri} cannot be reached ({type(error).__name__})") from None


def _downloaded(uri: str, locations: Locations) -> io.BytesIO:
    """A whole answer; a redirect would carry the token elsewhere, so none is followed."""
    token = locations.secrets().get(BEARER)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    content = io.BytesIO()
    try:
        with requests.get(uri, headers=headers, timeout=SECONDS, stream=True, allow_redirects=False) as answer:
            if answer.status_code in (401, 403):
                raise DataRefused("AccessDenied", f"{uri} answers {answer.status_code}; check the Secret")
            if answer.status_code in (404, 410):
                raise DataRefused("SourceNotFound", f"{uri} answers {answer.status_code}; check the address")
            if answer.status_code != 200:
                raise Retryable("SourceUnreachable", f"{uri} answers {answer.status_code}; expected 200")
            for part in answer.iter_content(1 << 20):
                content.write(part)
                if content.tell() > MOST_BYTES:
                    raise DataRefused("SourceTooLarge", f"{uri} answers with more than {MOST_BYTES} bytes")
    except requests.RequestException as error:
        raise Retryable("SourceUnreachable", f"{uri} cannot be reached ({type(error).__name__})") from None
    content.seek(0)
    return content


def _table(content: io.BytesIO, name: str, document: Document) -> pd.DataFrame:
    wanted = set(document.columns.values())
    texts = {document.columns[key]: str for key in ("entity", "labelEnd", "requestId") if key in document.columns}
    try:
        if document.source.format == "Parquet":
            file = pq.ParquetFile(content)
            return file.read([each for each in file.schema_arrow.names if each in wanted]).to_pandas()
        zipped = "gzip" if name.endswith(".gz") else None
        return pd.read_csv(
            content,
            usecols=lambda each: each in wanted,
            dtype=texts,
            encoding="utf-8-sig",
            float_precision="round_trip",
            compression=zipped,
        )
    except (pa.ArrowInvalid, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise DataRefused(
            "UnreadableFile", f"{name} is not {document.source.format} ({type(error).__name__}); check source.format"
        ) from None


def _items(table: pd.DataFrame, name: str, document: Document, now: pd.Timestamp) -> list[dict[str, Any]]:
    columns = document.columns
    value = _numbers(table[columns["value"]], name, columns["value"])
    known = np.isfinite(value)  # an outcome that is not there yet is an empty cell
    if document.by_request:
        requests_ = table[columns["requestId"]].astype(str)
        return [{"requestId": requests_.iloc[row], "value": float(value[row])} for row in np.flatnonzero(known)]
    ends, days = _ends(table[columns["labelEnd"]], name, columns["labelEnd"])
    recent = (ends > now - pd.Timedelta(days=document.within)).to_numpy() & known
    entity = table[columns["entity"]].astype(str) if "entity" in columns else None
    returns = _numbers(table[columns["return"]], name, columns["return"]) if "return" in columns else None
    found: list[dict[str, Any]] = []
    for row in np.flatnonzero(recent):
        end = ends.iloc[row]
        item: dict[str, Any] = {
            "entity": "" if entity is None else entity.iloc[row],
            "labelEnd": f"{end:%Y-%m-%d}" if days else f"{end.isoformat()}Z",
            "value": float(value[row]),
        }
        if returns is not None and np.isfinite(returns[row]):
            item["return"] = float(returns[row])
        found.append(item)
    return found


def _numbers(column: pd.Series, name: str, called: str) -> np.ndarray:
    try:
        return pd.to_numeric(column).to_numpy(dtype=np.float64)
    except (ValueError, TypeError):
        raise DataRefused("UnreadableValues", f"{name}: column {called!r} holds what is no number") from None


def _ends(column: pd.Series, name: str, called: str) -> tuple[pd.Series, bool]:
    """Times in UTC without a zone, and whether all of them are days."""
    try:
        if pd.api.types.is_numeric_dtype(column):
            raise ValueError
        parsed = pd.to_datetime(column, utc=True, format=None if column.dtype.kind == "M" else "ISO8601")
    except (ValueError, TypeError, OverflowError):
        raise DataRefused("UnreadableTimes", f"{name}: column {called!r} holds what is no date or time") from None
    if parsed.isna().any():
        raise DataRefused(
            "UnreadableTimes", f"{name}: column {called!r} lacks values; each outcome needs its label end"
        )
    times = parsed.dt.tz_localize(None)
    return times, bool((times == times.dt.normalize()).all())
