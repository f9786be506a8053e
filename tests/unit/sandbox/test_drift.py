"""What the demo shows of a policy: months around a day, and the evidence of each as its policy judged it."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from sandbox.drift import MONTH, DriftView, Months, Passing
from sandbox.market import Market
from sandbox.replay import APPEND, BEGIN, row
from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from pathlib import Path

DAYS = [f"2008-{1 + at // 28:02d}-{1 + at % 28:02d}" for at in range(6 * MONTH)]
CALM, WILD = math.log(0.10 / math.sqrt(252)), math.log(0.80 / math.sqrt(252))
MARKET = Market(DAYS, {"close": [*range(len(DAYS))]}, [CALM if at < 3 * MONTH else WILD for at in range(len(DAYS))])


def policy(at: int, score: str, drifted: str = "False") -> dict[str, Any]:
    monitor = {"name": "inputs", "state": "Stable", "score": score, "threshold": "4.9568", "lastWindow": f"12:00:{at}"}
    condition = {"type": "Drifted", "status": drifted, "observedGeneration": 1}
    status = {"conditions": [condition], "monitors": [{"name": "gone"}, monitor]}
    return {"dp": {"metadata": {"name": "dp", "generation": 1}, "status": status}}


def test_months_end_before_the_day_and_begin_with_it() -> None:
    months = Months.around(MARKET, DAYS[3 * MONTH], before=2, after=3)
    assert [len(days) for days in months.days] == [MONTH] * 5
    assert months.days[1][-1] == DAYS[3 * MONTH - 1]
    assert months.days[2][0] == DAYS[3 * MONTH]
    assert [round(months.volatility(at)) for at in range(5)] == [10, 10, 80, 80, 80]


def shown(states: list[dict[str, Any]], terminal: bool) -> str:
    out = io.StringIO()
    passed = Passing(Months.around(MARKET, DAYS[3 * MONTH], before=1, after=2), sent=3)
    view = DriftView(Console(file=out, force_terminal=terminal, width=120), passed, "inputs")
    assert view.follow("dp", iter(states)) == states[-1].get("dp")
    return out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_each_window_is_shown_once_with_its_evidence(terminal: bool) -> None:
    waits: dict[str, Any] = {"dp": {"metadata": {"name": "dp", "generation": 1}}}
    text = shown([{}, waits, policy(5, "0"), policy(5, "0"), policy(10, "2.31"), policy(15, "5.9", "True")], terminal)
    assert text.count("2.3 of 5.0") == 1
    assert "drift: 5.9 of 5.0" in text
    for days in Months.around(MARKET, DAYS[3 * MONTH], before=1, after=2).days:
        assert text.count(f"{days[0]} to {days[-1]}") == 1


def test_what_keeps_months_from_passing_is_said() -> None:
    passed = Passing(Months.around(MARKET, DAYS[3 * MONTH], before=1, after=2), failure=StepFailed("HTTP 503"))
    view = DriftView(Console(file=io.StringIO()), passed, "inputs")
    with pytest.raises(StepFailed, match="HTTP 503"):
        view.follow("dp", iter([policy(5, "0")]))


def test_a_file_begins_with_its_rows_and_grows_by_later_ones_once(tmp_path: Path) -> None:
    path = tmp_path / "sp500.csv"
    path.write_text("of an earlier demo")

    def run(script: str, days: list[str]) -> None:
        given = json.dumps([row(MARKET, day) for day in days])
        subprocess.run([sys.executable, "-c", script, str(path)], input=given, text=True, check=True)

    run(BEGIN, DAYS[:2])
    run(APPEND, DAYS[1:4])
    run(APPEND, DAYS[1:4])
    assert path.read_text() == "date,close\n" + "".join(f"{day},{at}\n" for at, day in enumerate(DAYS[:4]))
