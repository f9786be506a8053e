"""A real Feast: local registry, offline store of files, and a join that sees nothing of the future."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("feast", reason="runs in the trainer image with Feast")
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

from fiduciary_trainer import contract, data
from fiduciary_trainer.data import Locations
from fiduciary_trainer.outcome import BadContract, DataRefused, TrainingEnded
from tests.trainer.contracts import document
from tests.trainer.test_data import table

if TYPE_CHECKING:
    from pathlib import Path

ROWS, LATE, FILLED = 300, 140, 180  # few: Feast's store of files joins each row of an entity with each of its values


class Desk:
    """A claim with an entity frame and Feast's sources, and the Secret with its settings."""

    def __init__(self, root: Path) -> None:
        self.claim, self.secret = root / "claims" / "desk", root / "secret"
        self.claim.mkdir(parents=True)
        self.secret.mkdir()
        (self.secret / "feature_store.yaml").write_text(
            f"project: desk\nregistry: {self.claim}/registry.db\nprovider: local\noffline_store: {{type: file}}\n"
            "entity_key_serialization_version: 3\n"
        )
        self.bars = table(ROWS).assign(date=lambda each: pd.to_datetime(each["date"]), symbol="SPX")
        self.bars.to_parquet(self.claim / "spine.parquet", index=False)
        # Known two hours before the row; one value comes a month late, one is filled in a month after.
        moods = pd.DataFrame({"symbol": "SPX", "at": self.bars["date"] - pd.Timedelta(hours=2)})
        moods["mood"] = np.random.default_rng(2).normal(size=ROWS)
        moods["written"] = moods["at"]
        moods.loc[LATE, ["at", "written"]] += pd.Timedelta(days=30)
        moods.loc[FILLED, "written"] += pd.Timedelta(days=30)
        self.moods = moods
        moods.to_parquet(self.claim / "moods.parquet", index=False)

    def apply(self) -> None:
        store = FeatureStore(fs_yaml_file=self.secret / "feature_store.yaml")
        symbol = Entity(name="instrument", join_keys=["symbol"], value_type=ValueType.STRING)
        source = FileSource(
            path=str(self.claim / "moods.parquet"), timestamp_field="at", created_timestamp_column="written"
        )
        view = FeatureView(
            name="moods", entities=[symbol], ttl=timedelta(days=5), source=source, online=False,
            schema=[Field(name="mood", dtype=Float64)],
        )  # fmt: skip
        store.apply([symbol, view, FeatureService(name="spx_v3", features=[view])])

    def load(self, service: str = "spx_v3", max_missing: str = "0.02", **changes: Any) -> data.Loaded:
        source = {"feast": {"featureService": service, "entityUri": "pvc://desk/spine.parquet"}}
        features = {"columns": ["close", "mood"]}
        made = document("Linear", data__source=source, data__features=features, **changes)
        made["data"]["checks"] = {"minRows": 100, "maxMissing": max_missing}
        return data.load(contract.parse(made), Locations(claims=self.claim.parent, secret=self.secret))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)  # `apply` makes an online store beside it
    return Desk(tmp_path)


def test_each_row_gets_the_newest_value_that_was_there(desk: Desk) -> None:
    desk.apply()
    loaded = desk.load()
    mood, expected = loaded.bars.columns["mood"], desk.moods["mood"].to_numpy()
    assert loaded.rows == ROWS
    for row in (LATE, FILLED):
        assert mood[row] == expected[row - 1], "what came or was written later is not seen earlier"
    others = np.setdiff1d(np.arange(ROWS), [LATE, FILLED, *range(LATE + 20, LATE + 24)])
    assert np.array_equal(mood[others], expected[others])
    assert loaded.where == "feature service spx_v3"


def test_nothing_after_as_of_is_asked_for(desk: Desk) -> None:
    desk.apply()
    assert desk.load(asOf="2017-06-30").last == "2017-06-30"


def test_rows_before_the_first_value_are_kept_and_lack_it(desk: Desk) -> None:
    """Feast's store of files leaves such rows out."""
    desk.moods[30:].to_parquet(desk.claim / "moods.parquet", index=False)
    desk.apply()
    loaded = desk.load(max_missing="0.2")
    assert loaded.rows == ROWS
    assert np.isnan(loaded.bars.columns["mood"][:30]).all()
    assert np.isfinite(loaded.bars.columns["mood"][30:]).all()
    with pytest.raises(DataRefused, match=r"MissingValues: column 'mood' lacks 10 %"):
        desk.load()


@pytest.mark.parametrize(
    ("wrong", "kind", "reason", "words"),
    [
        ("service", DataRefused, "SourceNotFound", "has spx_v3"),
        ("registry", DataRefused, "SourceNotFound", "registry.db of feature_store.yaml does not exist"),
        ("settings", BadContract, "NoFeatureStore", "configSecretRef"),
        ("source", DataRefused, "SourceNotFound", "does not exist"),
        ("key", DataRefused, "MissingColumn", "lacks symbol"),
    ],
)
def test_what_is_not_there(desk: Desk, wrong: str, kind: type[TrainingEnded], reason: str, words: str) -> None:
    desk.apply()
    gone = {"registry": desk.claim / "registry.db", "settings": desk.secret / "feature_store.yaml",
            "source": desk.claim / "moods.parquet"}  # fmt: skip
    if wrong in gone:
        gone[wrong].unlink()
    if wrong == "key":
        desk.bars.drop(columns="symbol").to_parquet(desk.claim / "spine.parquet", index=False)
    with pytest.raises(kind) as caught:
        desk.load("spx_v4" if wrong == "service" else "spx_v3")
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert wrong != "registry" or not gone["registry"].exists(), "none is made"


@pytest.mark.parametrize(
    "settings",
    [
        "project: desk\n  password: [hunter2",
        "project: desk\nprovider: local\nregistry: s3://desk/r.db\noffline_store: {type: file, password: hunter2}",
        "project: desk\nprovider: local\nregistry: s3://desk/r.db\noffline_store: {type: nowhere.Store}",
        "provider: local\nregistry: s3://desk/r.db",
        "hunter2",
    ],
)
def test_settings_that_are_none_are_no_bug_of_the_trainer(desk: Desk, settings: str) -> None:
    """Feast and YAML quote what they stumble over, which may be a password: only the kind of error is said."""
    (desk.secret / "feature_store.yaml").write_text(settings)
    with pytest.raises(BadContract) as caught:
        desk.load()
    assert caught.value.reason == "NoFeatureStore"
    assert "hunter2" not in caught.value.message


def test_without_feast_the_message_names_the_image_that_has_it() -> None:
    code = (
        "import sys; sys.modules['feast'] = None\n"
        "from fiduciary_trainer import contract, data\n"
        "from tests.trainer.contracts import document\n"
        "source = {'feast': {'featureService': 'x', 'entityUri': 'pvc://desk/spine.parquet'}}\n"
        "data.load(contract.parse(document('Linear', data__source=source)))"
    )
    path = {"PYTHONPATH": ":".join([*sys.path, "."])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path)
    assert "NotAvailable: data.source.feast needs an image with Feast" in done.stderr
    assert "trainer-feast" in done.stderr
