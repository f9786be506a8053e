"""The bad specs of ``bad_specs/``: each a good object with one change, and what the API server says about it.

A list of cases a kind: ``case`` names it, ``change`` is merged into the good object of :mod:`examples` (null removes a
field), ``says`` is the API server's whole message.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.controlplane import examples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.controlplane.server import Body

FOLDER = Path(__file__).with_name("bad_specs")
KINDS = {
    "financialmodel": examples.model,
    "modelexperiment": examples.experiment,
    "driftpolicy": examples.policy,
    "modelapproval": examples.approval,
    "modeldecision": examples.decision,
}


@dataclass(frozen=True)
class Case:
    """One bad spec: the whole object, and the message with which it is refused."""

    name: str
    body: Body
    says: str


class _Plain(yaml.SafeLoader):
    """Reads dates as the text that was written, as kubectl does."""


_Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def body(stem: str, change: Mapping[str, Any]) -> Body:
    """The good object of this kind with one change."""
    changed = KINDS[stem]()
    _merge(changed, change)
    return changed


def _merge(base: Body, change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def cases() -> list[Case]:
    """Every bad spec of every kind."""
    found: list[Case] = []
    for stem in KINDS:
        for entry in yaml.load((FOLDER / f"{stem}.yaml").read_text(), _Plain):
            found.append(Case(f"{stem}-{entry['case']}", body(stem, entry["change"]), entry["says"]))
    return found
