"""Identity by content: what makes two trainings, configurations, gates or records the same.

Only what differs from its default enters a hash, so a field that is added later with a default changes no key. A test
holds golden keys: a change here that moves one of them would retrain every model of every user.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary.api.base import ApiModel
    from fiduciary.api.financialmodel import FinancialModelSpec
    from fiduciary.api.gates import Gate
    from fiduciary.api.modeldecision import ModelDecisionSpec

JOB_KEY_DIGITS = 8


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: UTF-8, sorted keys, no spaces.

    A whole number is written without a fraction, because the API server stores 1.0 as 1 and a record must hash to the
    same text before and after it was stored.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(_whole(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def digest(value: Any) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of the canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def spec_key(spec: FinancialModelSpec) -> str:
    """What the spec asks for, before it is resolved: the key without resolved asOf and trigger.

    ``asOf`` counts as it is written: another date is another training, ``Rolling`` stays the same.
    """
    return digest({**_procedure(spec), "asOf": spec.data.as_of})


def training_key(spec: FinancialModelSpec, as_of: str, trigger: Mapping[str, str]) -> str:
    """Identity of one training: procedure, data, resolved ``as_of`` (YYYY-MM-DD), and what asked for a repetition.

    Not in it: credentials, resources, retries, queue, checkpoint, gates, serving, promotion, governance, and our own
    image's digest (recorded, not keyed: upgrading the operator retrains nobody).
    """
    content = {**_procedure(spec), "asOf": as_of}
    if trigger:
        content["trigger"] = dict(trigger)
    return digest(content)


def config_key(spec: FinancialModelSpec) -> str:
    """What counts as one configuration tried: the procedure without data location, asOf and trigger.

    Another seed is another configuration: choosing among seeds is choosing among results.
    """
    content = _procedure(spec)
    content["data"] = {name: value for name, value in content["data"].items() if name != "source"}
    return digest(content)


def gates_digest(gates: Sequence[Gate]) -> str:
    """Identity of the user's gates; their order does not count, the built-in ones belong to the operator's version."""
    return digest(sorted((set_fields(gate) for gate in gates), key=canonical))


def record_digest(spec: ModelDecisionSpec) -> str:
    """Hash of a record: what the next one names as ``previous``."""
    return digest(set_fields(spec))


def job_name(model: str, key: str, attempt: int) -> str:
    """Deterministic, so that the same work posted twice is one Job."""
    return f"{model}-{key.removeprefix('sha256:')[:JOB_KEY_DIGITS]}-{attempt}"


def record_name(model: str, sequence: int) -> str:
    """Record n of a model can be created once, because its name is taken."""
    return f"{model}-{sequence}"


def set_fields(part: ApiModel) -> dict[str, Any]:
    """The fields that differ from their defaults, as JSON."""
    return part.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True, mode="json")


_AS_THEY_ARE = frozenset({int, str, bool, type(None)})


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _whole(part) for name, part in cast("dict[str, Any]", value).items()}
        case list() | tuple() if _AS_THEY_ARE.issuperset(map(type, cast("list[Any]", value))):
            return cast("list[Any]", value)  # counts and texts, of which there may be thousands
        case list() | tuple():
            return [_whole(part) for part in cast("list[Any]", value)]
        case _:
            return value


def _procedure(spec: FinancialModelSpec) -> dict[str, Any]:
    data = set_fields(spec.data)
    for ignored in ("checks", "asOf"):
        data.pop(ignored, None)
    source: dict[str, dict[str, Any]] = data["source"]
    data["source"] = {
        kind: {name: value for name, value in part.items() if name not in ("secretRef", "configSecretRef")}
        for kind, part in source.items()
    }
    everything = set_fields(spec.training)
    # The nodes are in it since the gradients of a batch's shares are rounded before they are added.
    kept = ("architecture", "hyperparameters", "quantiles", "validation", "search", "seed", "image", "nodes")
    return {"data": data, "training": {name: everything[name] for name in kept if name in everything}}
