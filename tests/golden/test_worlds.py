"""Golden pairs: the resources of a typical world, and all that is decided on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.golden.worlds import FOLDER, decide

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = sorted(FOLDER.glob("*.in.yaml"))


def _children(path: Path) -> list[dict[str, Any]]:
    decided = yaml.safe_load(path.with_name(path.name.replace(".in.", ".out.")).read_text())
    return [body for child in decided.get("children", []) for body in child.values()]


@pytest.mark.parametrize("given", PAIRS, ids=[path.name.removesuffix(".in.yaml") for path in PAIRS])
def test_decision(given: Path) -> None:
    expected = given.with_name(given.name.replace(".in.", ".out."))
    assert decide(given) == expected.read_text(), "if this is meant: python -m tests.golden, and read the difference"


def test_no_pair_is_left_alone() -> None:
    given = {path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml")}
    assert given == {path.name.removesuffix(".out.yaml") for path in FOLDER.glob("*.out.yaml")}
    assert len(given) >= 8


def test_every_kind_of_child_is_shown() -> None:
    shown = {child.get("kind") for path in PAIRS for child in _children(path)}
    assert {"Job", "NetworkPolicy", "ServiceAccount", "Deployment", "Service", "HTTPRoute"} <= shown
