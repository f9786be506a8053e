"""What code measured this: its hash, the libraries, and the identifiers that status, records and MLflow share."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiduciary_trainer.outcome import BadContract

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES = ("fiduciary_features", "fiduciary_trainer")
LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "pandas", "mlflow-skinny", "scipy")


def code_sha256() -> str:
    """Hash over the sources of both packages: names and contents, sorted, whatever the image is called."""
    result = hashlib.sha256()
    root = Path(__file__).parent.parent
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            result.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
            result.update(content)
    return result.hexdigest()


def libraries() -> dict[str, str]:
    """Versions of what decides numbers, by distribution name; what is not installed is left out."""
    found: dict[str, str] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if "torch" not in found:  # Debian's package carries no metadata
        import torch

        found["torch"] = str(torch.__version__)
    return found


def code() -> dict[str, str]:
    """``code`` of the result."""
    found = libraries()
    return {"sha256": code_sha256(), **{name: found[name] for name in ("python", "torch", "numpy")}}


def text(document: Mapping[str, Any], *path: str) -> str:
    """A text of the job document that only says where things go.

    Raises:
        BadContract: it is missing or no text.
    """
    value: Any = document
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, str) or not value:
        raise BadContract("InvalidValue", f"{'.'.join(path)} is {value!r}; expected a text")
    return value


def owner(document: Mapping[str, Any]) -> str:
    """``cluster/namespace/name``, the owner tag. A UID would orphan versions after a restore."""
    return "/".join(text(document, "model", part) for part in ("cluster", "namespace", "name"))


def run_tags(document: Mapping[str, Any]) -> dict[str, str]:
    """Tags of the run that are known before the data is read."""
    prefix = "fiduciary.dev/"
    return {
        f"{prefix}spec-key": text(document, "specKey"),
        f"{prefix}config-key": text(document, "configKey"),
        f"{prefix}attempt": str(document.get("attempt", 1)),
        f"{prefix}as-of": text(document, "asOf"),
        f"{prefix}owner": owner(document),
        f"{prefix}image": text(document, "provenance", "image"),
    }
