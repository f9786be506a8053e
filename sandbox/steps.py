"""Run named steps that depend on each other, overlapping what does not compete for the same part of the machine.

A step's action asks the world whether its work is already done (a cached file with the right hash, a daemon that is
alive), so that a run that was interrupted anywhere is resumed by running the same graph again; nothing here is
written to disk.
"""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Uses(enum.Enum):
    """What a step mostly waits for. The value is how many such steps run at once."""

    CPU = 1  # a compiler takes every core itself
    IO = 3  # downloads, package installation, image layers
    LOAD = 1  # an image into the runtime: the disk is the limit
    WAIT = 64  # waits for another process to become ready


class StepFailed(Exception):
    """A step could not be done. The message says what was seen, what was expected and what to do."""


class Cancelled(Exception):
    """Another step failed, or the user pressed Ctrl-C: this step stops where it is."""


class Progress(Protocol):
    """Where the runner tells what happens. Calls come from several threads, one at a time (under the runner's lock)."""

    def started(self, step: str) -> None: ...
    def detail(self, step: str, text: str) -> None: ...
    def ended(self, step: str, seconds: float, outcome: str, error: str | None) -> None: ...
    def tick(self) -> None: ...


class Silent:
    """Progress for tests and libraries."""

    def started(self, step: str) -> None: ...
    def detail(self, step: str, text: str) -> None: ...
    def ended(self, step: str, seconds: float, outcome: str, error: str | None) -> None: ...
    def tick(self) -> None: ...


