"""containerd's store of unpacked images, which stays in the cache when a sandbox goes.

Importing all images again would take most of a warm start. Nothing in the store is taken on trust: before containerd
opens it, every file of every layer is compared (name, mode, size, time of change) with what was noted after its
import, and the whole store is thrown away if one differs; pods of an earlier sandbox are removed from its records.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import cache, room, state
from sandbox.archive import Archive, chain_id
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.images import Image
    from sandbox.runtime import Runtime

KEPT = 2  # images of one name, so that going back to the last edit costs nothing


class Store:
    """The images of the node at `place`: nodes that exist at once have different places, later ones the same again."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.root = cache.root() / "containerd" / str(place) / "root"
        self.notes = cache.root() / "containerd" / str(place) / "images.json"

    # -- before containerd starts

    def check(self, run: Run) -> None:
        """Throw the store away unless every layer is as it was noted. For a store that no containerd has open."""
        if not self.root.exists():
            self.notes.unlink(missing_ok=True)
            return
        layers = {folder: known for note in self._images().values() for folder, known in note["layers"].items()}
        if not layers:
            shutil.rmtree(self.root)
            return
        for number, folder in enumerate(sorted(layers), 1):
            run.check()
            run.detail(f"comparing layer {number}/{len(layers)}")
            if fingerprint(self.root / folder) != layers[folder]:
                self.notes.unlink()
                shutil.rmtree(self.root)
                run.detail(f"layer {folder} changed since it was unpacked: importing all images again")
                return
        run.detail(f"{len(layers)} layers as they were")

    def clean(self, runtime: Runtime, run: Run) -> None:
        """Remove from the records what pods of an earlier sandbox left, which the kubelet would take for its own, and
        images whose import was not finished, whose layers nobody noted.
        """
        if not self.root.exists():
            return
        for plugin in self.root.glob("io.containerd.grpc.v1.cri*"):
            shutil.rmtree(plugin)
        runtime.start(run, pods=False)
        containers = runtime.ctr(run, "containers", "list", "-q").split()
        if containers:
            run.detail(f"removing the records of {len(containers)} containers of the last run")
            runtime.ctr(run, "containers", "delete", *containers)
        lines = (line.split() for line in runtime.ctr(run, "snapshots", "list").splitlines()[1:])
        for key in (words[0] for words in lines if words and words[-1] in ("Active", "View")):
            runtime.ctr(run, "snapshots", "remove", key)
        for lease in runtime.ctr(run, "leases", "list", "-q").split():
            runtime.ctr(run, "leases", "delete", lease)
        images = self._images()
        if room.short():
            images = {name: note for name, note in images.items() if name not in outdated(images, name, keep=1)}
            state.write(self.notes, {"images": images})
        whole = {note["digest"] for note in images.values()}
        self._remove_all(lambda digest: digest not in whole, runtime, run)
        runtime.daemon.stop()

    # -- while it runs

    def load(self, image: Image, runtime: Runtime, run: Run) -> None:
        """Have the image in containerd with this content: imported unless it is there."""
        name = reference(image.tag)
        with cache.lock(f"containerd-{self.place}"):
            images = self._images()
            known = images.get(name, {})
            digest = self._listed(runtime, run).get(name)
            if digest and known.get("digest") == digest and known.get("content") == image.key:
                run.detail("there already")
                return
            archive = image.archive(run)
            self._import(archive, name, runtime, run)
            digest = self._listed(runtime, run).get(name)
            if not digest:
                raise StepFailed(f"containerd does not list {name} after importing {archive.path}")
            layers = {folder: fingerprint(self.root / folder) for folder in self._layers(archive, runtime, run)}
            images[name] = {"digest": digest, "content": image.key, "at": time.time(), "layers": layers}
            gone = {images.pop(old)["digest"] for old in outdated(images, name)}
            kept = {note["digest"] for note in images.values()}
            self._remove_all(lambda digest: digest in gone - kept, runtime, run)
            state.write(self.notes, {"images": images})

    def _import(self, archive: Archive, name: str, runtime: Runtime, run: Run) -> None:
        """Import what containerd lacks of the image; all of it, if what it had was collected in the meantime."""
        parcel = self.root.parent / f"import-{os.getpid()}-{time.monotonic_ns()}.tar"
        present = runtime.ctr(run, "content", "list", "-q").split()
        for without in (present, []):
            try:
                run.detail("packing layers")
                size = archive.write(parcel, name, without)
                run.detail(f"importing {size / 1e6:.0f} MB")
                runtime.ctr(run, "images", "import", parcel)
                return
            except StepFailed as error:
                if not without:
                    raise StepFailed(f"{error}\nIf a layer was damaged, remove {archive.path.parent}") from error
            finally:
                parcel.unlink(missing_ok=True)

    def _images(self) -> dict[str, dict[str, Any]]:
        """What is known of each imported image: digest, content, at, and layers (directory -> fingerprint)."""
        return state.read(self.notes).get("images", {})

    def _listed(self, runtime: Runtime, run: Run) -> dict[str, str]:
        """Digests by name. An image has several names: its tag's, as Docker and as others write it, and its ID's."""
        rows = (line.split() for line in runtime.ctr(run, "images", "list").splitlines()[1:])
        return {words[0]: words[2] for words in rows if len(words) > 2}

    def _remove_all(self, wanted: Callable[[str], bool], runtime: Runtime, run: Run) -> None:
        """Remove the images whose digest is `wanted`, with their layers."""
        names = [name for name, digest in self._listed(runtime, run).items() if wanted(digest)]
        if names:
            run.detail(f"removing {len(names)} names of unfinished or outdated images")
            runtime.ctr(run, "images", "remove", "--sync", *names)

    def _layers(self, archive: Archive, runtime: Runtime, run: Run) -> list[str]:
        """The directories (below the root) of an imported image's unpacked layers."""
        top = chain_id(archive.layers)
        view = f"look-{os.getpid()}-{time.monotonic_ns()}"
        said = runtime.ctr(run, "snapshots", "view", "--target=/mnt", view, top)
        # ctr protects a view from the garbage collector by nothing: after another import it may be gone already.
        with contextlib.suppress(StepFailed):
            runtime.ctr(run, "snapshots", "remove", view)
        paths = re.findall(re.escape(f"{self.root}/") + r"[^\s,:=]+", said)
        return sorted({str(Path(path).relative_to(self.root)) for path in paths})


