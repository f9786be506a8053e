"""Reading: formats, asOf, the digest over all rows; refusing: each check with what was seen and what was expected."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiduciary_trainer import contract, data
from fiduciary_trainer.data import Locations, files
from fiduciary_trainer.outcome import BadContract, DataRefused
from tests.trainer.contracts import document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Table = pd.DataFrame
TABLE = "sha256:d4f8c5ad0899517cf8d6152cf7daf25659a372362165ae75e7c27d79afae4120"
SP500 = "sha256:8249b7eb11cfbd74113cc36acb642d4df258093957c39b84881b1b46d59c4102"


def table(rows: int = 1500, last: str = "2017-12-29", seed: int = 3) -> Table:
    """Daily bars that end on a given weekday."""
    draw = np.random.default_rng(seed)
    days = pd.bdate_range(end=last, periods=rows)
    close = 100 * np.exp(np.cumsum(draw.normal(0, 0.01, rows)))
    opened = close * np.exp(draw.normal(0, 0.005, rows))
    return pd.DataFrame(
        {
            "date": days.strftime("%Y-%m-%d"),
            "open": opened,
            "high": np.maximum(opened, close) * 1.01,
            "low": np.minimum(opened, close) * 0.99,
            "close": close,
            "volume": draw.integers(1000, 9000, rows).astype(float),
        }
    )


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., data.Loaded]:
    """Write a table to a claim and read it as the Job would."""
    claim = tmp_path / "claims" / "bars"
    claim.mkdir(parents=True)

    def read(frame: Table, form: str = "CSV", **changes: Any) -> data.Loaded:
        name = f"bars.{form.lower()}"
        if form == "CSV":
            frame.to_csv(claim / name, index=False)
        else:
            frame.to_parquet(claim / name, index=False, row_group_size=100)
        uri = {"files": {"uri": f"pvc://bars/{name}", "format": form}}
        job = contract.parse(document("Linear", **{"data__source": uri, **changes}))
        return data.load(job, Locations(claims=tmp_path / "claims"))

    return read


def refused(load: Callable[..., data.Loaded], frame: Table, reason: str, *words: str, **changes: Any) -> None:
    with pytest.raises(DataRefused) as caught:
        load(frame, **changes)
    assert caught.value.reason == reason, caught.value.message
    assert caught.value.exit_code == 42
    for word in words:
        assert word in caught.value.message, caught.value.message


# --- reading -------------------------------------------------------------------------------------------------------


def test_the_library_dataset() -> None:
    loaded = data.load(contract.parse(document(data__calendar="XNYS")))
    assert (loaded.rows, loaded.first, loaded.last) == (4780, "1999-01-04", "2017-12-29")
    assert loaded.where == "arch/sp500"
    assert loaded.digest == SP500, "the digest of the same rows never changes; it is in records"
    assert loaded.bars.columns["close"][0] == 1228.099976


@pytest.mark.parametrize(
    ("name", "label", "entities"),
    [
        ("arch/nasdaq", "Volatility", 1),
        ("arch/wti", "Return", 1),
        ("skfolio/sp500_index", "Direction", 1),
        ("skfolio/sp500_dataset", "Return", 20),
        ("skfolio/factors_dataset", "Return", 5),
    ],
)
def test_other_datasets_that_ship(name: str, label: str, entities: int) -> None:
    changes: dict[str, Any] = {"data__source": {"dataset": {"name": name}}, "data__checks__maxMissing": "0.05"}
    if entities > 1:
        changes["data__entity"] = "symbol"
    if label != "Volatility":
        changes["data__features"] = {"columns": ["close"]}
    architecture = {"Volatility": "HAR", "Return": "Linear", "Direction": "Logistic"}[label]
    loaded = data.load(contract.parse(document(architecture, label, **changes)))
    assert len(np.unique(loaded.bars.entity)) == entities
    assert loaded.last == "2017-12-29"


def test_an_unknown_dataset_is_named_with_those_that_ship() -> None:
    with pytest.raises(BadContract, match=r"UnknownDataset.*arch/gold.*arch/sp500"):
        data.load(contract.parse(document(data__source={"dataset": {"name": "arch/gold"}})))


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_nothing_after_as_of_is_kept(load: Callable[..., data.Loaded], form: str) -> None:
    frame = table(1500, last="2018-03-30")
    known = frame[frame["date"] <= "2017-12-29"]
    spoiled = frame.copy()
    spoiled.loc[spoiled["date"] > "2017-12-29", ["open", "high", "low", "close"]] = -1.0
    assert load(spoiled, form).digest == load(known, form).digest
    assert load(spoiled, form).last == "2017-12-29"


@pytest.mark.parametrize("kind", ["date", "seconds", "New York"])
def test_every_type_of_time_in_parquet(load: Callable[..., data.Loaded], kind: str) -> None:
    frame = table(1500, last="2018-03-30")
    expected = load(frame)
    times = pd.to_datetime(frame["date"])
    frame["date"] = {
        "date": lambda: times.dt.date,
        "seconds": lambda: times.astype("datetime64[s]"),
        "New York": lambda: times.dt.tz_localize("UTC").dt.tz_convert("America/New_York"),
    }[kind]()
    assert load(frame, "Parquet").digest == expected.digest


def test_late_row_groups_of_parquet_are_not_decoded(
    load: Callable[..., data.Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = table(1500, last="2018-12-31").assign(date=lambda each: pd.to_datetime(each["date"]))
    decoded: list[int] = []
    original = pq.ParquetFile.iter_batches

    def count(self: Any, **given: Any) -> Any:
        decoded.extend(given["row_groups"])
        return original(self, **given)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", count)
    assert load(frame, "Parquet").last == "2017-12-29"
    early = int((frame["date"] <= "2017-12-29").sum())
    assert decoded == list(range(-(-early // 100))), "15 row groups of 100 rows; those of 2018 are left alone"


def test_the_same_rows_have_the_same_digest(load: Callable[..., data.Loaded], tmp_path: Path) -> None:
    frame = table()
    digest = load(frame).digest
    assert load(frame[["volume", "close", "date", "low", "high", "open"]]).digest == digest, "order of columns"
    assert load(frame, "Parquet").digest == digest, "format"
    assert load(frame.assign(comment="x")).digest == digest, "columns that nobody named"
    moved = frame.assign(date=lambda each: each["date"] + "T00:00:00+00:00")
    assert load(moved).digest == digest, "how a time is written"


@pytest.mark.parametrize("row", [0, 700, 1499])
@pytest.mark.parametrize("column", ["open", "volume", "date"])
def test_any_change_in_any_row_changes_the_digest(load: Callable[..., data.Loaded], row: int, column: str) -> None:
    """MLflow's own digest reads 10,000 rows at most; this one reads every one."""
    frame = table()
    changed = frame.copy()
    if column == "date":
        changed["date"] = [f"{day}T{'12' if at == row else '00'}:00" for at, day in enumerate(changed["date"])]
    else:
        changed.loc[row, column] = np.nextafter(changed.loc[row, column], np.inf)
    assert load(frame).digest != load(changed).digest


