"""The immutable artifact: a folder of ONNX, JSON and CSV whose manifest's hash is the version's digest."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from fiduciary_trainer.outcome import encode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST = "manifest.json"
FILES = ("drift_reference.json", "features.json", "ledger.csv", "model.onnx", "procedure.json", "signature.json")

PROCEDURE = ("contractVersion", "specKey", "configKey", "trainingKey", "trigger", "asOf", "data", "training")
"""Parts of the job document that decide what is trained. Where it runs, who asked how often, and where the result is
logged are not among them: a retry or a restored cluster must give the same version."""


def procedure(document: Mapping[str, Any]) -> dict[str, Any]:
    """The job document without model uid, attempt, MLflow, checkpoint, provenance and secret references."""
    kept: dict[str, Any] = {name: document[name] for name in PROCEDURE if name in document}
    data = dict(kept["data"])
    source = {kind: dict(value) if isinstance(value, dict) else value for kind, value in data["source"].items()}
    for value in source.values():
        if isinstance(value, dict):
            value.pop("secretRef", None)
    data["source"] = source
    kept["data"] = data
    return kept


def build(folder: Path, files: Mapping[str, bytes]) -> str:
    """Write the version's files and their manifest.

    Args:
        folder: is created; must be empty.
        files: content by name, exactly ``FILES``.

    Returns:
        The version digest, ``sha256:`` and the hash of the bytes of ``manifest.json``.

    Raises:
        ValueError: a file is missing or unknown.
    """
    if set(files) != set(FILES):
        raise ValueError(f"a version holds {', '.join(FILES)}; given were {', '.join(sorted(files))}")
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    manifest = encode({"files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}})
    (folder / MANIFEST).write_bytes(manifest)
    return digest_of(manifest)


def digest_of(manifest: bytes) -> str:
    """``sha256:<hex>`` of the manifest's bytes."""
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def verify(folder: Path) -> str:
    """The digest of a version on disk, after each file was compared with the manifest.

    Raises:
        ValueError: a file is missing, changed, or not in the manifest.
    """
    manifest = (folder / MANIFEST).read_bytes()
    listed: dict[str, str] = json.loads(manifest)["files"]
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if present != set(listed):
        raise ValueError(f"the manifest lists {sorted(listed)}, the folder holds {sorted(present)}")
    for name, expected in listed.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise ValueError(f"{name} is not the file that the manifest names")
    return digest_of(manifest)
