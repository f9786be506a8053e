"""A DriftPolicy as somebody sees it who has never seen one: months that pass as requests, and how far they are from
what the model was trained on."""

from __future__ import annotations

import math
import statistics
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sandbox import forecasts, inference
from sandbox.console import duration
from sandbox.experiment import BAD, GOOD, NEW, OLD
from sandbox.forecasts import annualised, bar
from sandbox.kubectl import condition
from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from sandbox.kubectl import Object
    from sandbox.market import Market
    from sandbox.replay import Rows

MONTH = 21  # sessions: a window of the policy
COUNTED_SECONDS = 30.0
WILDEST = 60.0  # percent a year: the longest bar


@dataclass(frozen=True)
class Months:
    """Windows of sessions."""

    market: Market
    days: Sequence[Sequence[str]]

    @classmethod
    def around(cls, market: Market, day: str, before: int, after: int) -> Months:
        """So many windows that end before this day, and so many from it on."""
        first = market.time.index(day) - before * MONTH
        return cls(market, [market.time[first + at * MONTH : first + (at + 1) * MONTH] for at in range(before + after)])

    def volatility(self, at: int) -> float:
        """Percent a year, the mean over the window's sessions."""
        outcome = dict(zip(self.market.time, self.market.outcome, strict=True))
        return statistics.fmean(annualised(outcome[day] or math.nan) for day in self.days[at])


@dataclass
class Passing:
    """Months on their way as requests. sent: how many passed. failure: why it ended, if it did."""

    months: Months
    sent: int = 0
    failure: StepFailed | None = None
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Counter:
    """The rows of a model that Prometheus has, by whichever version."""

    prometheus: str
    model: str

    def rows(self) -> int:
        """Raises StepFailed where Prometheus does not answer."""
        query = f'sum(max by (version) (fiduciary_histogram_rows_total{{model="{self.model}"}}))'
        try:
            answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": query}, timeout=10)
            found = answer.raise_for_status().json()["data"]["result"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise StepFailed(
                f"Prometheus at {self.prometheus} does not say how many rows there are: {error}"
            ) from error
        return int(found[0]["value"][1]) if found else 0


@contextmanager
def passing(model: Object, gateway: str, months: Months, counter: Counter, rows: Rows) -> Generator[Passing]:
    """Send month after month, each as soon as the one before is counted; its rows follow into the model's file.

    Raises StepFailed at the end where a request failed, or was not counted.
    """
    its = Passing(months)
    url, headers = inference.endpoint(model, gateway), model["status"]["endpoint"].get("headers", {})

    def send() -> None:
        try:
            known = counter.rows()
            for days in months.days:
                forecasts.ask(url, headers, months.market, days)
                rows(months.market, days)
                known += len(days)
                _until_counted(counter, known, its.ended)
                if its.ended.is_set():
                    return
                its.sent += 1
        except StepFailed as error:
            its.failure = error

    thread = threading.Thread(target=send, name="months", daemon=True)
    thread.start()
    try:
        yield its
    finally:
        its.ended.set()
        thread.join(COUNTED_SECONDS)
    if its.failure is not None:
        raise its.failure


def _until_counted(counter: Counter, rows: int, ended: threading.Event) -> None:
    deadline = time.monotonic() + COUNTED_SECONDS
    while (seen := counter.rows()) < rows and not ended.wait(0.3):
        if time.monotonic() > deadline:
            raise StepFailed(f"{seen} rows are counted after {COUNTED_SECONDS:.0f} s, {rows} were sent")


@dataclass(frozen=True)
class Evidence:
    """What a policy said after a window: the sum of its detector, and its threshold."""

    score: float
    threshold: float
    drifted: bool


def drifted(policy: Object) -> bool:
    return condition(policy, "Drifted").get("status") == "True"


class DriftView:
    """Months and what a policy makes of them: redrawn on a terminal, a line for each elsewhere.

    monitor: the one that is shown. A policy judges one window after the other, each with a status of its own.
    """

    def __init__(self, console: Console, passed: Passing, monitor: str) -> None:
        self._console, self._passed, self._monitor = console, passed, monitor
        self._found: list[Evidence] = []
        self._window: str | None = None

    def follow(self, name: str, states: Iterator[dict[str, Object]]) -> Object:
        """Show the policy of this name in every state; returns the last. Raises StepFailed where no month passes."""
        began = time.monotonic()
        last: dict[str, Object] = {}

        def seen() -> Iterator[None]:
            nonlocal last
            for last in states:
                self._take(last.get(name))
                if self._passed.failure is not None:
                    raise self._passed.failure
                yield

        if not self._console.is_terminal:
            for _ in seen():
                pass
            return last[name]
        with Live(
            console=self._console, refresh_per_second=4, get_renderable=lambda: self._drawn(time.monotonic() - began)
        ):
            for _ in seen():
                pass
        return last[name]

    def _take(self, policy: Object | None) -> None:
        status = {} if policy is None else policy.get("status", {})
        monitor = next((one for one in status.get("monitors", ()) if one["name"] == self._monitor), {})
        window = monitor.get("lastWindow")
        if policy is None or window in (None, self._window) or "score" not in monitor:
            return
        self._window = window
        self._found.append(Evidence(float(monitor["score"]), float(monitor["threshold"]), drifted(policy)))
        if not self._console.is_terminal and len(self._found) <= len(self._passed.months.days):
            at = len(self._found) - 1
            said = _told(self._found[at])
            line = f"  {_span(self._passed.months.days[at])}  {self._passed.months.volatility(at):5.1f} %  {said}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def _drawn(self, seconds: float) -> RenderableType:
        table = Table(box=None, padding=(0, 2), header_style=OLD)
        table.add_column("a month of sessions")
        table.add_column("the market moved", justify="right")
        table.add_column("")
        table.add_column("evidence of drift")
        table.add_column("")
        months, shown = self._passed.months, min(self._passed.sent + 1, len(self._passed.months.days))
        for at in range(shown):
            moved = months.volatility(at)
            evidence = self._found[at] if at < len(self._found) else None
            style = "yellow" if evidence is not None else OLD
            table.add_row(
                Text(_span(months.days[at]), style="" if evidence else OLD),
                f"{moved:.0f} % a year",
                bar(min(1.0, moved / WILDEST), style, 2),
                *_cells(evidence, sent=at < self._passed.sent),
            )
        return Group(table, Text(f"  {duration(seconds)}", style=OLD))


def _cells(evidence: Evidence | None, sent: bool) -> tuple[Text, Text]:
    if evidence is None:
        return Text(""), Text("is being counted" if sent else "is asked for", style=OLD)
    style = BAD if evidence.drifted else NEW if evidence.score > 0 else GOOD
    share = evidence.score / evidence.threshold if evidence.threshold else 0.0
    return bar(min(1.0, share), style, 2), Text(_told(evidence), style=style)


def _told(evidence: Evidence) -> str:
    return f"{'drift: ' if evidence.drifted else ''}{evidence.score:.1f} of {evidence.threshold:.1f}"


def _span(days: Sequence[str]) -> str:
    return f"{days[0]} to {days[-1]}"
