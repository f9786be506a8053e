"""Show running steps as live lines on a terminal, and as plain lines elsewhere.

The machine may be fresh: nothing but the standard library is used.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

HEARTBEAT = 30.0  # seconds between signs of life of a long step where lines cannot be rewritten (CI logs)


def duration(seconds: float) -> str:
    """`3.2 s` below a minute, `4 min 07 s` above."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


class Console:
    """Implements steps.Progress. Every ended step keeps one line with its time; running ones are redrawn below."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self.live = self.out.isatty()
        self.running: dict[str, tuple[float, str]] = {}
        self.drawn = 0
        self.spoke: dict[str, float] = {}

    def started(self, step: str) -> None:
        now = time.monotonic()
        self.running[step] = (now, "")
        self.spoke[step] = now
        self._draw()

    def detail(self, step: str, text: str) -> None:
        if step in self.running:
            self.running[step] = (self.running[step][0], text.strip().replace("\n", " "))

    def ended(self, step: str, seconds: float, outcome: str, error: str | None) -> None:
        _, text = self.running.pop(step, (0.0, ""))
        mark = {"done": "\N{CHECK MARK}", "failed": "\N{BALLOT X}"}.get(outcome, "-")
        self._clear()
        shown = f" · {text}" if text else ""
        self._line(f"{mark} {step:<34} {duration(seconds):>12}{shown if outcome == 'done' else ' ' + outcome}")
        self._draw()

    def tick(self) -> None:
        if self.live:
            self._draw()
            return
        now = time.monotonic()
        for step, (began, text) in self.running.items():
            if now - self.spoke[step] >= HEARTBEAT:
                self.spoke[step] = now
                self._line(f"… {step:<34} {duration(now - began):>12}" + (f" · {text}" if text else ""))

    def _line(self, text: str) -> None:
        self.out.write(self._fit(text) + "\n")
        self.out.flush()

    def _fit(self, text: str) -> str:
        width = shutil.get_terminal_size((120, 24)).columns if self.live else 200
        return text if len(text) < width else text[: width - 2] + "…"

    def _clear(self) -> None:
        if self.live and self.drawn:
            self.out.write(f"\x1b[{self.drawn}F\x1b[J")
            self.drawn = 0

    def _draw(self) -> None:
        if not self.live:
            return
        self._clear()
        now = time.monotonic()
        for step, (began, text) in self.running.items():
            spinner = "|/-\\"[int(now * 5) % 4]
            shown = f" · {text}" if text else ""
            self.out.write(self._fit(f"{spinner} {step:<34} {duration(now - began):>12}{shown}") + "\n")
            self.drawn += 1
        self.out.flush()
