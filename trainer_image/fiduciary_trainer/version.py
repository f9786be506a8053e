"""The immutable artifact: a folder of ONNX, JSON and CSV whose manifest's hash is the version's digest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fiduciary_features.artifact import FILES, MANIFEST, SETTINGS, digest_of
from fiduciary_trainer.outcome import encode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RUNTIME = "fiduciary_server.shared.SharedRuntime"
"""What loads a version in an MLServer that finds models by itself."""
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
    (folder / SETTINGS).write_bytes(encode({"implementation": RUNTIME, "parameters": {"uri": "."}}))
    return digest_of(manifest)
