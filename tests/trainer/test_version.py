"""The version digest covers every file; finished work on disk is trusted only if it is intact."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from fiduciary_features import artifact
from fiduciary_trainer import finished, version

if TYPE_CHECKING:
    from pathlib import Path

FILES = {name: name.encode() for name in artifact.FILES}
KEY = "sha256:" + "ab" * 32


def test_the_digest_is_the_hash_of_the_canonical_manifest(tmp_path: Path) -> None:
    digest = version.build(tmp_path / "version", FILES)
    manifest = (tmp_path / "version" / "manifest.json").read_bytes()
    files = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert manifest == json.dumps({"files": files}, sort_keys=True, separators=(",", ":")).encode()
    assert digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert artifact.verify(tmp_path / "version") == digest


def test_a_version_has_exactly_its_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a version holds"):
        version.build(tmp_path / "version", {"model.onnx": b""})


@pytest.mark.parametrize("name", artifact.FILES)
def test_a_changed_file_is_noticed(tmp_path: Path, name: str) -> None:
    version.build(tmp_path / "version", FILES)
    (tmp_path / "version" / name).write_bytes(b"other")
    with pytest.raises(ValueError, match=name):
        artifact.verify(tmp_path / "version")


def test_the_procedure_holds_what_decides_the_training_and_nothing_else() -> None:
    document = {
        "contractVersion": 1, "model": {"uid": "x"}, "trainingKey": "t", "specKey": "s", "configKey": "c", "attempt": 3,
        "trigger": {}, "asOf": "2017-12-29", "checkpoint": {"uri": "pvc://a/b"}, "mlflow": {}, "provenance": {},
        "data": {"source": {"files": {"uri": "s3://desk/x", "secretRef": {"name": "desk-s3"}}}, "time": "date"},
        "training": {"architecture": "HAR"},
    }  # fmt: skip
    kept = version.procedure(document)
    assert set(kept) == {
        "contractVersion",
        "specKey",
        "configKey",
        "trainingKey",
        "trigger",
        "asOf",
        "data",
        "training",
    }
    assert kept["data"]["source"] == {"files": {"uri": "s3://desk/x"}}
    assert document["data"]["source"]["files"]["secretRef"], "the job document itself is left alone"


def _save(tmp_path: Path) -> finished.Finished:
    content = tmp_path / "content"
    digest = version.build(content / "version", FILES)
    (content / "folds.json").write_text("[]")
    points = [finished.Point("final/inner_loss", 0.25, 3, 1_700_000_000_000)]
    return finished.save(tmp_path / "state", KEY, content, {"digest": digest}, {"seed": "7"}, points, {"a": "b"})


def test_finished_work_is_found_again(tmp_path: Path) -> None:
    saved = _save(tmp_path)
    found = finished.load(tmp_path / "state", KEY)
    assert found == saved
    finished.discard(saved)
    assert finished.load(tmp_path / "state", KEY) is None


def test_work_of_another_training_is_not_taken(tmp_path: Path) -> None:
    saved = _save(tmp_path)
    saved.folder.rename(saved.folder.with_name("cd" * 16))
    assert finished.load(tmp_path / "state", "sha256:" + "cd" * 32) is None


def test_damaged_work_is_not_taken(tmp_path: Path) -> None:
    saved = _save(tmp_path)
    (saved.folder / "version" / "model.onnx").write_bytes(b"other")
    assert finished.load(tmp_path / "state", KEY) is None


def test_a_half_written_folder_is_not_taken(tmp_path: Path) -> None:
    saved = _save(tmp_path)
    (saved.folder / "finished.json").unlink()
    assert finished.load(tmp_path / "state", KEY) is None
