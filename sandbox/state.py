"""Where a sandbox keeps what belongs to this machine only: outside the checkout, one directory per name."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

DEFAULT_NAME = "fiduciary"
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def root() -> Path:
    """/var/lib/fiduciary/sandbox for root, else ${XDG_STATE_HOME:-~/.local/state}/fiduciary/sandbox.

    Short on purpose: sockets below it must stay under 108 characters.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/fiduciary/sandbox")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "fiduciary" / "sandbox"


def directory(name: str) -> Path:
    """The state directory of the sandbox called `name`. Raises StepFailed for a name that cannot be one."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?", name):
        raise StepFailed(
            f"{name!r} cannot name a sandbox: use 1 to 31 lower-case letters, digits and dashes, starting with a letter"
        )
    return root() / name


def names() -> list[str]:
    """Every sandbox that has state on this machine."""
    return sorted(path.parent.name for path in root().glob("*/sandbox.json"))


def read(path: Path) -> dict[str, Any]:
    """A JSON object from `path`; empty when it is missing or was cut off."""
    try:
        value: object = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def write(path: Path, value: Mapping[str, object]) -> None:
    """Replace a JSON file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True))
    partial.rename(path)


def ports(path: Path, wanted: list[str]) -> dict[str, int]:
    """Free TCP ports by purpose, remembered in `path` so that a resumed sandbox keeps its addresses.

    None that the kernel gives to clients: while a server is away, one of its clients that tries again and again would
    sooner or later be given the server's own port, connect to itself, and keep the server from coming back.
    """
    known = {name: port for name, port in read(path).items() if isinstance(port, int)}
    for name in wanted:
        if name not in known:
            known[name] = _free(set(known.values()))
    write(path, dict(known))
    return known


def _free(taken: set[int]) -> int:
    try:
        lowest = int(EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        lowest = 32768
    for port in random.sample(range(10_000, lowest), 200):
        if port not in taken:
            with contextlib.suppress(OSError), socket.socket() as listener:
                listener.bind(("127.0.0.1", port))
                return port
    raise StepFailed(f"no free TCP port between 10000 and {lowest} in 200 tries: what listens there? (ss -tln)")


def _lock(name: str) -> Path:
    return root() / f".{name}.lock"


def forget_lock(name: str) -> None:
    """Remove what `exclusive` leaves, and the directories above if they hold nothing else."""
    _lock(name).unlink(missing_ok=True)
    for parent in (root(), root().parent):
        with contextlib.suppress(OSError):
            parent.rmdir()


@contextlib.contextmanager
def exclusive(name: str) -> Generator[None, None, None]:
    """Only one `up` or `down` works on a sandbox. The lock ends with its process, however that ends."""
    path = _lock(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise StepFailed(
                f"another command (process {holder}) is working on sandbox {name!r}: wait until it ends, or end it"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
