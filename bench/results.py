"""What every benchmark leaves behind: a table on the terminal and `bench/results/NAME.json`."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """The machine without its name: processors, memory, kernel."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpus": os.cpu_count(), "memory_gib": round(pages / 2**30, 1), "kernel": platform.release()}


def versions(*packages: str) -> dict[str, str]:
    return {"python": platform.python_version(), **{package: metadata.version(package) for package in packages}}


def write(
    name: str,
    figures: Mapping[str, float],
    rows: Sequence[Mapping[str, object]],
    used: Mapping[str, str],
) -> Path:
    """Store the figures; returns the file."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    content = {
        "benchmark": name,
        "machine": machine(),
        "versions": dict(used),
        "figures": dict(figures),
        "rows": [dict(row) for row in rows],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows with the columns of the first one."""
    if not rows:
        return
    columns = list(rows[0])
    texts = [[_text(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in texts)) for i, column in enumerate(columns)]
    print(f"\n{title}")
    print("  ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True)))
    for line in texts:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
    sys.stdout.flush()


def progress(text: str) -> None:
    """One line that says what is going on; stderr, so that the table can be piped."""
    print(f"… {text}", file=sys.stderr, flush=True)


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
