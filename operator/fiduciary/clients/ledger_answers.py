"""What the outcome scorer answers, decoded strictly: a row whose content does not hash to its digest is no row."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

Reason = Literal[
    "ScorerUnreachable",
    "ScorerTimeout",
    "ScorerUnauthorized",
    "ScorerRefused",
    "ScorerUnavailable",
    "ScorerTooLarge",
    "ScorerWrongSchema",
    "LedgerBroken",
    "LedgerExists",
]

CONTRACT_VERSION = 1
CLASSES = 10
"""Bins of probability that the scorer counts."""
_SHOWN = 200
_T = TypeVar("_T", bound=BaseModel)


class LedgerError(Exception):
    """The scorer gave no answer that evidence may rest on. ``reason`` and the message are fit for a condition."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", alias_generator=to_camel)


Count = Annotated[int, Field(ge=0)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Arms(_Answer):
    """A count of each arm."""

    champion: Count
    challenger: Count


class _Money(_Answer):
    champion: str
    challenger: str


class Head(_Answer):
    """How far a ledger has come."""

    name: str
    definition: dict[str, Any]
    digest: Digest
    """Of the definition: it begins the chain."""
    length: Count
    head: Digest
    last_session: Day | None = None
    ended: Day | None = None
    too_late: dict[str, int] = Field(default_factory=dict[str, int])
    broken: str | None = None
    problem: str | None = None


class _Own(_Answer):
    entities: Count
    loss: str
    calibration: list[tuple[Count, Count, str, Count]] = Field(default_factory=list[tuple[int, int, str, int]])


class _Each(_Answer):
    champion: _Own


class _Row(_Answer):
    sequence: Count
    session: Day
    entities: Count
    sum: str
    sum_squares: str
    missing: Arms
    dropped: Arms
    profit: _Money | None = None
    own: _Each | None = None
    previous: Digest
    digest: Digest


@dataclass(frozen=True, slots=True)
class Own:
    """What the version that serves predicted in time, by itself.

    ``calibration``: of ten bins of equal width, forecasts, sum of their probabilities and events; empty where the label
    is no event.
    """

    entities: int
    loss: float
    calibration: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One closed session, whose content hashes to ``digest``. Sums are those of docs/outcomes.md."""

    sequence: int
    session: str
    entities: int
    total: float
    squares: float
    missing: Arms
    dropped: Arms
    profit: tuple[float, float] | None
    previous: str
    digest: str
    own: Own | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a ledger, in order. ``more``: there are further ones."""

    head: Head
    rows: tuple[Row, ...]
    more: bool


def heads(url: str, body: bytes) -> tuple[Head, ...]:
    """Every ledger's head. Raises :class:`LedgerError`."""
    found = _document(url, body).get("ledgers")
    if not isinstance(found, list):
        _strange(url, "ledgers", found)
    return tuple(_validated(url, Head, each) for each in cast("list[object]", found))


def page(url: str, body: bytes) -> Page:
    """Raises :class:`LedgerError`."""
    document = _document(url, body)
    rows = document.get("rows")
    if not isinstance(rows, list):
        _strange(url, "rows", rows)
    head = _validated(url, Head, document)
    return Page(head, tuple(_row(url, each) for each in cast("list[object]", rows)), document.get("next") is not None)


def refusal(url: str, status: int, body: bytes) -> LedgerError:
    """Why a request was not done, in the scorer's own words where it has some."""
    try:
        said = _object(body)
    except ValueError:
        said = {}
    reason, message = str(said.get("reason", "")), str(said.get("message", ""))[:_SHOWN]
    told = f"{url} answered {status}" + (f" {reason}: {message}" if reason else "")
    if status in (401, 403):
        return LedgerError("ScorerUnauthorized", told)
    if status == 409:
        return LedgerError("LedgerExists", told)
    if reason == "LedgerBroken":
        return LedgerError("LedgerBroken", told)
    if status in (429, 503):
        return LedgerError("ScorerUnavailable", told)
    return LedgerError("ScorerRefused", told)


def canonical_digest(value: object) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no spaces): what the chain is made of."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _row(url: str, content: object) -> Row:
    row = _validated(url, _Row, content)
    own = {key: value for key, value in cast("dict[str, object]", content).items() if key != "digest"}
    if (actual := canonical_digest(own)) != row.digest:
        raise LedgerError(
            "LedgerBroken", f"{url}: row {row.sequence} says {row.digest}; its content hashes to {actual}"
        )
    profit = None if row.profit is None else (_number(url, row.profit.champion), _number(url, row.profit.challenger))
    return Row(
        row.sequence,
        row.session,
        row.entities,
        _number(url, row.sum),
        _number(url, row.sum_squares),
        row.missing,
        row.dropped,
        profit,
        row.previous,
        row.digest,
        None if row.own is None else _own(url, row.own.champion),
    )


def _own(url: str, found: _Own) -> Own:
    bins = [0.0] * (3 * CLASSES)
    for number, forecasts, likely, events in found.calibration:
        if number >= CLASSES or events > forecasts:
            _strange(url, "own.champion.calibration", found.calibration)
        bins[3 * number : 3 * number + 3] = [float(forecasts), _number(url, likely), float(events)]
    return Own(found.entities, _number(url, found.loss), tuple(bins) if found.calibration else ())


def _number(url: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        _strange(url, "a sum", text)
    return value


def _validated(url: str, model: type[_T], content: object) -> _T:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        _strange(url, ".".join(str(part) for part in first["loc"]) or "the document", first["input"])


def _document(url: str, body: bytes) -> dict[str, Any]:
    try:
        found = _object(body)
    except ValueError as error:
        raise LedgerError("ScorerWrongSchema", f"{url} did not answer with a JSON object: {error}") from None
    if found.get("contractVersion") != CONTRACT_VERSION:
        _strange(url, "contractVersion", found.get("contractVersion"), f"expected {CONTRACT_VERSION}")
    return found


def _object(body: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    try:
        found: object = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"found {type(found).__name__}")
    return cast("dict[str, Any]", found)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _strange(url: str, what: str, seen: object, expected: str = "not what docs/outcomes.md says") -> NoReturn:
    raise LedgerError("ScorerWrongSchema", f"{url}: {what} is {f'{seen!r}'[:_SHOWN]}; {expected}")
