"""Room on the disk: what earlier contents of the checkout left behind is given up before something large is made."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from sandbox import buildah, cache
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from pathlib import Path

KEPT = 2  # archives of one image name, each of up to 3 GB
ENOUGH = 16_000_000_000  # bytes: every image once more, built, stored and unpacked
LEAST = 4_000_000_000  # bytes: below this not even the largest image alone can be built


def short() -> bool:
    """Whether the cache's disk has less room than a new set of images takes."""
    return _free() < ENOUGH


def tidy() -> None:
    """What is done after every build: a few older contents of each image stay, for who goes back to them."""
    forget_archives(KEPT)
    buildah.tidy()


def ensure(run: Run) -> None:
    """Have room for an image, giving up everything but the latest of each name if need be.

    Raises StepFailed with what is where if there is too little even then.
    """
    if not short():
        return
    run.detail(f"{_free() / 1e9:.0f} GB free: giving up what is no longer needed")
    forget_partials()
    forget_archives(1)
    buildah.tidy(1, stages=True)
    if _free() < LEAST:
        folder = cache.root()
        raise StepFailed(
            f"only {_free() / 1e9:.1f} GB are free where {folder} is, and an image takes up to {LEAST / 1e9:.0f} GB: "
            f"make room there (`du -sh {folder}/*` shows what is ours; all of it can be removed while no sandbox is "
            "up, and is made again when it is needed)"
        )


def forget_archives(keep: int) -> None:
    """Remove all but the latest `keep` archives of each image name: each edit of a Dockerfile leaves one behind."""
    named: dict[str, list[Path]] = {}
    for marker in (cache.root() / "images").glob("*/tag"):
        named.setdefault(marker.read_text().rpartition(":")[0], []).append(marker)
    for same in named.values():
        for old in sorted(same, key=lambda marker: marker.stat().st_mtime)[:-keep]:
            shutil.rmtree(old.parent, ignore_errors=True)


def forget_partials() -> None:
    """Remove what builds left that were killed; not what one is making."""
    for partial in (cache.root() / "images").glob("*.partial"):
        with cache.lock(f"images-{partial.stem}", wait=False) as ours:
            if ours:
                shutil.rmtree(partial, ignore_errors=True)


def _free() -> int:
    folder = cache.root()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
