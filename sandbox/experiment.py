"""An experiment as somebody sees it who has never seen one: who gets the requests, what is shown, what comes next."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sandbox.console import duration
from sandbox.forecasts import bar
from sandbox.kubectl import condition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sandbox.kubectl import Object
    from sandbox.load import Report
    from sandbox.replay import Replay

CLAIMS = {
    "Superiority": "is better",
    "NonInferiority": "is no worse",
    "Harm": "does harm",
    "Watch": "does harm since it is champion",
}
"""What a test would show of the challenger."""
GOOD, BAD, NEW, OLD = "green", "red", "cyan", "bright_black"
ENDED = ("Promoted", "RolledBack", "Kept")
ALL = "all"  # the harm tests together
EVERY = 0.5  # seconds between two looks at the client's report


@dataclass(frozen=True)
class Claim:
    """One test. share: of the evidence that it needs, 0 … 1. log_e, threshold: natural logarithms."""

    name: str
    side: str
    log_e: float
    threshold: float
    n: int

    @classmethod
    def of(cls, test: Mapping[str, Any]) -> Claim | None:
        """None where nothing was counted yet."""
        if "logE" not in test or "threshold" not in test:
            return None
        return cls(test["name"], test["side"], float(test["logE"]), float(test["threshold"]), int(test.get("n", 0)))

    @property
    def share(self) -> float:
        return min(1.0, max(0.0, self.log_e / self.threshold)) if self.threshold > 0 else 0.0

    @property
    def shown(self) -> bool:
        return self.log_e >= self.threshold


def claims(status: Mapping[str, Any]) -> list[Claim]:
    """What is to be shown for a promotion, then what would roll back."""
    found = [claim for test in status.get("tests", ()) if (claim := Claim.of(test)) is not None]
    order = list(CLAIMS)
    return sorted(
        (claim for claim in found if claim.name != ALL), key=lambda claim: (order.index(claim.side), claim.name)
    )


def ended(experiment: Object) -> bool:
    """Its verdict is in the log, or it ended before it began."""
    status = experiment.get("status", {})
    recorded = condition(experiment, "Ready").get("reason") == "VerdictRecorded"
    return status.get("phase") in ENDED and (recorded or "evidence" not in status)


class ExperimentView:
    """A running experiment beside the clients that it is about: redrawn on a terminal, a line per change elsewhere."""

    def __init__(self, console: Console, played: Replay) -> None:
        self._console = console
        self._played = played
        self._report: Report = played.client.report()
        self._looked = 0.0
        self._said: tuple[object, ...] = ()

    def follow(self, name: str, states: Iterator[dict[str, Object]]) -> Object:
        """Show the experiment of this name in every state; returns the last."""
        began = time.monotonic()
        last: dict[str, Object] = {}
        if not self._console.is_terminal:
            for last in states:
                self._line(last.get(name, {}), time.monotonic() - began)
            return last[name]

        def drawn() -> RenderableType:
            return self._drawn(last.get(name, {}), time.monotonic() - began)

        with Live(console=self._console, refresh_per_second=4, get_renderable=drawn):
            for last in states:  # noqa: B007 -- the Live display reads it
                pass
        return last[name]

    def _clients(self) -> Report:
        if time.monotonic() - self._looked > EVERY:
            self._report, self._looked = self._played.client.report(), time.monotonic()
        return self._report

    # --- a terminal ----------------------------------------------------------------------------------------------

    def _drawn(self, experiment: Object, seconds: float) -> RenderableType:
        if not experiment:
            return Text("  waiting for the experiment …", style=OLD)
        status = experiment.get("status", {})
        return Group(self._head(experiment, seconds), Text(), *drawn_claims(status), Text(), self._foot(experiment))

    def _head(self, experiment: Object, seconds: float) -> RenderableType:
        status = experiment.get("status", {})
        versions = f"version {challenger(experiment)} against version {champion(experiment)}"
        weight = status.get("weight") or 0
        phase = Text.assemble((versions, "bold"), "  ", (told_phase(status), colour(status)), f"  {duration(seconds)}")
        table = Table(box=None, padding=(0, 2), show_header=False)
        table.add_column(style=OLD)
        table.add_row("step", Text.assemble(*plan(experiment)))
        split = Text.assemble(
            bar(1.0 - weight / 100, OLD, 1), (f" {100 - weight} % champion   ", OLD), bar(weight / 100, NEW, 1),
            (f" {weight} % challenger", NEW),
        )  # fmt: skip
        table.add_row("requests", split)
        table.add_row("the day", f"{self._played.day}, replayed: {clients(self._clients())}")
        return Group(phase, table)

    @staticmethod
    def _foot(experiment: Object) -> RenderableType:
        message = condition(experiment, "Ready").get("message", "")
        return Text.assemble(("  ", ""), (message, "italic"))

    # --- elsewhere -----------------------------------------------------------------------------------------------

    def _line(self, experiment: Object, seconds: float) -> None:
        status = experiment.get("status", {})
        shown = tuple((claim.name, claim.side) for claim in claims(status) if claim.shown)
        now = (status.get("phase"), status.get("step"), status.get("weight"), shown)
        if not status or now == self._said:
            return
        self._said = now
        told = ", ".join(f"{name} {CLAIMS[side]}" for name, side in shown)
        line = (
            f"  {duration(seconds):>12}  {told_phase(status):<14} step {status.get('step') or '-':<8}"
            f" {status.get('weight') or 0:>3} %  {clients(self._clients()):<34} {f'shown: {told}' if told else ''}"
        )
        self._console.print(line.rstrip(), highlight=False, soft_wrap=True)


def drawn_claims(status: Mapping[str, Any]) -> list[RenderableType]:
    """A bar for each claim: full where it is shown."""
    table = Table(box=None, padding=(0, 2), header_style=OLD)
    table.add_column("the challenger …")
    table.add_column("evidence")
    table.add_column("", justify="right")
    table.add_column("from", justify="right", style=OLD)
    for claim in claims(status):
        bad = claim.side in ("Harm", "Watch")
        style = (BAD if bad else GOOD) if claim.shown else NEW
        said = f"{CLAIMS[claim.side]} in {claim.name}"
        word = "shown" if claim.shown else f"{claim.log_e:.1f} of {claim.threshold:.1f}"
        counted = f"{claim.n:,} {'sessions' if claim.side == 'Superiority' else 'blocks'}"
        table.add_row(said, bar(claim.share, style, 1), Text(word, style=style), counted)
    return [table] if table.rows else [Text("  nothing is counted yet", style=OLD)]


def plan(experiment: Object) -> list[tuple[str, str]]:
    """Every step by name, the present one marked."""
    present = experiment.get("status", {}).get("step")
    parts: list[tuple[str, str]] = []
    for step in experiment["spec"]["traffic"]["steps"]:
        share = f"{step['weight']} %" if step.get("weight") else "copies only"
        here = step["name"] == present
        arrow = [(" → ", OLD)] if parts else []
        parts += [*arrow, (f"{'▶ ' if here else ''}{step['name']} ({share})", f"bold {NEW}" if here else OLD)]
    return parts


def told_phase(status: Mapping[str, Any]) -> str:
    return {"RolledBack": "Rolled back"}.get(str(status.get("phase")), str(status.get("phase") or "Starting"))


def colour(status: Mapping[str, Any]) -> str:
    return {"Promoted": GOOD, "RolledBack": BAD, "Holding": "yellow"}.get(str(status.get("phase")), NEW)


def challenger(experiment: Object) -> str:
    return str(experiment["spec"]["challenger"]["version"])


def champion(experiment: Object) -> str:
    return str(experiment.get("status", {}).get("champion", {}).get("version", "?"))


def clients(report: Report) -> str:
    return f"{len(report.sent):,} requests, {len(report.failed):,} failed"
