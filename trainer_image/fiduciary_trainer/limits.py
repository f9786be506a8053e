"""What the pod may use, by its cgroup: the host may have a hundred cores and a terabyte that are not ours.

Both versions of cgroups: 2 (``cpu.max``, ``memory.max``) and 1 (``cpu.cfs_quota_us``, ``memory.limit_in_bytes``). A
limit of any ancestor holds for us too, so the smallest counts.
"""

from __future__ import annotations

import math
import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNLIMITED = 1 << 60
"""Version 1 writes the largest multiple of a page that it can hold where nothing is limited."""

SPARE = 256 << 20
"""Bytes beyond the limit that may be reserved without being touched: stacks of threads, arenas of the allocator."""


@dataclass(frozen=True)
class Limits:
    """What this process may use.

    Attributes:
        cpus: whole ones, at least 1; the scheduler's affinity where no quota is smaller.
        memory: bytes; None: no limit below the node's own.
    """

    cpus: int
    memory: int | None


def of_pod(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Limits:
    """Read the limits of this process.

    Args:
        root: where the hierarchies are mounted.
        own: the process's place in them, a line a hierarchy: ``ID:controllers:/path``.
    """
    places = _places(own)
    quotas = [*_quotas(root, places), float(len(os.sched_getaffinity(0)))]
    bounds = [bound for bound in _bounds(root, places) if bound < _UNLIMITED]
    return Limits(max(1, math.floor(min(quotas))), min(bounds, default=None))


def keep_within(limits: Limits, *, accelerated: bool) -> None:
    """Threads that read, and memory, stay within the limits. Linear algebra has one thread anyway, for the same bits.

    Args:
        limits: of the pod.
        accelerated: a GPU is used: its driver reserves addresses far beyond the memory, so only the kernel can tell.
    """
    import pyarrow  # not needed by an attempt that only uploads

    pyarrow.set_cpu_count(limits.cpus)
    pyarrow.set_io_thread_count(limits.cpus)
    if not accelerated:
        refuse_beyond(limits.memory)


def refuse_beyond(memory: int | None) -> None:
    """From now on an allocation that the limit could not hold raises MemoryError, which ends in a document.

    The kernel would kill the process only when it touches the memory, and then nobody says what it was doing. What is
    reserved already and was never touched (libraries do that generously) is granted on top, with :data:`SPARE`: small
    allocations are still left to the kernel.

    Args:
        memory: bytes; None: nothing is changed.
    """
    if memory is None:
        return
    untouched = max(0, _status("VmData") - _status("RssAnon"))
    bound = memory + untouched + SPARE
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or bound <= hard:
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def refuse_no_more() -> None:
    """Take the refusal back, so that a process can still say why it ends, and end: that takes memory too."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def peak_memory() -> int:
    """Bytes that were resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def megabytes(count: int) -> str:
    """For messages, in the unit that Kubernetes writes."""
    return f"{count / (1 << 20):,.0f} Mi"


def _places(own: Path) -> dict[str, str]:
    """Controller -> path of our group in its hierarchy; the unified hierarchy (version 2) is the controller ''."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return {"": "/"}
    places: dict[str, str] = {}
    for line in lines:
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            places[name] = path
    return places


def _folders(hierarchy: Path, path: str) -> Iterator[Path]:
    """Our group and its ancestors. In a container the root of the mount is our group, whatever path the host says."""
    place = hierarchy / path.lstrip("/")
    while place != hierarchy:
        yield place
        place = place.parent
    yield hierarchy


def _quotas(root: Path, places: dict[str, str]) -> Iterator[float]:
    for folder in _folders(root, places.get("", "/")):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            yield float(quota) / float(period)  # "max" is no number: no limit
    for folder in _folders(root / "cpu", places.get("cpu", "/")):
        with suppress(OSError):
            quota = float((folder / "cpu.cfs_quota_us").read_text())
            if quota > 0:
                yield quota / float((folder / "cpu.cfs_period_us").read_text())


def _bounds(root: Path, places: dict[str, str]) -> Iterator[int]:
    for hierarchy, name, controller in ((root, "memory.max", ""), (root / "memory", "memory.limit_in_bytes", "memory")):
        for folder in _folders(hierarchy, places.get(controller, "/")):
            with suppress(OSError, ValueError):
                yield int((folder / name).read_text())


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return 0
