"""buildah with a store of its own in the cache directory, not in /var/lib/containers.

Every image has two names there: its tag, which may be given to other content later, and one by its content's key.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox import cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

CONTENT = "localhost/fiduciary-content"
KEPT = 3  # images of one name: they share most of their layers


@dataclass(frozen=True)
class Stored:
    """An image in the store. created: seconds since 1970."""

    names: tuple[str, ...]
    created: int

    @property
    def series(self) -> frozenset[str]:
        """What its contents follow each other under: the name, with the tag unless the content's key is the tag.

        None where its only name is its content's: its tag was given to a later one.
        """
        tagged = [name for name in self.names if not name.startswith(f"{CONTENT}:")]
        cut = [name.rpartition(":") for name in tagged]
        return frozenset(head if by_content(tag) in self.names else f"{head}:{tag}" for head, _, tag in cut)


def words(command: str, *rest: str | Path) -> list[str]:
    """The command line, in a mount namespace of its own: killed halfway, it leaves no mount."""
    store = cache.root() / "buildah"
    storage = ["--root", store / "root", "--runroot", store / "run", "--storage-driver", "overlay"]
    prefix = ["unshare", "--mount", "--propagation", "private", "buildah"]
    return [*prefix, *(str(word) for word in (*storage, command, *rest))]


def env() -> dict[str, str]:
    return {**os.environ, "BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "docker"}


def by_content(key: str) -> str:
    return f"{CONTENT}:{key}"


def exists(name: str) -> bool:
    argv = words("inspect", "--type", "image", name)
    return subprocess.run(argv, env=env(), capture_output=True).returncode == 0


def working() -> AbstractContextManager[bool]:
    """Whoever builds or runs holds this, so that nobody tidies up meanwhile."""
    return cache.lock("buildah", shared=True)


def tidy(keep: int = KEPT, *, stages: bool = False) -> None:
    """Give up all but the latest `keep` images of each series, and what killed builds left.

    stages: also those that images were copied from and not built on, which the next build would make again (minutes for
    what pip installs). Does nothing while another process builds.
    """
    with cache.lock("buildah", wait=False) as alone:
        if not alone or not (cache.root() / "buildah").exists():
            return
        # Nobody builds: a container is of a build or run that was killed.
        _quietly("rm", "--all")
        listed = subprocess.run(words("images", "--json"), env=env(), capture_output=True, text=True)
        with contextlib.suppress(ValueError):
            rows = json.loads(listed.stdout)
            stored = [Stored(tuple(row["names"]), row["created"]) for row in rows if row.get("names")]
            for old in outdated(stored, keep):
                _quietly("rmi", *old.names)
        if stages:
            _quietly("rmi", "--prune")


def outdated(stored: list[Stored], keep: int) -> Iterator[Stored]:
    """The images that are not among the latest `keep` of any of their series."""
    seen: Counter[str] = Counter()
    for image in sorted(stored, key=lambda image: image.created, reverse=True):
        if all(seen[name] >= keep for name in image.series):
            yield image
        seen.update(image.series)


def _quietly(command: str, *rest: str) -> None:
    subprocess.run(words(command, *rest), env=env(), capture_output=True)
