"""What a trainer measured, as the contract says (docs/trainer-contract.md), read leniently and believed nowhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from fiduciary.decide.identity import canonical
from fiduciary.evidence.bounds import Folds

CONTRACT_VERSION = 1
SUMMARY_BYTES = 3072
"""Most of a result that a record keeps, as canonical JSON."""


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

    Many fold values become their number, mean and standard deviation, which is all that a bound needs; then library
    versions and long reasons are cut. Estimates, errors and checks always stay.
    """
    names = ("labelKind", "runId", "experimentId", "source", "digest", "dataDigest", "rows", "dataFrom", "dataThrough")
    part = _storable({name: result[name] for name in (*names, "code", "seed", "seconds", "image") if name in result})
    for name in ("metrics", "checks", "unavailable"):
        part[name] = _storable(_mapping(result.get(name)))
    if len(canonical(part)) > SUMMARY_BYTES:
        part["metrics"] = {name: _condensed(metric) for name, metric in part["metrics"].items()}
    if len(canonical(part)) > SUMMARY_BYTES:
        part["code"] = {"sha256": part.get("code", {}).get("sha256", "")}
    if len(canonical(part)) > SUMMARY_BYTES:
        part["unavailable"] = {name: reason[:40] for name, reason in part["unavailable"].items()}
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


def _storable(value: Any) -> Any:
    """The value as the API server keeps it: without nulls, which it may drop, and without NaN and infinities, which
    JSON does not have. Else the record would no longer hash to what the next one names."""
    if isinstance(value, Mapping):
        parts = {name: _storable(part) for name, part in cast("Mapping[str, Any]", value).items()}
        return {name: part for name, part in parts.items() if part is not None}
    if isinstance(value, list):
        return [_storable(part) for part in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
