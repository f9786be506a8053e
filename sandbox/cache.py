"""Things that take long to make, kept outside the checkout under a hash of everything that they were made from.

An entry is a directory with a `manifest.json` that lists each file's sha256. It is written beside its place and
renamed into it when complete; whoever uses a file gets it only after its hash was compared, so that neither a
half-written entry nor one that somebody changed is ever run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable


def root() -> Path:
    """${XDG_CACHE_HOME:-~/.cache}/fiduciary"""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fiduciary"


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(path: Path) -> str:
    return f"link:{path.readlink()}" if path.is_symlink() else sha256_file(path)


def content_key(*parts: str | bytes | Path) -> str:
    """A hash over strings, bytes, and files or trees (names, modes' executable bit, contents), each with its length.

    The paths' own location does not count: the same tree elsewhere has the same key.
    """
    digest = hashlib.sha256()

    def feed(kind: str, data: bytes) -> None:
        digest.update(f"{kind}:{len(data)}:".encode())
        digest.update(data)

    for part in parts:
        if isinstance(part, Path):
            for file in tree(part):
                relative = file.relative_to(part).as_posix() if file != part else ""
                feed("name", relative.encode())
                if file.is_symlink():
                    feed("link", str(file.readlink()).encode())
                else:
                    feed("mode", b"x" if os.access(file, os.X_OK) else b"-")
                    feed("file", file.read_bytes())
        else:
            feed("text", part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:32]


def tree(path: Path) -> Iterable[Path]:
    """The file itself, or every file below a directory, sorted, without what Python and tools leave behind."""
    if not path.is_dir() or path.is_symlink():
        return [path]
    skipped = {"__pycache__", ".pytest_cache", ".ruff_cache"}
    return sorted(
        file
        for file in path.rglob("*")
        if (file.is_symlink() or file.is_file()) and not skipped & set(file.relative_to(path).parts)
    )


@dataclass(frozen=True)
class Entry:
    """One kept result. `files` maps names to sha256, or to `link:` and where a symbolic link points."""

    directory: Path
    files: dict[str, str]

    def path(self, name: str) -> Path:
        return self.directory / name

    def intact(self) -> bool:
        """Whether every file is what was stored. Reads them all: about 0.3 s for 100 MB."""
        try:
            return all(_fingerprint(self.directory / name) == wanted for name, wanted in self.files.items())
        except OSError:
            return False


def load(kind: str, key: str, *, verify: bool = True) -> Entry | None:
    """The entry, or None when it is missing or is not what was stored.

    verify=False leaves the hashes to a caller that calls `intact` before it uses the files.
    """
    directory = root() / kind / key
    try:
        entry = Entry(directory, json.loads((directory / "manifest.json").read_text()))
    except (OSError, ValueError):
        return None
    return entry if not verify or entry.intact() else None


def obtain(
    kind: str, key: str, make: Callable[[Path], None], *, verify: bool = True, leave: frozenset[str] = frozenset()
) -> Entry:
    """The entry `kind/key`, made by `make(directory)` if it is missing or damaged. Callers at once wait for one.

    leave: files that are not hashed here, since whoever reads them compares hashes of their parts.
    """
    with lock(f"{kind}-{key}"):
        if found := load(kind, key, verify=verify):
            return found
        parent = root() / kind
        parent.mkdir(parents=True, exist_ok=True)
        final, partial = parent / key, parent / f"{key}.partial"
        for leftover in (final, partial):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        make(partial)
        files = {
            file.relative_to(partial).as_posix(): _fingerprint(file) for file in tree(partial) if file.name not in leave
        }
        manifest = partial / "manifest.json"
        manifest.write_text(json.dumps(files, indent=1, sort_keys=True))
        for file in (*(partial / name for name in files), manifest):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        partial.rename(final)
        return Entry(final, files)


@contextlib.contextmanager
def lock(name: str, *, shared: bool = False, wait: bool = True) -> Generator[bool, None, None]:
    """Hold a machine-wide lock; gives whether it is held. It ends with the process, however that ends.

    shared: beside others that share it. wait: else it is not held while another process holds it.
    """
    directory = root() / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / name).open("w") as handle:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
