"""What somebody who watches a terminal sees: chapters, commands as typed with their output, and models that train."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sandbox.console import duration
from sandbox.kubectl import Kubectl, Object, is_true

if TYPE_CHECKING:
    from collections.abc import Iterator


class Story:
    """What the user sees: chapters with the time that each took, commands as typed, and their real output."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()
        self.chapters: list[tuple[str, float]] = []

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        number = len(self.chapters) + 1
        self.console.print()
        self.console.rule(f"[bold]{number}. {title}[/]", align="left", style="bright_black")
        began = time.monotonic()
        yield
        self.chapters.append((title, time.monotonic() - began))
        self.console.print(Text(f"{duration(time.monotonic() - began)}", style="bright_black"), justify="right")

    def say(self, text: str) -> None:
        self.console.print(Padding(text, (0, 0, 0, 2)))

    def quote(self, text: str) -> None:
        """What an object or an answer says, word for word."""
        self.console.print(Padding(Text(text, style="italic"), (0, 0, 0, 4)))

    def show(self, what: RenderableType) -> None:
        self.console.print(Padding(what, (1, 0, 1, 0)))

    def command(self, kubectl: Kubectl, *words: str, stdin: str | None = None) -> str:
        """Type it, run it, show what it said."""
        typed = "kubectl " + " ".join(words) + (" <<EOF" if stdin else "")
        self.console.print(Text.assemble(("$ ", "green"), (typed, "bold")), soft_wrap=True)
        if stdin:
            self.console.print(stdin + "EOF", highlight=False, markup=False, soft_wrap=True)
        said = kubectl(*words, stdin=stdin)
        # Tables of kubectl are wider than some terminals; folding them would spoil the columns.
        self.console.print(said.rstrip(), highlight=False, markup=False, soft_wrap=True)
        return said

    def summary(self) -> None:
        self.console.print()
        table = Table(show_header=False, box=None, padding=(0, 2))
        for title, seconds in self.chapters:
            table.add_row(title, Text(duration(seconds), justify="right"))
        table.add_row(
            "[bold]all of it[/]", Text(duration(time.monotonic() - self.began), justify="right", style="bold")
        )
        self.console.print(table)


class TrainingView:
    """Models that train: bars where the terminal can redraw, a line per change elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.said: dict[str, str] = {}

    def follow(self, states: Iterator[dict[str, Object]]) -> dict[str, Object]:
        """Show every state; returns the last."""
        began, last = time.monotonic(), {}
        if not self.console.is_terminal:
            for last in states:
                self._lines(last, time.monotonic() - began)
            return dict(last)
        with Live(console=self.console, refresh_per_second=8, get_renderable=lambda: self._table(last, began)):
            for last in states:  # noqa: B007 -- the Live display reads it
                pass
        return dict(last)

    def _table(self, models: dict[str, Object], began: float) -> RenderableType:
        table = Table(box=None, padding=(0, 2), header_style="bright_black")
        for column in ("model", "phase", "", "", ""):
            table.add_column(column)
        for name, model in sorted(models.items()):
            phase, percent, detail = describe(model)
            bar = ProgressBar(total=100, completed=percent, width=30) if percent is not None else ""
            style = "green" if is_true(model, "GatesPassed") else "red" if phase == "Refused" else "cyan"
            shown = f"{percent} %" if percent is not None else ""
            table.add_row(f"[bold]{name}[/]", f"[{style}]{phase}[/]", bar, shown, Text(detail, style="bright_black"))
        return Group(table, Text(f"  {duration(time.monotonic() - began)}", style="bright_black"))

    def _lines(self, models: dict[str, Object], seconds: float) -> None:
        for name, model in models.items():
            phase, percent, detail = describe(model)
            tens = "" if percent is None else f"{percent // 10 * 10} %"
            if self.said.get(name) != f"{phase} {tens}":
                self.said[name] = f"{phase} {tens}"
                self.console.print(
                    f"  {duration(seconds):>12}  {name:<16} {phase:<12} {tens:>5}  {detail}",
                    highlight=False,
                    soft_wrap=True,
                )


def describe(model: Object) -> tuple[str, int | None, str]:
    """Phase, percent of a running training, and what else its status says about it."""
    status = model.get("status", {})
    training = status.get("training") or {}
    progress = training.get("progress") or {}
    phase = str(status.get("phase") or "Pending")
    if phase != "Training" and not training:
        return phase, None, ""
    words: list[str] = [str(training.get("phase") or "")]
    if "epochs" in progress:
        words.append(f"epoch {progress.get('epoch', 0)}/{progress['epochs']}")
    if metric := progress.get("lastMetric"):
        words.append(f"{metric['name']} {metric['value']}")
    if progress.get("etaSeconds"):
        words.append(f"about {duration(progress['etaSeconds'])} left")
    return phase, progress.get("percent"), " · ".join(word for word in words if word)
