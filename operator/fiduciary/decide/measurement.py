"""What a trainer measured, as the contract says (docs/trainer-contract.md), read leniently and believed nowhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from fiduciary.api.gates import METRICS
from fiduciary.decide.identity import canonical
from fiduciary.evidence.bounds import Folds

CONTRACT_VERSION = 1
SUMMARY_BYTES = 3072
"""Most of a result that a record keeps, as canonical JSON."""

_TEXTS = ("labelKind", "runId", "experimentId", "source", "digest", "dataDigest", "dataFrom", "dataThrough", "image")
_NUMBERS = ("rows", "seed", "seconds")
_PARTS = ("e", "se", "n", "skew", "kurtosis")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: estimate, standard error, spread over folds, days. Absent parts are None."""

    estimate: float
    se: float | None = None
    folds: Folds | None = None
    n: int | None = None
    skew: float | None = None
    kurtosis: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Numbers that gates read. A name that is missing has its reason in ``unavailable``, if the trainer gave one."""

    label_kind: str
    metrics: Mapping[str, Metric]
    checks: Mapping[str, float]
    names: Mapping[str, str]  # checks that are texts, e.g. leakage_feature
    unavailable: Mapping[str, str]

    def why_missing(self, name: str) -> str:
        return self.unavailable.get(name, "the trainer reported no such number")


def parse_result(text: str) -> Mapping[str, Any] | None:
    """A termination message as the contract writes it; None for anything else (a traceback, a foreign image)."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return None
    return as_result(value)


def as_result(value: Any) -> Mapping[str, Any] | None:
    """The value itself if it is a document of our contract version."""
    if not isinstance(value, Mapping):
        return None
    document = cast("Mapping[str, Any]", value)
    return document if document.get("contractVersion") == CONTRACT_VERSION else None


def kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result that a record keeps: enough to judge again, at most :data:`SUMMARY_BYTES`.

    What is no number, or no text of a sensible length, is left out: any image may write a result. If it is too long,
    fold values become their number, mean and standard deviation, which is all that a bound needs; then library versions
    and reasons are cut. Estimates, errors and checks always stay.
    """
    texts = {name: text for name in _TEXTS if (text := _text(result.get(name), 512)) is not None}
    numbers = {name: number for name in _NUMBERS if (number := _stored(result.get(name))) is not None}
    code = {name: text for name, value in _first(result.get("code"), 8) if (text := _text(value, 128)) is not None}
    known = cast("Mapping[str, tuple[str, ...]]", METRICS).get(texts.get("labelKind", ""), ())
    metrics = {name: _metric(value) for name, value in _mapping(result.get("metrics")).items() if name in known}
    checks = {name: check for name, value in _first(result.get("checks"), 24) if (check := _check(value)) is not None}
    reasons = {name: text for name, value in _first(result.get("unavailable"), 32) if (text := _text(value, 256))}
    part: dict[str, Any] = {**texts, **numbers, "code": code, "metrics": metrics, "checks": checks}
    part["unavailable"] = reasons
    if len(canonical(part)) > SUMMARY_BYTES:
        part["metrics"] = {name: _condensed(metric) for name, metric in metrics.items()}
    if len(canonical(part)) > SUMMARY_BYTES:
        part["code"] = {name: text for name, text in code.items() if name == "sha256"}
    for length in (80, 40, 20, 0):
        if len(canonical(part)) > SUMMARY_BYTES:
            part["unavailable"] = {name: reason[:length] for name, reason in reasons.items()} if length else {}
    return part


def read(measured: Mapping[str, Any]) -> Measurement:
    """Numbers of a result or of what a record kept of it. What is no finite number is missing."""
    metrics: dict[str, Metric] = {}
    for name, value in _mapping(measured.get("metrics")).items():
        fields = _mapping(value)
        estimate = _number(fields.get("e"))
        if estimate is None:
            continue
        metrics[name] = Metric(
            estimate=estimate,
            se=_number(fields.get("se")),
            folds=_folds(fields.get("f")),
            n=int(days) if (days := _number(fields.get("n"))) is not None else None,
            skew=_number(fields.get("skew")),
            kurtosis=_number(fields.get("kurtosis")),
        )
    checks = _mapping(measured.get("checks"))
    return Measurement(
        label_kind=str(measured.get("labelKind", "")),
        metrics=metrics,
        checks={name: number for name, value in checks.items() if (number := _number(value)) is not None},
        names={name: value for name, value in checks.items() if isinstance(value, str)},
        unavailable={name: str(reason) for name, reason in _mapping(measured.get("unavailable")).items()},
    )


def _condensed(metric: Any) -> Any:
    """Fold values as ``{"k", "mean", "sd"}``, six significant digits."""
    fields = _mapping(metric)
    folds = _folds(fields.get("f"))
    others = {name: value for name, value in fields.items() if name != "f"}
    if folds is None:
        return others
    return {**others, "f": {"k": folds.count, "mean": float(f"{folds.mean:.6g}"), "sd": float(f"{folds.sd:.6g}")}}


def _folds(value: Any) -> Folds | None:
    if isinstance(value, list):
        return Folds.of([_number(fold) for fold in cast("list[Any]", value)])
    count, mean, sd = (_number(_mapping(value).get(name)) for name in ("k", "mean", "sd"))
    if count is None or mean is None or sd is None or count < 2:
        return None
    return Folds(int(count), mean, sd)


def _metric(value: Any) -> dict[str, Any]:
    """The numbers of a metric; what is null is left out, since the API server may drop a null."""
    fields = _mapping(value)
    part: dict[str, Any] = {name: number for name in _PARTS if (number := _stored(fields.get(name))) is not None}
    folds = fields.get("f")
    return {**part, "f": folds} if _folds(folds) is not None else part


def _check(value: Any) -> float | str | None:
    return _text(value, 64) if isinstance(value, str) else _stored(value)


def _stored(value: Any) -> float | None:
    """A number as it is after the API server stored it: 1.0 comes back as 1."""
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and abs(number) < 2**53 else number


def _text(value: Any, limit: int) -> str | None:
    return value[:limit] if isinstance(value, str) else None


def _first(value: Any, limit: int) -> list[tuple[str, Any]]:
    """At most ``limit`` entries of what should be an object, with names of a sensible length."""
    return [(str(name)[:64], part) for name, part in list(_mapping(value).items())[:limit]]


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no end
        return None
    return number if math.isfinite(number) else None
