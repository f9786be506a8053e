"""How a training ends: exit codes, the typed refusals, and the one JSON document that the operator reads.

``docs/trainer-contract.md`` is the contract; the numbers here are its table.
"""

from __future__ import annotations

import errno
import json
import math
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fiduciary_trainer import limits

CONTRACT_VERSION = 1
LIMIT_BYTES = 4096
"""Kubernetes keeps this much of a termination message and cuts the rest, which would not be JSON any more."""

DIGITS = 5
TEXT_LIMIT = 1200


class TrainingEnded(Exception):
    """A training that cannot deliver numbers, for a reason that can be named.

    Attributes:
        reason: CamelCase, stable, for conditions and records.
        message: what was seen, what was expected, what to do.
    """

    exit_code = 1
    outcome = "Failed"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class DataRefused(TrainingEnded):
    """A data check failed. Training again on the same data gives the same answer."""

    exit_code = 42
    outcome = "DataRefused"


class BadContract(TrainingEnded):
    """The job document cannot be carried out, e.g. an unknown architecture or a hyperparameter out of range."""

    exit_code = 64
    outcome = "BadContract"


class Retryable(TrainingEnded):
    """Something outside was not there (MLflow, the data source), or the pod was told to stop after a checkpoint."""

    exit_code = 75
    outcome = "Retryable"


class WorkerLost(TrainingEnded):
    """One of several workers that train together is gone: the others cannot go on. Whose fault it was counts against
    the retries with its own exit code; this one does not."""

    exit_code = 76
    outcome = "WorkerLost"


class Diverged(TrainingEnded):
    """A loss or a prediction is no number. The same document and data give the same bits, and so the same end."""

    exit_code = 43
    outcome = "Diverged"


class OutOfMemory(TrainingEnded):
    """The pod, or its accelerator, has not the memory for this document and data.

    Whatever the kernel kills by itself ends with 137 and no document; Kubernetes then says OOMKilled.
    """

    exit_code = 44
    outcome = "OutOfMemory"


