"""containerd's store of unpacked images, which stays in the cache when a sandbox goes.

Importing all images again would take most of a warm start. Nothing in the store is taken on trust: before containerd
opens it, every file of every layer is compared (name, mode, size, time of change) with what was noted after its
import, and the whole store is thrown away if one differs; pods of an earlier sandbox are removed from its records.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import cache, state
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from sandbox.images import Image
    from sandbox.runtime import Runtime

KEPT = 3  # images of one name, so that going back to the last edit costs nothing


class Store:
    """The images of the node at `place`: nodes that exist at once have different places, later ones the same again."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.root = cache.root() / "containerd" / str(place) / "root"
        self.notes = cache.root() / "containerd" / str(place) / "notes.json"

    # -- before containerd starts

    def check(self, run: Run) -> None:
        """Throw the store away unless every layer is as it was noted. For a store that no containerd has open."""
        layers = self._noted("layers")
        if not self.root.exists():
            self.notes.unlink(missing_ok=True)
            return
        for number, folder in enumerate(sorted(layers)):
            run.check()
            run.detail(f"comparing layer {number + 1}/{len(layers)}")
            if fingerprint(self.root / folder) != layers[folder]:
                run.detail(f"layer {folder} changed since it was unpacked: importing all images again")
                self.notes.unlink()
                shutil.rmtree(self.root)
                return
        run.detail(f"{len(layers)} layers as they were")

    def forget_pods(self, runtime: Runtime, run: Run) -> None:
        """Remove what pods of an earlier sandbox left in the records; the kubelet would take them for its own."""
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
        runtime.daemon.stop()

    # -- while it runs

    def load(self, image: Image, runtime: Runtime, run: Run) -> None:
        """Have the image in containerd with this content: imported unless it is there."""
        name = reference(image.tag)
        with cache.lock(f"containerd-{self.place}"):
            note = self._noted("images").get(name)
            digest = self._digest(name, runtime, run)
            known = json.loads(note) if note else {}
            if digest and known.get("digest") == digest and known.get("content") == image.key:
                run.detail("there already")
                return
            archive = image.archive()
            run.detail(f"importing {archive.stat().st_size / 1e6:.0f} MB")
            runtime.ctr(run, "images", "import", archive)
            digest = self._digest(name, runtime, run)
            if not digest:
                raise StepFailed(f"containerd does not list {name} after importing {archive}")
            layers = {folder: fingerprint(self.root / folder) for folder in self._layers(archive, runtime, run)}
            images = self._noted("images")
            images[name] = json.dumps({"digest": digest, "content": image.key, "at": time.time()})
            for old in outdated(images, name):
                runtime.ctr(run, "images", "remove", old)
                del images[old]
            present = {f: note for f, note in self._noted("layers").items() if (self.root / f).exists()}
            state.write(self.notes, {"images": images, "layers": {**present, **layers}})

    def _noted(self, what: str) -> dict[str, str]:
        notes = state.read(self.notes).get(what)
        return {str(key): str(value) for key, value in notes.items()} if isinstance(notes, dict) else {}

    def _digest(self, name: str, runtime: Runtime, run: Run) -> str:
        for line in runtime.ctr(run, "images", "list", f"name=={name}").splitlines()[1:]:
            words = line.split()
            if words[0] == name:
                return words[2]
        return ""

    def _layers(self, archive: Path, runtime: Runtime, run: Run) -> list[str]:
        """The directories (below the root) of an imported image's unpacked layers."""
        top = chain_id(diff_ids(archive))
        view = f"look-{os.getpid()}-{time.monotonic_ns()}"
        said = runtime.ctr(run, "snapshots", "view", "--target=/mnt", view, top)
        # ctr protects a view from the garbage collector by nothing: after another import it may be gone already.
        with contextlib.suppress(StepFailed):
            runtime.ctr(run, "snapshots", "remove", view)
        return sorted(
            {
                str(Path(part).relative_to(self.root))
                for word in said.replace(",", " ").replace("=", " ").replace(":", " ").split()
                for part in [word]
                if part.startswith(f"{self.root}/")
            }
        )


def reference(tag: str) -> str:
    """A tag's full name, as containerd and the kubelet write it.

    >>> reference("fiduciary-mlflow:3.17.2"), reference("ghcr.io/x/y:1")
    ('docker.io/library/fiduciary-mlflow:3.17.2', 'ghcr.io/x/y:1')
    """
    first, slash, _ = tag.partition("/")
    if not slash:
        return f"docker.io/library/{tag}"
    return tag if "." in first or ":" in first or first == "localhost" else f"docker.io/{tag}"


def outdated(images: dict[str, str], name: str) -> list[str]:
    """Which images of the same name as `name` are no longer kept: all but the latest."""
    repository = name.rpartition(":")[0]
    same = [other for other in images if other.rpartition(":")[0] == repository]
    return sorted(same, key=lambda other: float(json.loads(images[other])["at"]))[:-KEPT]


def diff_ids(archive: Path) -> list[str]:
    """The digests of an image's unpacked layers, from its docker-archive."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        config = tar.extractfile(json.load(manifest)[0]["Config"])
        assert config is not None
        return [str(digest) for digest in json.load(config)["rootfs"]["diff_ids"]]


def chain_id(digests: list[str]) -> str:
    """The name of the snapshot that results from these layers (OCI image specification, ChainID)."""
    chain = digests[0]
    for digest in digests[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {digest}".encode()).hexdigest()
    return chain


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
