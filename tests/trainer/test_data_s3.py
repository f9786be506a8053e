"""Object storage: credentials from the Secret's files, patterns, checkpoints, and what each failure is called."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fiduciary_trainer import contract, data
from fiduciary_trainer.checkpoint import Attempt
from fiduciary_trainer.data import Locations
from fiduciary_trainer.data.locations import secret_values
from fiduciary_trainer.outcome import DataRefused, Retryable, TrainingEnded
from fiduciary_trainer.retention import forget_old
from fiduciary_trainer.walkforward import fit_final, run_walk_forward
from tests.trainer import s3_server
from tests.trainer.contracts import document
from tests.trainer.test_data import table
from tests.trainer.test_training import StopAfter, bars, job, same, silent, weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.trainer.s3_server import Server


@pytest.fixture
def store() -> Iterator[Server]:
    with s3_server.running() as server:
        yield server


@pytest.fixture
def places(store: Server, tmp_path: Path) -> Callable[..., Locations]:
    """Mounts with a Secret of given keys; by default the right ones."""

    def mounted(key: str = store.key, secret: str = store.secret, endpoint: str = store.address) -> Locations:
        folder = tmp_path / "secret"
        (folder / "..data").mkdir(parents=True, exist_ok=True)
        for name, value in (
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", f"{secret}\n"),
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_REGION", s3_server.REGION),
        ):
            (folder / name).write_text(value)
        return Locations(checkpoints=tmp_path, secret=folder)

    return mounted


def load(uri: str, form: str, places: Locations) -> data.Loaded:
    source = {"files": {"uri": uri, "format": form}}
    return data.load(contract.parse(document(data__source=source)), places)


def test_a_pattern_of_parquet_files(store: Server, places: Callable[..., Locations], tmp_path: Path) -> None:
    frame = table()
    for name, part in (("spx/b.parquet", frame[700:]), ("spx/a.parquet", frame[:700]), ("spx/readme.txt", None)):
        store.put(name, b"not data" if part is None else part.to_parquet(index=False))
    (tmp_path / "whole").mkdir()
    frame.to_csv(tmp_path / "whole" / "x.csv", index=False)
    local = load("pvc://whole/x.csv", "CSV", Locations(claims=tmp_path))
    assert load("s3://desk/spx/*.parquet", "Parquet", places()).digest == local.digest


def test_one_csv_object(store: Server, places: Callable[..., Locations]) -> None:
    store.put("spx/daily.csv", table().to_csv(index=False).encode())
    assert load("s3://desk/spx/daily.csv", "CSV", places()).rows == 1500


@pytest.mark.parametrize(
    ("uri", "kind", "reason"),
    [
        ("s3://desk/spx/nowhere.csv", DataRefused, "SourceNotFound"),
        ("s3://desk/nowhere/*.csv", DataRefused, "SourceNotFound"),
        ("s3://another/spx/daily.csv", DataRefused, "SourceNotFound"),
    ],
)
def test_what_is_not_there(places: Callable[..., Locations], uri: str, kind: type[TrainingEnded], reason: str) -> None:
    with pytest.raises(kind) as caught:
        load(uri, "CSV", places())
    assert caught.value.reason == reason
    assert uri in caught.value.message


@pytest.mark.parametrize("wrong", [{"key": "AKIDOFSOMEBODY"}, {"secret": "not-the-secret-of-this-key"}])
def test_wrong_credentials_are_refused_and_not_repeated(
    store: Server, places: Callable[..., Locations], wrong: dict[str, str]
) -> None:
    store.put("spx/daily.csv", b"date,close\n")
    with pytest.raises(DataRefused) as caught:
        load("s3://desk/spx/daily.csv", "CSV", places(**wrong))
    assert caught.value.reason == "AccessDenied"
    assert "secretRef" in caught.value.message
    for value in (*wrong.values(), store.key, store.secret):
        assert value not in caught.value.message


def test_storage_that_does_not_answer_is_tried_again(places: Callable[..., Locations]) -> None:
    with pytest.raises(Retryable) as caught:
        load("s3://desk/spx/daily.csv", "CSV", places(endpoint="http://127.0.0.1:9"))
    assert caught.value.reason == "SourceUnreachable"
    assert caught.value.exit_code == 75


def test_the_keys_of_the_secret(store: Server, places: Callable[..., Locations]) -> None:
    secrets = places().secrets()
    assert secrets["AWS_SECRET_ACCESS_KEY"] == store.secret, "without the line end that editors leave"
    assert set(secrets) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"}
    assert Locations(secret=Path("/nowhere")).secrets() == {}


def test_checkpoints_have_credentials_of_their_own(store: Server, places: Callable[..., Locations]) -> None:
    """The data's may be of another account, or there may be none: a dataset of the image needs no Secret."""
    right = places()
    made = job(checkpoint={"uri": "s3://desk/own", "every": 1})
    for nobody in (Path("/nowhere"), right.secret.with_name("other")):
        if nobody.name == "other":
            nobody.mkdir()
            (nobody / "AWS_ACCESS_KEY_ID").write_text("AKIDOFSOMEBODY")
            (nobody / "AWS_SECRET_ACCESS_KEY").write_text("not-the-secret")
        both = Locations(secret=nobody, checkpoint_secret=right.secret)
        attempt = Attempt.begin(made, "sha256:d", both)
        attempt.secure()
        assert Attempt.begin(made, "sha256:d", both).resumed
        attempt.forget()
        assert store.secret in secret_values(both), "and no message repeats them"
    with pytest.raises(Retryable):
        Attempt.begin(made, "sha256:d", Locations(secret=right.secret.with_name("other")))


def test_checkpoints_on_object_storage(store: Server, places: Callable[..., Locations]) -> None:
    made, frame = job(checkpoint={"uri": "s3://desk/ckpt", "every": 1}), bars()
    whole = run_walk_forward(frame, made, silent)
    stop = StopAfter(6)
    stop.attempt = Attempt.begin(made, "sha256:d", places())
    with pytest.raises(Retryable, match="resumes"):
        run_walk_forward(frame, made, stop, stop.attempt)
    assert [name.partition("/")[0] for name in store.names()] == ["ckpt"]
    resumed = Attempt.begin(made, "sha256:d", places())
    assert resumed.resumed
    assert same(run_walk_forward(frame, made, silent, resumed), whole)
    assert weights(fit_final(frame, made, silent, resumed)) == weights(fit_final(frame, made, silent))
    resumed.forget()
    assert store.names() == []


def test_what_nobody_resumes_is_removed_from_object_storage_too(
    store: Server, places: Callable[..., Locations]
) -> None:
    made = job(checkpoint={"uri": "s3://desk/ckpt", "every": 1})
    store.put("ckpt/old.checkpoint.npz", b"x")
    store.put("ckpt/finished/old/version/model.onnx", b"x")
    store.put("ckpt/notes.txt", b"x")
    assert forget_old(made, places(), datetime.now(UTC) + timedelta(days=29)) == 0
    assert forget_old(made, places(), datetime.now(UTC) + timedelta(days=31)) == 2
    assert store.names() == ["ckpt/notes.txt"]
