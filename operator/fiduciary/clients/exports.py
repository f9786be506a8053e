"""The export sink: a folder of a mounted volume, with JSON lines of each experiment in files of a bounded size."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Files:
    """Appends lines, and returns when they are on the disk. Blocking: it is called from a thread.

    A file that has reached ``most`` bytes is never written again, and whoever keeps evidence may move it away: what
    follows ``a.jsonl`` is ``a.2.jsonl``, and so on. Nothing is ever overwritten or removed here.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder = folder
        self.most = most
        self._newest: dict[str, int] = {}

    def append(self, name: str, lines: Sequence[str]) -> None:
        """``name``: path of the first file below the folder, of names of objects only. Raises OSError."""
        path = self._current(name)
        new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            torn = file.tell() > 0 and not _ends_whole(path)
            file.write(("\n" if torn else "").encode() + "".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            _keep(path.parent)

    def _current(self, name: str) -> Path:
        """The newest file of this name, or the one after it where that is full."""
        first = self.folder / name
        number = self._newest.get(name) or _newest(first)
        while _size(_numbered(first, number)) >= self.most:
            number += 1
        self._newest[name] = number
        return _numbered(first, number)


def _numbered(first: Path, number: int) -> Path:
    return first if number == 1 else first.with_name(f"{first.stem}.{number}{first.suffix}")


def _newest(first: Path) -> int:
    """The largest number of a file that is there: those before it may have been moved away."""
    prefix, suffix = f"{first.stem}.", first.suffix
    found = (path.name.removeprefix(prefix).removesuffix(suffix) for path in first.parent.glob(f"{prefix}*{suffix}"))
    return max((int(text) for text in found if text.isdecimal()), default=1)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _keep(folder: Path) -> None:
    """The name of a new file is on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ends_whole(path: Path) -> bool:
    """Whether the last line has its end: a full disk leaves half of one, which must not spoil the next."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