def reference(tag: str) -> str:
    """A tag's full name, as containerd and the kubelet write it.

    >>> reference("fiduciary-mlflow:3.17.2"), reference("ghcr.io/x/y:1")
    ('docker.io/library/fiduciary-mlflow:3.17.2', 'ghcr.io/x/y:1')
    """
    first, slash, _ = tag.partition("/")
    if not slash:
        return f"docker.io/library/{tag}"
    return tag if "." in first or ":" in first or first == "localhost" else f"docker.io/{tag}"


def outdated(images: Mapping[str, Mapping[str, Any]], name: str, keep: int = KEPT) -> list[str]:
    """Which images of the same name as `name` are no longer kept: all but the latest."""
    repository = name.rpartition(":")[0]
    same = [other for other in images if other.rpartition(":")[0] == repository]
    return sorted(same, key=lambda other: float(images[other]["at"]))[:-keep]


def fingerprint(folder: Path) -> str:
    """A hash over every entry below a directory: name, type and mode, owner, size, time of change, link target."""
    digest = hashlib.sha256()
    waiting = [(str(folder), "")]
    while waiting:
        absolute, relative = waiting.pop()
        try:
            entries = sorted(os.scandir(absolute), key=lambda entry: entry.name)
        except OSError:
            return "unreadable"
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            directory = entry.is_dir(follow_symlinks=False)
            # A directory's size and time change when overlayfs merely looks up a whiteout in it; its entries count.
            numbers = (0, 0) if directory else (status.st_size, status.st_mtime_ns)
            line = f"{relative}/{entry.name}\0{status.st_mode}\0{status.st_uid}:{status.st_gid}\0{numbers}"
            digest.update(line.encode("utf-8", "surrogateescape"))
            if directory:
                waiting.append((entry.path, f"{relative}/{entry.name}"))
            elif entry.is_symlink():
                digest.update(str(Path(entry.path).readlink()).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