def test_several_files_compressed_and_in_order_of_name(tmp_path: Path) -> None:
    frame = table()
    folder = tmp_path / "bars"
    folder.mkdir()
    for name, part in (("2.csv.gz", frame[700:]), ("1.csv.gz", frame[:700])):
        (folder / name).write_bytes(gzip.compress(part.to_csv(index=False).encode()))
    source = {"files": {"uri": "pvc://bars/*.csv.gz", "format": "CSV"}}
    loaded = data.load(contract.parse(document(data__source=source)), Locations(claims=tmp_path))
    assert loaded.rows == len(frame)


def test_panels_are_sorted_by_time_then_entity(load: Callable[..., data.Loaded]) -> None:
    parts = [table(1200, seed=seed).assign(symbol=symbol) for seed, symbol in ((1, "B"), (2, "A"))]
    loaded = load(pd.concat(parts), data__entity="symbol")
    assert loaded.bars.entity[:4].tolist() == ["A", "B", "A", "B"]
    interleaved = pd.concat(parts).sort_values(["date", "symbol"])
    assert load(interleaved, data__entity="symbol").digest == loaded.digest


# --- refusing ------------------------------------------------------------------------------------------------------


def test_missing_column(load: Callable[..., data.Loaded]) -> None:
    refused(load, table().drop(columns="volume"), "MissingColumn", "volume", "date, open, high, low, close")
    refused(load, table().rename(columns={"date": "day"}), "MissingColumn", "'date'", "day", "data.time")


def test_missing_values(load: Callable[..., data.Loaded]) -> None:
    frame = table()
    frame.loc[::5, "close"] = np.nan
    refused(load, frame, "MissingValues", "'close'", "20 %", "2 %")


def test_texts_in_a_number_column(load: Callable[..., data.Loaded]) -> None:
    frame = table().astype({"close": object})
    frame.loc[9, "close"] = "n/a?"
    refused(load, frame, "NotANumber", "'close'")


