"""What we want of an object, kept on the object: so that drift is seen without a copy of every object in memory.

Each body carries what it asks for as canonical JSON in the annotation ``fiduciary.dev/applied``. A live object *holds*
it when every field that was asked for is there; what the API server or a controller adds is theirs. So the mirror
keeps a short digest and one bit per object, and a hand edit shows as a digest that is right and a bit that is not.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

from fiduciary.api import meta
from fiduciary.manifests.json_text import compact
from fiduciary.manifests.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

Body = dict[str, Any]

_IDENTITY = ("name", "namespace")
_EXACT_KINDS = frozenset({"HTTPRoute", "NetworkPolicy", "Experiment"})
"""Kinds whose ``spec`` is ours alone: a field or an entry more (a redirect, a host name, a peer) is an edit. Their
lists are replaced as a whole, so that our next apply takes it away. Elsewhere lists merge by name."""
_EXACT_FIELDS = frozenset({"selector", "podSelector", "matchLabels"})
"""Maps that the API server replaces as a whole: a label more selects other pods."""
_DEFAULTS: frozenset[tuple[str, str | int]] = frozenset(
    {
        ("group", "gateway.networking.k8s.io"),
        ("group", ""),
        ("kind", "Gateway"),
        ("kind", "Service"),
        ("type", "Exact"),
        ("type", "PathPrefix"),
        ("weight", 1),
    }
)
"""What the API server itself adds inside a spec that is ours alone."""


def sealed(body: Body) -> Body:
    """The body with what it asks for in its annotation. Call it last."""
    asked = _asked(body)
    metadata = body["metadata"]
    annotations = {**metadata.get("annotations", {}), meta.ANNOTATION_APPLIED: compact(asked)}
    return {**body, "metadata": {**metadata, "annotations": annotations}}


def content_of(body: Mapping[str, Any]) -> tuple[str, bool]:
    """(content, edited) of a body or of a live object.

    ``content`` is a short digest of what was asked for when it was last applied, empty where the object carries nothing
    readable; ``edited`` says that the object does not hold it any more.
    """
    annotations: Mapping[str, str] = body["metadata"].get("annotations") or {}
    text = annotations.get(meta.ANNOTATION_APPLIED)
    if text is None:
        return "", True
    try:
        asked: object = json.loads(text)
    except ValueError:
        return "", True
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return digest, not _holds_all(body, cast("dict[str, object]", asked) if isinstance(asked, dict) else {})


def asked_annotation(body: Mapping[str, Any], name: str) -> str | None:
    """An annotation as we applied it last, whatever a hand has made of it since."""
    annotations: Mapping[str, str] = body["metadata"].get("annotations") or {}
    try:
        asked: object = json.loads(annotations.get(meta.ANNOTATION_APPLIED) or "{}")
    except ValueError:
        return None
    found: object = asked
    for key in ("metadata", "annotations", name):
        found = cast("dict[str, object]", found).get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _holds_all(body: Mapping[str, Any], asked: dict[str, object]) -> bool:
    exact = body.get("kind") in _EXACT_KINDS
    return all(_holds(body.get(part), value, exact=exact and part == "spec") for part, value in asked.items())


def _asked(body: Body) -> Body:
    metadata = {name: value for name, value in body["metadata"].items() if name not in _IDENTITY}
    return {**{name: value for name, value in body.items() if name not in ("apiVersion", "kind")}, "metadata": metadata}


def _holds(live: object, asked: object, *, exact: bool) -> bool:
    if isinstance(asked, dict):
        if not isinstance(live, dict):
            # The API server leaves empty mappings out.
            return live is None and not asked
        found, wanted_fields = cast("dict[str, object]", live), cast("dict[str, object]", asked)
        if exact and not all(_by_default(name, value) for name, value in found.items() if name not in wanted_fields):
            return False
        return all(
            _holds(found.get(name), value, exact=exact or name in _EXACT_FIELDS)
            for name, value in wanted_fields.items()
        )
    if isinstance(asked, list):
        wanted = cast("list[object]", asked)
        if not isinstance(live, list):
            return live is None and not wanted
        entries = cast("list[object]", live)
        if not exact and (by_name := _named(entries)) is not None and (named := _named(wanted)) is not None:
            return all(_holds(by_name.get(name), value, exact=exact) for name, value in named.items())
        return len(entries) == len(wanted) and all(
            _holds(one, other, exact=exact) for one, other in zip(entries, wanted, strict=True)
        )
    return live == asked or _same_quantity(live, asked)


def _by_default(name: str, value: object) -> bool:
    """Whether a field that was not asked for is one that the API server sets."""
    return value in ("", None) or value == [] or (isinstance(value, str | int) and (name, value) in _DEFAULTS)


def _named(entries: list[object]) -> dict[str, object] | None:
    """Entries by what merges them (``name``, else ``uid``); None where they have no such field."""
    named: dict[str, object] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            return None
        fields = cast("dict[str, object]", entry)
        key = fields.get("uid") or fields.get("name")
        if not isinstance(key, str):
            return None
        named[key] = entry
    return named


def _same_quantity(live: object, asked: object) -> bool:
    """The API server writes 1000m as 1."""
    if not isinstance(live, str | int) or not isinstance(asked, str | int):
        return False
    try:
        return parse_quantity(live) == parse_quantity(asked)
    except ValueError:
        return False
