"""Golden pairs: what is compared, and the Job that does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.golden.comparison import FOLDER, build

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = sorted(FOLDER.glob("*.in.yaml"))


@pytest.mark.parametrize("given", PAIRS, ids=[path.name.removesuffix(".in.yaml") for path in PAIRS])
def test_objects(given: Path) -> None:
    expected = given.with_name(given.name.replace(".in.", ".out."))
    assert build(given) == expected.read_text(), "if this is meant: python -m tests.golden, and read the difference"


def test_no_pair_is_left_alone() -> None:
    given = {path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml")}
    assert given == {path.name.removesuffix(".out.yaml") for path in FOLDER.glob("*.out.yaml")}
    assert len(given) >= 2
