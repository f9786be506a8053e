"""The sandbox's own branch of the cgroup tree, on machines with version 1 (a tree for each controller) or 2 (one tree).

All pods of a node live below it: whatever escapes every other way of ending it is found, and ended, there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from sandbox.steps import StepFailed

MOUNT = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "memory", "pids")


def version() -> int:
    """2 where the unified tree is mounted at the usual place, else 1."""
    return 2 if (MOUNT / "cgroup.controllers").exists() else 1


def roots(mount: Path = MOUNT) -> list[Path]:
    """The top of each tree. Version 1 has links such as cpu -> cpu,cpuacct, which count once."""
    if (mount / "cgroup.controllers").exists():
        return [mount]
    return sorted(
        path for path in mount.iterdir() if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists()
    )


def branch(name: str) -> str:
    """The path of a sandbox's branch inside each tree, as the kubelet wants it."""
    return f"/fiduciary-{name}"


def create(name: str) -> None:
    """Have the branch in every tree. Raises StepFailed where the kernel does not let pods be accounted for."""
    if version() == 2:
        _delegate()
    for root in roots():
        path = root / branch(name).lstrip("/")
        path.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # Version 1 starts with empty sets, in which nothing may run.
            if version() == 1 and (path / setting).exists() and not (path / setting).read_text().strip():
                (path / setting).write_text((root / setting).read_text())
        # A node of n cores weighs as much as n busy programs outside of it, not as much as one.
        for setting, one in (("cpu.shares", 1024), ("cpu.weight", 100)):
            if (path / setting).exists():
                (path / setting).write_text(str(one * (os.cpu_count() or 1)))


def _delegate() -> None:
    control = MOUNT / "cgroup.subtree_control"
    available = (MOUNT / "cgroup.controllers").read_text().split()
    for controller in available:
        # Some controllers cannot be delegated from here; those that are needed are looked for afterwards.
        with contextlib.suppress(OSError):
            control.write_text(f"+{controller}")
    missing = sorted(set(NEEDED) - set(control.read_text().split()))
    if missing:
        raise StepFailed(
            f"the cgroup controllers {', '.join(missing)} cannot be enabled in {control}: inside a container, start it "
            "with its own cgroup namespace (--cgroupns=private --privileged) or use the machine itself"
        )


def remove(name: str, mount: Path = MOUNT) -> None:
    """End every process in the branch and remove it from every tree. Does nothing when it is not there."""
    for root in roots(mount) if mount.exists() else []:
        top = root / branch(name).lstrip("/")
        deadline = time.monotonic() + 10
        while top.exists():
            paths = [Path(path) for path, _, _ in os.walk(top, topdown=False)]
            for path in paths:
                _end_all(path)
                with contextlib.suppress(OSError):  # busy until its last process is gone
                    path.rmdir()
            if top.exists():
                if time.monotonic() > deadline:
                    raise StepFailed(
                        f"the cgroup {top} still has processes: {_processes(top)}; end them and run `down`"
                    )
                time.sleep(0.02)


def _processes(path: Path) -> list[int]:
    try:
        return [int(word) for word in (path / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _end_all(path: Path) -> None:
    for pid in _processes(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
