"""The whole trainer at its nulls and with something planted, on fixed seeds (``make bench-training`` draws 200)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fiduciary", reason="operator/ is not mounted beside the tests")
pytest.importorskip("bench.gates", reason="bench/ is not mounted beside the tests")
from bench.gates import whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEEDS = 5
NULLS = [market for market in whole.MARKETS if market.size == 0.0 and "HAR" not in market.name]


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    def made() -> Iterator[Path]:
        number = 0
        while True:
            number += 1
            (folder := tmp_path / str(number)).mkdir()
            yield folder

    return made()


def accepted(market: whole.Market, folders: Iterator[Path], seeds: int = SEEDS) -> int:
    return sum(whole.judged(market, seed, next(folders))[0].passed for seed in range(seeds))


def test_what_has_no_skill_is_refused(folders: Iterator[Path]) -> None:
    assert sum(accepted(market, folders) for market in NULLS) <= 2, f"of {SEEDS * len(NULLS)} seeds at a level of .05"


def test_what_is_planted_is_found(folders: Iterator[Path]) -> None:
    strong = next(market for market in whole.MARKETS if market.name == "momentum in returns" and market.size == 0.4)
    assert accepted(strong, folders) >= 3