def test_duplicates(load: Callable[..., data.Loaded]) -> None:
    frame = table()
    refused(load, pd.concat([frame, frame.tail(1)]), "DuplicateRows", "1 rows", "2017-12-29", "data.entity")
    panel = pd.concat([table(1200).assign(symbol=symbol) for symbol in "AB"])
    load(panel, data__entity="symbol")
    refused(load, pd.concat([panel, panel.tail(1)]), "DuplicateRows", "date and symbol", data__entity="symbol")


def test_order(load: Callable[..., data.Loaded]) -> None:
    frame = table()
    swapped = frame.iloc[[*range(700), 701, 700, *range(702, 1500)]]
    refused(load, swapped, "UnorderedRows", "1 rows", "'date'")


def test_prices(load: Callable[..., data.Loaded]) -> None:
    frame = table()
    frame.loc[:2, "open"] *= -1
    refused(load, frame, "NegativePrices", "3 in column 'open'")
    refused(load, table().assign(volume=5.0), "ConstantColumn", "'volume'")
    refused(load, table().rename(columns={"low": "high", "high": "low"}), "InconsistentPrices", "high below the low")


def test_too_few(load: Callable[..., data.Loaded]) -> None:
    refused(load, table(300), "TooFewRows", "300", "1000", "minRows")
    refused(load, table(1500, last="2024-12-31"), "TooFewRows", "no row", "2017-12-29")


def test_stale_in_days_and_in_sessions(load: Callable[..., data.Loaded]) -> None:
    refused(load, table(last="2017-12-22"), "StaleData", "2017-12-22", "7 days", "5 are allowed", "2017-12-29")
    load(table(last="2017-12-22"), data__calendar="XNYS")
    refused(load, table(last="2017-12-20"), "StaleData", "6 sessions of XNYS", data__calendar="XNYS")


def test_unknown_calendar(load: Callable[..., data.Loaded]) -> None:
    with pytest.raises(BadContract, match=r"UnknownCalendar.*XMARS"):
        load(table(last="2017-12-28"), data__calendar="XMARS")


def test_times_that_are_none(load: Callable[..., data.Loaded]) -> None:
    refused(load, table().assign(date="someday"), "UnreadableTimes", "'date'")
    refused(load, table().assign(date=range(1500)), "UnreadableTimes", "numbers")


