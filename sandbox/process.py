"""Daemons that outlive the program that started them, and are found again for certain.

Each runs in its own session with a pid file that also holds the process's start time, since the kernel reuses
numbers. Every process carries an environment variable naming its sandbox's directory: one that was started but not
yet written down when its starter was killed is found by it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "FIDUCIARY_SANDBOX"  # environment variable in every process of a sandbox: its state directory
_started: list[subprocess.Popen[bytes]] = []


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process started; None when there is no such process or it has ended.

    A zombie has ended only when its last thread has: until then its files and listening sockets are open, and who is
    started in its place is told that the address is in use.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ended = fields[0] in "ZX" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except OSError:
        return None
    return None if ended else int(fields[19])


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@dataclass(frozen=True)
class Daemon:
    """A program of one sandbox: `name`.pid and `name`.log below `directory`.

    enter: words put before the program, to start it inside namespaces (nsenter stays its parent there).
    """

    name: str
    directory: Path
    enter: tuple[str, ...] = ()

    @property
    def pid_file(self) -> Path:
        return self.directory / "run" / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.directory / "log" / f"{self.name}.log"

    def _recorded(self) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        return record if record.get("boot") == boot_id() else None

    @property
    def argv(self) -> list[str]:
        """The words after `enter` of the last start. Raises ValueError when it was never started on this boot."""
        record = self._recorded()
        if record is None:
            raise ValueError(f"{self.name} was not started: {self.pid_file} does not exist")
        words: list[str] = record["argv"]
        return words[len(self.enter) :]

    @property
    def pid(self) -> int | None:
        """The program's process, or None when it is not running."""
        record = self._recorded()
        if record is None or start_time(record["pid"]) != record["started"]:
            return None
        pid = record["pid"]
        return (children(pid) or [pid])[0] if record["wrapped"] else pid

    @property
    def alive(self) -> bool:
        return self.pid is not None

    def ensure(self, argv: Sequence[str | Path], env: dict[str, str] | None = None, cwd: Path | None = None) -> bool:
        """Have the program running with exactly these words. Returns whether it had to be started."""
        words = [*self.enter, *(str(word) for word in argv)]
        if self.alive:
            record = self._recorded()
            if record is not None and record["argv"] == words:
                return False
            self.stop()
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**(os.environ if env is None else env), MARK: str(self.directory)},
                cwd=cwd or "/",
                start_new_session=True,
            )
        _reap()
        _started.append(process)
        record = {
            "pid": process.pid,
            "started": start_time(process.pid),
            "boot": boot_id(),
            "argv": words,
            "wrapped": bool(self.enter),
        }
        partial = self.pid_file.with_suffix(".partial")
        partial.write_text(json.dumps(record))
        partial.rename(self.pid_file)
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the program itself. Does nothing when it is not running."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, patience: float = 5.0) -> None:
        """SIGTERM, and SIGKILL after `patience` seconds; returns when the process is gone."""
        for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
            self.signal(signal.SIGCONT)
            self.signal(number)
            if self.wait_gone(seconds):
                break
        self.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self.signal(signal.SIGKILL)
        self.wait_gone(10.0)

    def wait_gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.alive:
            _reap()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def tail(self, lines: int = 15) -> str:
        """The end of the log, for messages."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


def _reap() -> None:
    """Collect ended children of this very program, which would stay as zombies while it runs."""
    _started[:] = [process for process in _started if process.poll() is None]


def marked(directory: Path) -> list[int]:
    """Every process whose environment says that it belongs to the sandbox in `directory`, this program excepted."""
    wanted = f"{MARK}={directory}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in variables and start_time(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found