def significant(value: Any, digits: int = DIGITS) -> Any:
    """The same document with every float rounded to significant digits; NaN and infinities become null.

    JSON has neither, and a reader that accepts them disagrees with one that does not.
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): significant(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [significant(item, digits) for item in value]
    return value


def encode(document: Mapping[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fit(document: Mapping[str, Any], limit: int = LIMIT_BYTES) -> bytes:
    """Encode a result so that it fits into a termination message.

    Numbers carry five significant digits. If that is too long, fold values are given with three, then they are left
    out, longest list first, and named in ``"truncated"``: the whole document is in the run's tag
    ``fiduciary.dev/result``. No estimate, standard error or check is ever left out.

    Raises:
        ValueError: what may not be left out is already longer than ``limit``.
    """
    short: dict[str, Any] = significant(document)
    if len(encode(short)) <= limit:
        return encode(short)
    metrics: dict[str, dict[str, Any]] = short.get("metrics", {})
    with_folds = sorted((name for name in metrics if "f" in metrics[name]), key=lambda n: (-len(metrics[n]["f"]), n))
    for name in with_folds:
        metrics[name]["f"] = significant(metrics[name]["f"], 3)
    # A skill's fold values decide gates by the t interval over folds; they go last.
    for name in sorted(with_folds, key=lambda n: n.endswith("_skill")):
        if len(encode(short)) <= limit:
            break
        del metrics[name]["f"]
        short.setdefault("truncated", []).append(f"{name}.f")
    if len(encode(short)) > limit:
        raise ValueError(f"the result takes {len(encode(short))} bytes without fold values, at most {limit} are kept")
    return encode(short)


def failure(
    error: BaseException, training_key: str | None, run_id: str | None = None, secrets: Iterable[str] = ()
) -> tuple[int, bytes]:
    """Exit code and document of a training that did not measure.

    A :class:`TrainingEnded` says what it is, and so does memory that is refused. Anything else is a bug: type, message
    and place are reported, but no traceback, whose source lines could hold data, and no quoted value (libraries quote
    the cell that they stumble over). ``secrets`` are strings that must not appear anywhere.
    """
    if not isinstance(error, TrainingEnded) and _is_memory(error):
        limits.refuse_no_more()
        error = _out_of_memory(error)
    document: dict[str, Any] = {"contractVersion": CONTRACT_VERSION, "trainingKey": training_key}
    if run_id is not None:
        document["runId"] = run_id
    if isinstance(error, TrainingEnded):
        message = redact(error.message, secrets)
        document |= {"outcome": error.outcome, "reason": error.reason, "message": shorten(message)}
        return error.exit_code, encode(document)
    words = redact(_without_values(_one_line(error)), secrets)
    document |= {
        "outcome": "Failed",
        "reason": type(error).__name__,
        "message": shorten(f"{words} (at {_place(error)}); this is a bug of the trainer or its image"),
    }
    return 1, encode(document)


_REFUSED = (
    "DefaultCPUAllocator: can't allocate memory",  # torch
    "std::bad_alloc",  # C++ behind torch, Arrow and ONNX Runtime, where nobody turned it into a MemoryError
    "Failed to allocate memory",  # ONNX Runtime
    "CUDA error: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSOLVER
)


def _is_memory(error: BaseException) -> bool:
    """Whether memory was refused: by Python, numpy and Arrow, by the system, or by libraries that say it in words.

    A library that raises something of its own because of it names it as the cause.
    """
    words = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(refused in words for refused in _REFUSED)
        or (error.__cause__ is not None and _is_memory(error.__cause__))
    )


def _out_of_memory(error: BaseException) -> OutOfMemory:
    words = re.search(r"(?i)allocate ([\d.]+ ?[a-z]+)", str(error))
    asked = f"{words[1]} more were asked for" if words is not None else "more was asked for"
    own, limit = limits.peak_memory(), limits.of_pod().memory
    held = f"{limits.megabytes(own)} were in use at most"
    if limit is not None:
        held += f" and the limit is {limits.megabytes(limit)}"
    of_gpu = type(error).__name__ == "OutOfMemoryError" or any(word in str(error) for word in ("CUDA", "ALLOC_FAILED"))
    where = "accelerator" if of_gpu else "pod"
    advice = (
        "lower batchSize or hidden in training.hyperparameters, or use one with more memory"
        if where == "accelerator"
        else "raise spec.training.resources.limits.memory, or use fewer columns, rows, members or folds"
    )
    return OutOfMemory("OutOfMemory", f"the {where}'s memory ran out (at {_place(error)}): {held}, {asked}; {advice}")


def write(path: Path, document: bytes) -> None:
    """Write the termination message; without a place for it (a run outside Kubernetes) to standard output.

    Kubernetes has made the file under ``/dev``; where it has not, nothing of ours belongs there.
    """
    if path.exists() or (path.parent.is_dir() and path.parent != Path("/dev")):
        try:
            path.write_bytes(document)
            return
        except PermissionError:
            pass
    sys.stdout.write(document.decode() + "\n")


def shorten(text: str, limit: int = TEXT_LIMIT) -> str:
    """At most ``limit`` characters, the cut shown."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` without any of the secrets and without credentials inside URLs."""
    for secret in sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"(?<=://)[^/@\s]+@", "***@", text)


def _without_values(text: str) -> str:
    """Quoted strings that are not plain names (of a column, a key, a type) are values, and are left out."""

    def kept(quoted: re.Match[str]) -> str:
        return quoted[0] if re.fullmatch(r"[A-Za-z_][\w.\-]{0,60}", quoted[2]) else f"{quoted[1]}…{quoted[1]}"

    return re.sub(r"""(['"])(.*?)\1""", kept, text)


def _one_line(error: BaseException) -> str:
    """The exception's own words without what libraries append: the first line only, since the rest may quote data."""
    return shorten((str(error).strip().splitlines() or ["no message"])[0], 300)


def _place(error: BaseException) -> str:
    """``module.py:line in function`` of the innermost frame of our own packages, else of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "unknown place"
    own = [frame for frame in frames if "/fiduciary_" in frame.filename.replace("\\", "/")]
    frame = (own or list(frames))[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
