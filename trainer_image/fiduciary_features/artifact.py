"""A version on disk: a folder of ONNX, JSON and CSV whose manifest's hash is the version's digest.

Here, because the trainer writes such folders and the server reads them, and both must mean the same by a digest.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
SETTINGS = "model-settings.json"
"""How an MLServer that finds models by itself (Seldon Core v2) is told of the runtime. No part of the version: whoever
loads it writes a name and parameters into it, and nothing in it changes a prediction."""
FILES = ("drift_reference.json", "features.json", "ledger.csv", "model.onnx", "procedure.json", "signature.json")


def digest_of(manifest: bytes) -> str:
    """``sha256:<hex>`` of the manifest's bytes."""
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def listed_files(manifest: bytes) -> dict[str, str]:
    """Hash (hex) of each file by name, as the manifest says.

    Raises:
        ValueError: it is no such document, or names a file that is not one of ``FILES``.
    """
    try:
        listed = json.loads(manifest)["files"]
        files = {str(name): str(value) for name, value in listed.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError('the manifest is not {"files": {name: sha256}}') from None
    if set(files) != set(FILES):
        raise ValueError(f"a version holds {', '.join(FILES)}; the manifest lists {', '.join(sorted(files)) or 'none'}")
    return files


def verify(folder: Path) -> str:
    """The digest of a version on disk, after each file was compared with the manifest. ``SETTINGS`` may lie beside.

    Raises:
        ValueError: a file is missing, changed, or not in the manifest.
    """
    manifest = (folder / MANIFEST).read_bytes()
    listed = listed_files(manifest)
    present = {path.name for path in folder.iterdir()} - {MANIFEST, SETTINGS}
    if present != set(listed):
        raise ValueError(f"the manifest lists {sorted(listed)}, the folder holds {sorted(present)}")
    for name, expected in listed.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise ValueError(f"{name} is not the file that the manifest names")
    return digest_of(manifest)
