"""The step graph: order, overlap, failure, Ctrl-C, resuming. Threads meet at barriers; nothing sleeps for luck."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from sandbox.console import Console, duration
from sandbox.steps import Cancelled, Run, StepFailed, Steps, Uses

SOON = 10.0  # seconds; only ever waited for in full when a test fails


class Recorder:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.details: list[tuple[str, str]] = []

    def started(self, step: str) -> None:
        self.events.append(("started", step))

    def detail(self, step: str, text: str) -> None:
        self.details.append((step, text))

    def ended(self, step: str, seconds: float, outcome: str, error: str | None) -> None:
        self.events.append((outcome, step))

    def tick(self) -> None: ...


def test_a_step_runs_after_everything_that_it_waits_for() -> None:
    steps, ran = Steps(), []
    first = steps.add("first", lambda _run: ran.append("first"))
    second = steps.add("second", lambda _run: ran.append("second"), after=[first])
    steps.add("third", lambda _run: ran.append("third"), after=[first, second])
    steps.run()
    assert ran == ["first", "second", "third"]
    assert set(steps.seconds()) == {"first", "second", "third"}


def test_independent_steps_overlap() -> None:
    steps, together = Steps(), threading.Barrier(3)
    for uses in (Uses.CPU, Uses.IO, Uses.WAIT):
        steps.add(uses.name, lambda _run: together.wait(SOON) and None, uses=uses)
    steps.run()  # a barrier that is not reached by all three breaks, and fails the step


def test_only_one_step_compiles_at_a_time_in_the_order_added() -> None:
    steps, compiling, order = Steps(), threading.Lock(), []

    def compile_one(name: str) -> None:
        assert compiling.acquire(blocking=False), "two compilers at once"
        order.append(name)
        compiling.release()

    for name in ("a", "b", "c", "d"):
        steps.add(name, lambda _run, name=name: compile_one(name), uses=Uses.CPU)
    steps.run()
    assert order == ["a", "b", "c", "d"]


def test_a_failure_stops_what_runs_starts_nothing_more_and_says_where() -> None:
    steps, running = Steps(), threading.Event()
    stopped: list[str] = []

    def waits(run: Run) -> None:
        running.set()
        try:
            run.pause(SOON)
        except Cancelled:
            stopped.append("waits")
            raise

    def fails(_run: Run) -> None:
        running.wait(SOON)
        raise StepFailed("the disk is full: remove something")

    steps.add("waits", waits)
    broken = steps.add("fails", fails)
    steps.add("never", lambda _run: stopped.append("never"), after=[broken])
    recorder = Recorder()
    with pytest.raises(StepFailed, match=r"^fails: the disk is full: remove something$"):
        steps.run(recorder)
    assert stopped == ["waits"]
    assert ("stopped", "waits") in recorder.events
    assert ("failed", "fails") in recorder.events
    assert ("started", "never") not in recorder.events


def test_an_error_that_nobody_expected_keeps_its_type() -> None:
    steps = Steps()
    steps.add("wrong", lambda _run: {}["missing"])
    with pytest.raises(KeyError):
        steps.run()


def test_after_a_failure_the_same_graph_goes_on(tmp_path: Path) -> None:
    made = tmp_path / "made"
    attempts: list[str] = []

    def make(_run: Run) -> None:
        if not made.exists():
            attempts.append("make")
            made.write_text("")

    def use(_run: Run) -> None:
        attempts.append("use")
        if len(attempts) == 2:
            raise StepFailed("not yet")

    def graph() -> Steps:
        steps = Steps()
        steps.add("use", use, after=[steps.add("make", make)])
        return steps

    with pytest.raises(StepFailed):
        graph().run()
    graph().run()
    assert attempts == ["make", "use", "use"]


def test_ctrl_c_stops_every_step_and_is_raised_again() -> None:
    steps, stopped = Steps(), threading.Event()

    class Impatient(Recorder):
        def tick(self) -> None:
            raise KeyboardInterrupt

    def waits(run: Run) -> None:
        try:
            run.pause(SOON)
        finally:
            stopped.set()

    steps.add("waits", waits)
    with pytest.raises(KeyboardInterrupt):
        steps.run(Impatient())
    assert stopped.is_set()


def test_names_are_unique_and_known() -> None:
    steps = Steps()
    steps.add("a", lambda _run: None)
    with pytest.raises(ValueError, match="'a' exists already"):
        steps.add("a", lambda _run: None)
    with pytest.raises(ValueError, match=r"waits for \['z'\]"):
        steps.add("b", lambda _run: None, after=["z"])
    assert "a" in steps
    assert steps.names == ["a"]


def test_a_program_that_fails_is_quoted_with_the_end_of_what_it_said() -> None:
    with pytest.raises(StepFailed, match=r"(?s)exit code 3:\nline 2\n.*line 16$"):
        Run().call(["sh", "-c", "for i in $(seq 16); do echo line $i >&2; done; exit 3"])


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(StepFailed, match="no-such-program: no such program; install it"):
        Run().call(["no-such-program"])


def test_cancelling_ends_a_program_and_its_children(tmp_path: Path) -> None:
    cancelled, pids = threading.Event(), tmp_path / "pids"
    run = Run(cancelled=cancelled)
    script = f"sleep 600 & echo $! > {pids}.partial; mv {pids}.partial {pids}; wait"

    def cancel() -> None:
        while not pids.exists():
            cancelled.wait(0.01)
        cancelled.set()

    helper = threading.Thread(target=cancel)
    helper.start()
    with pytest.raises(Cancelled):
        run.call(["sh", "-c", script])
    helper.join()
    child = int(pids.read_text())
    # The child may stay as a zombie until whoever adopted it looks; it runs no longer.
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_until_says_what_did_not_happen() -> None:
    with pytest.raises(StepFailed, match="rain did not happen within 0 s"):
        Run().until(lambda: False, "rain", seconds=0)


def test_plain_console_tells_the_time_and_outcome_of_each_step() -> None:
    out = io.StringIO()
    console = Console(out)
    console.started("compile")
    console.detail("compile", "3 of 4\n")
    console.ended("compile", 61.2, "done", None)
    console.started("load")
    console.ended("load", 0.25, "failed", "no")
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["✓", "compile", "1", "min", "01", "s", "·", "3", "of", "4"]
    assert lines[1].split() == ["✗", "load", "0.2", "s", "failed"]
    assert "\x1b" not in out.getvalue()


def test_live_console_redraws_running_steps() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    console = Console(out)
    console.started("a")
    console.started("b")
    console.ended("a", 1.0, "done", None)
    assert "\x1b[1F\x1b[J" in out.getvalue()
    assert "\x1b[2F\x1b[J" in out.getvalue()
    assert list(console.running) == ["b"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (425, "7 min 05 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_environment_of_a_program_can_be_given() -> None:
    assert Run().call(["sh", "-c", "echo $X"], env={**os.environ, "X": "y"}) == "y\n"
