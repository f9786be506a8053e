"""The export sink: a folder of a mounted volume, with one file of JSON lines an experiment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Files:
    """Appends lines, and returns when they are on the disk. Blocking: it is called from a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, name: str, lines: Sequence[str]) -> None:
        """``name``: path below the folder, of names of objects only. Raises OSError."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            torn = file.tell() > 0 and not _ends_whole(path)
            file.write(("\n" if torn else "").encode() + "".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())


def _ends_whole(path: Path) -> bool:
    """Whether the last line has its end: a full disk leaves half of one, which must not spoil the next."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
