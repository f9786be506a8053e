"""Forecasts for days that no version saw, asked through the Gateway, beside what then happened."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
from rich.table import Table
from rich.text import Text

from sandbox import inference
from sandbox.inference import Prediction
from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandbox.market import Market

ROWS = 90  # sessions in a request: more than any feature looks back
SESSIONS_A_YEAR = 252
WIDTH = 28  # cells of the longest bar


@dataclass(frozen=True)
class Asked:
    """Answers of one version by day, and how long each took, in seconds."""

    answers: Mapping[str, Prediction]
    seconds: Sequence[float] = field(repr=False)

    @property
    def version(self) -> str:
        """Who answered. Raises StepFailed where it was more than one."""
        versions = {answer.version for answer in self.answers.values()}
        if len(versions) != 1:
            raise StepFailed(f"one version should have answered, but these did: {sorted(versions)}")
        return versions.pop()

    def loss(self, market: Market) -> float:
        """Mean squared error of the log volatility, which is what the trainer minimised and the gates compared."""
        outcome = dict(zip(market.time, market.outcome, strict=True))
        errors = [answer.value - (outcome[day] or math.nan) for day, answer in self.answers.items()]
        return statistics.fmean(error * error for error in errors)


def ask(url: str, headers: Mapping[str, str], market: Market, days: Sequence[str]) -> Asked:
    """One request for each day: the bars that somebody has at that close.

    Raises StepFailed for an answer that is no prediction.
    """
    answers: dict[str, Prediction] = {}
    seconds: list[float] = []
    with httpx.Client(headers={**inference.HEADERS, **headers}, timeout=10) as client:
        for day in days:
            body = inference.body(market.bars(day, ROWS))
            began = time.perf_counter()
            try:
                answer = client.post(f"{url}/infer", content=body)
            except httpx.TransportError as error:
                raise StepFailed(f"POST {url}/infer for {day}: no answer: {error}") from error
            seconds.append(time.perf_counter() - began)
            if answer.status_code != httpx.codes.OK:
                raise StepFailed(f"POST {url}/infer for {day}: HTTP {answer.status_code}: {answer.text[:300]}")
            try:
                answers[day] = Prediction.of(answer.json())
            except (KeyError, StopIteration, ValueError) as error:
                raise StepFailed(f"POST {url}/infer for {day}: this is no prediction: {answer.text[:300]}") from error
    return Asked(answers, seconds)


def only(asked: Asked, days: Sequence[str]) -> Asked:
    return Asked({day: asked.answers[day] for day in days}, ())


def annualised(log_volatility: float) -> float:
    """Percent a year of the log of a session's standard deviation."""
    return 100.0 * math.exp(log_volatility) * math.sqrt(SESSIONS_A_YEAR)


def beside_outcomes(market: Market, days: Sequence[str], asked: Sequence[Asked]) -> Table:
    """A row a day: each version's forecast, and the volatility of the session that followed, with bars to one scale."""
    outcome = dict(zip(market.time, market.outcome, strict=True))
    table = Table(box=None, padding=(0, 2), header_style="bright_black")
    table.add_column("at the close of")
    for one in asked:
        table.add_column(f"version {one.version} said", justify="right")
        table.add_column("")
    table.add_column("the next session was", justify="right")
    table.add_column("")
    actual = {day: annualised(outcome[day] or math.nan) for day in days}
    said = {id(one): {day: annualised(one.answers[day].value) for day in days} for one in asked}
    top = max(*actual.values(), *(value for values in said.values() for value in values.values()))
    for day in days:
        cells: list[Text | str] = [day]
        for one in asked:
            cells += [f"{said[id(one)][day]:.1f} %", bar(said[id(one)][day] / top, "cyan", len(asked))]
        table.add_row(*cells, f"{actual[day]:.1f} %", bar(actual[day] / top, "yellow", len(asked)))
    return table


def bar(share: float, style: str, columns: int) -> Text:
    """Eighths of a cell, so that small differences are seen."""
    full, rest = divmod(round(share * WIDTH // columns * 8), 8)
    return Text("█" * full + " ▏▎▍▌▋▊▉"[rest].strip(), style=style)
