"""What the operator tells a serving pod: the JSON document in the environment variable ``FIDUCIARY_SERVING``."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "FIDUCIARY_SERVING"
CONTRACT_VERSION = 1

DEFAULT_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds; used where the document names none."""

T = TypeVar("T")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class BadContract(ValueError):
    """The document cannot be read; the message says what was seen and expected."""


@dataclass(frozen=True)
class Source:
    """Where the version is kept: a URI, and the MLflow run that logged it."""

    uri: str
    run_id: str | None
    tracking_uri: str | None


@dataclass(frozen=True)
class RecordSettings:
    """Where prediction records go; ``url`` None: nowhere.

    Attributes:
        url: of the scorer.
        buffer: records that wait at most; more are dropped and counted.
        batch: records in one request at most.
        flush_seconds: a record waits no longer than this for its batch to fill.
        token_file: a bearer token, read for each request; None: none is sent.
    """

    url: str | None
    buffer: int
    batch: int
    flush_seconds: float
    token_file: str | None


@dataclass(frozen=True)
class Serving:
    """One version to serve.

    Attributes:
        namespace, model: of the FinancialModel.
        version: number in the registry.
        digest: ``sha256:...`` of the version's manifest.
        source: where the version is kept.
        latency_edges: seconds, ascending.
        records: what becomes of prediction records.
        probe_key: raw Ed25519 public key of the operator's probes, 32 bytes; None: every request is an ordinary one.
        threads: of ONNX Runtime.
        drain_seconds: how long requests are still answered after SIGTERM.
    """

    namespace: str
    model: str
    version: str
    digest: str
    source: Source
    latency_edges: tuple[float, ...]
    records: RecordSettings
    probe_key: bytes | None
    threads: int
    drain_seconds: float

    @property
    def name(self) -> str:
        """The model's name in the Open Inference Protocol."""
        return f"{self.namespace}.{self.model}"

    @property
    def short_digest(self) -> str:
        """First eight hexadecimal digits, for labels."""
        return self.digest.removeprefix("sha256:")[:8]


def parse(text: str) -> Serving:
    """Read the document.

    Raises:
        BadContract: it is no JSON, of another contract version, or a field is missing or of another kind.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadContract(f"{VARIABLE} is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadContract(f"{VARIABLE} is a {type(document).__name__}; expected an object")
    if document.get("contractVersion") != CONTRACT_VERSION:
        seen = document.get("contractVersion")
        raise BadContract(
            f"contractVersion is {seen!r}; this server reads {CONTRACT_VERSION}: "
            "let operator and server be of one release"
        )
    source, records = _get(document, "source", dict), _get(document, "records", dict, {})
    digest = _get(document, "digest", str)
    if not _DIGEST.fullmatch(digest):
        raise BadContract(f"digest is {digest!r}; expected sha256: and 64 hexadecimal digits")
    return Serving(
        namespace=_get(document, "namespace", str),
        model=_get(document, "model", str),
        version=_get(document, "version", str),
        digest=digest,
        source=Source(_get(source, "uri", str), source.get("runId") or None, source.get("trackingUri") or None),
        latency_edges=_edges(document.get("latencyEdges") or DEFAULT_EDGES),
        records=RecordSettings(
            url=records.get("url"),
            buffer=_positive(records, "buffer", int, 10_000),
            batch=_positive(records, "batch", int, 200),
            flush_seconds=_positive(records, "flushSeconds", float, 1.0),
            token_file=records.get("tokenFile"),
        ),
        probe_key=_key(document.get("probeKey")),
        threads=_positive(document, "threads", int, 1),
        drain_seconds=_positive(document, "drainSeconds", float, 10.0),
    )


_NEEDED: Any = object()


def _get(document: Mapping[str, Any], name: str, kind: type[T], default: Any = _NEEDED) -> T:
    value = document.get(name, default)
    if value is _NEEDED or not isinstance(value, kind):
        seen = "missing" if name not in document else f"{document[name]!r}"
        raise BadContract(f"{name} is {seen}; expected a {kind.__name__}")
    return value


def _positive(document: Mapping[str, Any], name: str, kind: type[int] | type[float], default: float) -> Any:
    value = document.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0 or kind(value) != value:
        raise BadContract(f"{name} is {value!r}; expected a positive {kind.__name__}")
    return kind(value)


def _edges(values: Any) -> tuple[float, ...]:
    if not all(isinstance(edge, (int, float)) and not isinstance(edge, bool) and edge > 0 for edge in values):
        raise BadContract(f"latencyEdges is {values!r}; expected positive numbers of seconds")
    return tuple(sorted({float(edge) for edge in values}))


def _key(value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raw = b""
    if len(raw) != 32:
        raise BadContract("probeKey is not the base64 of a raw Ed25519 public key (32 bytes)")
    return raw