def test_files_that_are_not_there_or_not_of_the_format(tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    (tmp_path / "bars" / "x.parquet").write_bytes(b"date,close\n")
    for name, form, reason in (
        ("nowhere.csv", "CSV", "SourceNotFound"),
        ("*.csv", "CSV", "SourceNotFound"),
        ("x.parquet", "Parquet", "UnreadableFile"),
    ):
        source = {"files": {"uri": f"pvc://bars/{name}", "format": form}}
        with pytest.raises(DataRefused) as caught:
            data.load(contract.parse(document(data__source=source)), Locations(claims=tmp_path))
        assert caught.value.reason == reason
        assert name in caught.value.message


SHORT = """
import io
import resource
from fiduciary_trainer import contract, limits
from fiduciary_trainer.data import files
from tests.trainer.contracts import document
job = contract.parse(document())
row = ",".join(["2017-01-02", *["1.234567890123"] * 60])
head = ",".join(["date", *(f"column_{number}" for number in range(60))])
table = io.BytesIO("\\n".join([head, *[row] * 9000]).encode())
resource.setrlimit(resource.RLIMIT_DATA, (limits._status("VmData") + (1 << 20), resource.RLIM_INFINITY))
try:
    list(files.read_csv(table, job))
except MemoryError:
    print("refused")
"""


def test_memory_that_is_short_while_a_file_is_read_is_no_fault_of_the_file() -> None:
    environment = os.environ | {"PYTHONPATH": ":".join([*sys.path, "."])}
    done = subprocess.run([sys.executable, "-c", SHORT], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("refused\n", 0), done.stderr[-500:]


def test_no_path_leaves_its_claim(tmp_path: Path) -> None:
    source = {"files": {"uri": "pvc://bars/../../etc/passwd", "format": "CSV"}}
    with pytest.raises(BadContract, match="InvalidValue"):
        data.load(contract.parse(document(data__source=source)), Locations(claims=tmp_path))


@given(
    cuts=st.lists(st.integers(0, 1500), max_size=4),
    chunk=st.integers(50, 2000),
    group=st.integers(50, 2000),
    form=st.sampled_from(["CSV", "Parquet"]),
)
@settings(max_examples=6, deadline=None)
def test_the_digest_does_not_depend_on_files_row_groups_or_batches(
    cuts: list[int], chunk: int, group: int, form: str
) -> None:
    frame = table()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK", chunk)
        places = [0, *sorted(cuts), 1500]
        for number, (start, end) in enumerate(itertools.pairwise(places)):
            path = f"{folder}/{number}.{form.lower()}"
            if form == "CSV":
                frame[start:end].to_csv(path, index=False)
            else:
                frame[start:end].to_parquet(path, index=False, row_group_size=group)
        source = {"files": {"uri": f"file://{folder}/*", "format": form}}
        assert data.load(contract.parse(document("Linear", data__source=source))).digest == TABLE


def test_a_file_that_lacks_a_column_has_missing_values_there(tmp_path: Path) -> None:
    frame = table()
    frame[:700].drop(columns="volume").to_parquet(tmp_path / "a.parquet")
    frame[700:].to_parquet(tmp_path / "b.parquet")
    source = {"files": {"uri": f"file://{tmp_path}/*.parquet", "format": "Parquet"}}
    with pytest.raises(DataRefused, match=r"MissingValues: column 'volume' lacks 46.67 %"):
        data.load(contract.parse(document("Linear", data__source=source)))


READS = """
import resource, sys
from fiduciary_trainer import contract
from fiduciary_trainer.data import Locations, files
from tests.trainer.contracts import document
source = {"files": {"uri": f"file://{sys.argv[1]}", "format": "Parquet"}}
job = contract.parse(document("Linear", data__source=source, asOf=sys.argv[2]))
files.read(contract.Files(f"file://{sys.argv[3]}", "Parquet"), job, Locations())  # libraries are loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = len(files.read(job.data.source, job, Locations()))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_follows_what_is_used_and_not_what_the_file_holds(tmp_path: Path) -> None:
    """One row group of which a tenth is before asOf, in columns of which half are named."""
    rows = 1_000_000
    minutes = pd.date_range("2010-01-01", periods=rows, freq="min")
    draw = np.random.default_rng(1)
    names = ["open", "high", "low", "close", "volume", *(f"x{number}" for number in range(5))]
    frame = pd.DataFrame({"date": minutes, **{name: draw.normal(100, 1, rows) for name in names}})
    frame.to_parquet(tmp_path / "big.parquet", row_group_size=rows)
    frame[:1000].to_parquet(tmp_path / "small.parquet")
    size = (tmp_path / "big.parquet").stat().st_size >> 20
    last = str(minutes[rows // 10].date())
    command = [sys.executable, "-c", READS, str(tmp_path / "big.parquet"), last, str(tmp_path / "small.parquet")]
    environment = os.environ | {"PYTHONPATH": ":".join([*sys.path, "."])}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    kept, grown = map(int, said)
    assert rows // 10 < kept < rows // 10 + 1441
    assert size > 80
    assert grown < 40, f"MiB more for {kept * 8 * 6 >> 20} MiB that are used, out of a file of {size}"


def test_an_instrument_is_what_is_written_whatever_else_is_in_its_chunk(
    load: Callable[..., data.Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CUSIP may be nine digits, with zeros before them: no number, and one instrument in every chunk."""
    names = ["037833100", "02079K305"]
    panel = pd.concat([table(seed=seed).assign(cusip=name) for seed, name in enumerate(names)])
    early = panel["date"] < "2015"
    panel = pd.concat([panel[early], panel[~early].sort_values("date", kind="stable")])
    monkeypatch.setattr(files, "CHUNK", 500)
    read = [load(panel, form, data__entity="cusip") for form in ("CSV", "Parquet")]
    assert [sorted(set(each.bars.entity)) for each in read] == [sorted(names)] * 2
    assert read[0].digest == read[1].digest


def test_a_nested_column_does_not_move_the_time_of_a_row_group(tmp_path: Path) -> None:
    """Parquet counts the leaves of nested columns; whether a row group is too late is told by the time's own."""
    (tmp_path / "bars").mkdir()
    frame = table().assign(date=lambda each: pd.to_datetime(each["date"]))
    vendor = [{"batch": 1, "loaded": pd.Timestamp("2026-01-01")}] * len(frame)
    whole = pa.Table.from_pandas(pd.DataFrame({"vendor": vendor}).join(frame.reset_index(drop=True)))
    pq.write_table(whole, tmp_path / "bars" / "bars.parquet", row_group_size=500)
    source = {"files": {"uri": "pvc://bars/bars.parquet", "format": "Parquet"}}
    assert data.load(contract.parse(document(data__source=source)), Locations(claims=tmp_path)).rows == len(frame)


def test_chunks_are_one_table(load: Callable[..., data.Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    digest = load(table()).digest
    monkeypatch.setattr(files, "CHUNK", 7)
    assert load(table()).digest == digest
