"""`down`: nothing of a sandbox stays on the machine, in whatever state it was, half-made and half-removed included.

Nearly all goes with the node's first process (see node_init.py). What is left is looked for in the machine itself
rather than in notes: processes by their mark, cgroups by name, the cable by its number, mounts by their place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import cgroups, process, state
from sandbox.kind import Kind
from sandbox.namespaces import Addresses, Namespaces
from sandbox.node_init import FIXED
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

# What the kubelet sets for the whole machine when it starts.
SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def note_machine(directory: Path) -> None:
    """Before the first start: write down the settings that the kubelet will change, and directories that are new."""
    file = directory / "machine.json"
    if file.exists():
        return
    settings = {name: _read(Path("/proc/sys", name)) for name in SYSCTLS}
    state.write(file, {"sysctls": settings, "new": [path for path in FIXED if not Path(path).exists()]})


def remove(name: str, run: Run) -> None:
    """Take down whatever there is of the sandbox called `name`."""
    directory = state.directory(name)
    record = state.read(directory / "sandbox.json")
    if record.get("provider") == "kind":
        run.detail("removing the cluster's containers")
        Kind(name, str(record.get("engine"))).delete()
    run.detail("ending processes")
    end_processes(name, directory)
    if os.geteuid() == 0:
        place = state.read(directory / "network.json").get("place")
        cgroups.remove(name)
        if isinstance(place, int):
            _remove_cable(Addresses(place).interface)
        _unmount_below(directory)
        restore_machine(directory)
    run.detail("removing files")
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        raise StepFailed(
            f"{directory} could not be removed: see what holds it (`ls -la {directory}`) and run `down` again"
        )


def end_processes(name: str, directory: Path) -> None:
    """SIGKILL: what these programs would save on the way out is removed next. Raises StepFailed if one does not end."""
    Namespaces(name, directory).init.kill()
    deadline = time.monotonic() + 15
    while remaining := process.marked(directory):
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise StepFailed(
                f"processes {remaining} do not end on SIGKILL: they wait for a device; see `ps -o pid,stat,wchan`"
            )
        time.sleep(0.02)


def _remove_cable(interface: str) -> None:
    """The kernel removes it with the namespace, a moment after the last process; do not wait for that."""
    path = Path("/sys/class/net", interface)
    deadline = time.monotonic() + 10
    while path.exists() and time.monotonic() < deadline:
        subprocess.run(["ip", "link", "delete", interface], capture_output=True, check=False)
        time.sleep(0.02)


def _unmount_below(directory: Path) -> None:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed(points):
        if point.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)


def restore_machine(directory: Path) -> None:
    """Settings and directories of the machine as they were noted, once no other sandbox needs them."""
    notes = state.read(directory / "machine.json")
    if _hand_over(directory, notes):
        return
    settings: dict[str, str | None] = notes.get("sysctls", {})
    for name, value in settings.items():
        path = Path("/proc/sys", name)
        if value is not None and _read(path) != value:
            with contextlib.suppress(OSError):
                path.write_text(value)
    new: list[str] = notes.get("new", [])
    for path in new:
        with contextlib.suppress(OSError):  # somebody else's files came into it
            Path(path).rmdir()


def _hand_over(directory: Path, notes: Mapping[str, object]) -> bool:
    """Leave the machine to other sandboxes that are there: whoever goes last restores it as the first one found it.

    A directory that is removed here takes along what other nodes have mounted upon it: the kernel detaches mounts in
    all namespaces. Their pods would find their volumes empty from then on.
    """
    mine = directory / "machine.json"
    others = [file for name in state.names() if (file := state.directory(name) / "machine.json") != mine]
    others = [file for file in others if file.exists()]
    began = mine.stat().st_mtime_ns if mine.exists() else 0
    for file in others:
        if notes and file.stat().st_mtime_ns > began:  # it found what this one had changed
            state.write(file, notes)
    return bool(others)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