class Run:
    """What an action gets: a line to report on, and a way to run programs that end when the run is cancelled."""

    def __init__(self, report: Callable[[str], None] | None = None, cancelled: threading.Event | None = None) -> None:
        self._report = report
        self._cancelled = cancelled or threading.Event()

    def detail(self, text: str) -> None:
        """Show `text` beside the step's name while it runs."""
        if self._report is not None:
            self._report(text)

    def check(self) -> None:
        """Raise Cancelled when the run is over. For loops that wait."""
        if self._cancelled.is_set():
            raise Cancelled

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the run."""
        if self._cancelled.wait(seconds):
            raise Cancelled

    def until(self, condition: Callable[[], bool], what: str, *, seconds: float, every: float = 0.05) -> None:
        """Wait until `condition` holds. Raises StepFailed naming `what` was waited for."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise StepFailed(f"{what} did not happen within {seconds:.0f} s")
            self.pause(every)

    def call(
        self,
        argv: Sequence[str | Path],
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
        log: Path | None = None,
        timeout: float = 3600,
    ) -> str:
        """Run a program and return what it wrote to stdout. Its whole process group ends if the run is cancelled.

        With `log`, stdout and stderr go to that file. Raises StepFailed with the last lines of its output.
        """
        words = [str(word) for word in argv]
        sink = log.open("w") if log else None
        try:
            process = subprocess.Popen(
                words,
                env=env,
                cwd=cwd,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=sink or subprocess.PIPE,
                stderr=subprocess.STDOUT if sink else subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise StepFailed(f"{words[0]}: no such program; install it and run this again") from error
        finally:
            if sink:
                sink.close()
        output: list[str] = ["", ""]

        def communicate() -> None:
            output[0], output[1] = (text or "" for text in process.communicate(stdin))

        reader = threading.Thread(target=communicate, daemon=True)
        reader.start()
        deadline = time.monotonic() + timeout
        while reader.is_alive():
            reader.join(0.05)
            if self._cancelled.is_set() or time.monotonic() > deadline:
                _end_group(process)
                reader.join()
                self.check()
                raise StepFailed(f"`{' '.join(words)}` did not end within {timeout:.0f} s and was stopped")
        if process.returncode != 0:
            said = log.read_text(errors="replace") if log else output[1] or output[0]
            tail = "\n".join(said.strip().splitlines()[-15:])
            raise StepFailed(f"`{' '.join(words)}` ended with exit code {process.returncode}:\n{tail}")
        return output[0]


def _end_group(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(5)
            return
        except subprocess.TimeoutExpired:
            continue


Action = Callable[[Run], None]


@dataclass
class Step:
    """One named piece of work. `after` names steps that must have ended well before."""

    name: str
    action: Action
    after: frozenset[str]
    uses: Uses
    order: int
    seconds: float | None = None


class Steps:
    """A graph of steps, run with as much overlap as `Uses` allows; earlier added steps go first among equals."""

    def __init__(self) -> None:
        self._steps: dict[str, Step] = {}

    def add(self, name: str, action: Action, *, after: Iterable[str] = (), uses: Uses = Uses.WAIT) -> str:
        """Add a step and return its name. Steps named in `after` must have been added before: so no cycle can exist."""
        if name in self._steps:
            raise ValueError(f"a step called {name!r} exists already: give each step its own name")
        needs = frozenset(after)
        if unknown := sorted(needs - self._steps.keys()):
            raise ValueError(f"step {name!r} waits for {unknown}, which were not added before it")
        self._steps[name] = Step(name, action, needs, uses, len(self._steps))
        return name

    def __contains__(self, name: object) -> bool:
        return name in self._steps

    @property
    def names(self) -> list[str]:
        """Every step, in the order in which they were added."""
        return list(self._steps)

    def seconds(self) -> dict[str, float]:
        """How long each step took in the last run, for those that ended."""
        return {step.name: step.seconds for step in self._steps.values() if step.seconds is not None}

    def run(self, progress: Progress | None = None) -> None:
        """Run every step.

        The first failure cancels the others and is raised as StepFailed with the step's name in front.
        KeyboardInterrupt cancels all, waits until they have stopped and is raised again.
        """
        _Execution(self._steps, progress or Silent()).run()


class _Execution:
    def __init__(self, steps: dict[str, Step], progress: Progress) -> None:
        self.waiting = dict(steps)
        self.running: dict[str, threading.Thread] = {}
        self.done: set[str] = set()
        self.failure: tuple[str, BaseException] | None = None
        self.cancelled = threading.Event()
        self.changed = threading.Condition()
        self.busy = dict.fromkeys(Uses, 0)
        self.progress = progress

    def run(self) -> None:
        try:
            with self.changed:
                while self.waiting or self.running:
                    if self.failure is None:
                        self._start_what_can()
                    elif not self.running:
                        break
                    self.changed.wait(0.2)
                    self.progress.tick()
        except KeyboardInterrupt:
            self.cancelled.set()
            for thread in list(self.running.values()):
                thread.join(15)
            raise
        if self.failure is not None:
            name, error = self.failure
            if isinstance(error, StepFailed):
                raise StepFailed(f"{name}: {error}") from error
            raise error

    def _start_what_can(self) -> None:
        for step in sorted(self.waiting.values(), key=lambda step: step.order):
            if step.after <= self.done and self.busy[step.uses] < step.uses.value:
                del self.waiting[step.name]
                self.busy[step.uses] += 1
                thread = threading.Thread(target=self._carry_out, args=(step,), name=step.name, daemon=True)
                self.running[step.name] = thread
                self.progress.started(step.name)
                thread.start()

    def _carry_out(self, step: Step) -> None:
        def report(text: str) -> None:
            with self.changed:
                self.progress.detail(step.name, text)

        began = time.monotonic()
        error: BaseException | None = None
        try:
            step.action(Run(report, self.cancelled))
        except BaseException as caught:
            error = caught
        seconds = time.monotonic() - began
        with self.changed:
            del self.running[step.name]
            self.busy[step.uses] -= 1
            if error is None:
                step.seconds = seconds
                self.done.add(step.name)
                self.progress.ended(step.name, seconds, "done", None)
            elif isinstance(error, Cancelled):
                self.progress.ended(step.name, seconds, "stopped", None)
            else:
                self.failure = self.failure or (step.name, error)
                self.cancelled.set()
                self.progress.ended(step.name, seconds, "failed", str(error))
            self.changed.notify_all()
