"""Build the project's Dockerfiles, once per content: with the machine's container engine, else with buildah.

    image = images.build("fiduciary-trainer:dev", Path("trainer_image/Dockerfile"), Path("."), target="trainer")
    images.run(image, ["python3", "-c", "import torch"], mounts={data: "/data"})

Without an engine, layers are kept in the cache directory (not in /var/lib/containers), and the finished image as an
uncompressed docker-archive: see archive.py for how it is checked on use.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tarfile
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox import cache, debian, dockerfile
from sandbox.archive import Archive
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

LABEL = "dev.fiduciary.content"  # on images of a container engine: the content key
KEPT = 3  # archives of one image name


@dataclass(frozen=True)
class Image:
    """A built image. entry: where its archive is; None when a container engine holds it."""

    tag: str
    key: str
    entry: cache.Entry | None

    def archive(self, run: Run) -> Archive:
        """The image's archive; raises StepFailed when it does not hold the configuration that was built.

        The configuration names the layers by their hashes, which are compared by whoever unpacks them.
        """
        entry = self.entry or self._saved(run)
        try:
            found = Archive(entry.path("image.tar"))
            if entry.intact() and entry.path("config").read_text() == found.config_digest:
                return found
        except (OSError, tarfile.TarError, KeyError, ValueError):
            pass
        self.discard()
        raise StepFailed(f"the cached archive of {self.tag} was damaged and has been removed; run this again")

    def discard(self) -> None:
        """Remove the cached archive."""
        if self.entry is not None:
            shutil.rmtree(self.entry.directory, ignore_errors=True)

    def _saved(self, run: Run) -> cache.Entry:
        """The archive of an image that a container engine holds (the provider `node` on a machine with Docker)."""
        program = str(engine())

        def save(directory: Path) -> None:
            run.call([program, "save", "--output", directory / "image.tar", self.tag])
            _describe(directory, self.tag)

        return _obtain(cache.content_key(self.key, self.tag, program), save)


@functools.cache
def engine() -> str | None:
    """The first of docker, podman and nerdctl that is installed and answers; None where none does."""
    for program in ("docker", "podman", "nerdctl"):
        if shutil.which(program):
            try:
                answer = subprocess.run([program, "info"], capture_output=True, timeout=20)
            except subprocess.TimeoutExpired:
                continue
            if answer.returncode == 0:
                return program
    return None


def key(path: Path, context: Path, target: str | None = None, build_args: Mapping[str, str] | None = None) -> str:
    """The content key that `build` would use: known before building, good for a tag."""
    bases = dockerfile.bases(dockerfile.only(path.read_text(), target), build_args)
    suites = [suite for base in bases if (suite := debian.suite_of(base))]
    return dockerfile.key(path, context, target, build_args or {}, [debian.key(suite) for suite in suites])


def build(
    tag: str,
    path: Path,
    context: Path,
    *,
    target: str | None = None,
    build_args: Mapping[str, str] | None = None,
    run: Run | None = None,
) -> Image:
    """The image of the Dockerfile `path` (its stage `target`) called `tag`, built unless it exists with this content.

    Raises StepFailed with the end of the build's output.
    """
    run = run or Run()
    content = key(path, context, target, build_args)
    options = ["-t", tag, *(["--target", target] if target else [])]
    options += [word for name, value in (build_args or {}).items() for word in ("--build-arg", f"{name}={value}")]
    if program := engine():
        return _build_with(program, tag, content, ["-f", str(path), *options], context, run)

    def make(directory: Path) -> None:
        text = dockerfile.only(path.read_text(), target)
        for base in dockerfile.bases(text, build_args):
            provide_base(base, run)
        # buildah of Debian 12 would build every stage that stands before the target.
        (directory / "Dockerfile").write_text(text)
        run.detail(f"building {tag}")
        log = cache.root() / "logs" / f"image-{tag.replace('/', '_').replace(':', '_')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        options.extend(["-f", str(directory / "Dockerfile"), "-t", _by_content(content)])
        run.call(buildah("bud", "--network=host", "--layers", "--pull-never", *options, context), env=_env(), log=log)
        run.detail(f"storing {tag}")
        run.call(buildah("push", tag, f"docker-archive:{directory / 'image.tar'}:{tag}"), env=_env())
        _describe(directory, tag)

    entry = _obtain(cache.content_key(content, tag), make)
    _prune(tag, entry)
    return Image(tag, content, entry)


def _obtain(content: str, make: Callable[[Path], None]) -> cache.Entry:
    return cache.obtain("images", f"{content}-2", make, verify=False, leave=frozenset({"image.tar"}))


def _describe(directory: Path, tag: str) -> None:
    (directory / "tag").write_text(tag)
    (directory / "config").write_text(Archive(directory / "image.tar").config_digest)


def _build_with(program: str, tag: str, content: str, options: list[str], context: Path, run: Run) -> Image:
    wanted = '{{ index .Config.Labels "' + LABEL + '" }}'
    found = subprocess.run([program, "image", "inspect", "-f", wanted, tag], capture_output=True, text=True)
    if found.stdout.strip() != content:
        run.detail(f"building {tag} with {program}")
        run.call([program, "build", "--label", f"{LABEL}={content}", *options, context])
    return Image(tag, content, None)


def provide_base(name: str, run: Run) -> None:
    """Have a base image in buildah's store: Debian's from its archive, others from their registry."""
    suite = debian.suite_of(name)
    if suite is None:
        run.call(buildah("pull", name), env=_env())
        return
    content = debian.key(suite)
    tag = f"docker.io/library/debian:{suite}-slim"
    with cache.lock(f"base-image-{suite}"):
        marker = _by_content(content)
        if _exists(marker):
            return
        entry = debian.build(suite, run)
        if not entry.intact():
            shutil.rmtree(entry.directory)
            entry = debian.build(suite, run)
        context = cache.root() / "tmp" / f"base-{suite}"
        context.mkdir(parents=True, exist_ok=True)
        scratch = context / "Dockerfile"
        scratch.write_text('FROM scratch\nADD base.tar /\nCMD ["bash"]\n')
        archive = context / "base.tar"
        archive.unlink(missing_ok=True)
        archive.hardlink_to(entry.path("base.tar"))
        run.detail(f"storing {tag}")
        run.call(buildah("bud", "-t", tag, "-t", marker, "-f", scratch, context), env=_env())
        shutil.rmtree(context)


def run(
    image: Image,
    argv: Sequence[str | Path],
    *,
    mounts: Mapping[Path, str] | None = None,
    env: Mapping[str, str] | None = None,
    workdir: str | None = None,
    user: str | None = None,
    timeout: float = 600,
    progress: Run | None = None,
) -> str:
    """Run `argv` inside the image and return its stdout. mounts: directory of this machine -> path inside.

    The image's entrypoint is not used. Raises StepFailed when it ends with another code than 0.
    """
    progress = progress or Run()
    volumes = [word for source, target in (mounts or {}).items() for word in ("-v", f"{source}:{target}")]
    options = [*volumes, *(f"--env={name}={value}" for name, value in (env or {}).items())]
    options += [f"--workdir={workdir}"] if workdir else []
    options += [f"--user={user}"] if user else []
    if program := engine():
        words = [program, "run", "--rm", "--network=host", *options, f"--entrypoint={argv[0]}", image.tag, *argv[1:]]
        return progress.call(words, timeout=timeout)
    stored = _by_content(image.key)
    if not _exists(stored):
        progress.call(buildah("pull", f"docker-archive:{image.archive(progress).path}"), env=_env())
        progress.call(buildah("tag", image.tag, stored), env=_env())
    container = f"run-{uuid.uuid4().hex[:12]}"
    progress.call(buildah("from", "--pull-never", f"--name={container}", stored), env=_env())
    try:
        return progress.call(buildah("run", *options, container, "--", *argv), env=_env(), timeout=timeout)
    finally:
        subprocess.run(buildah("rm", container), env=_env(), capture_output=True)


def _by_content(content: str) -> str:
    """A second name in buildah's store: the first may have been given to other content since."""
    return f"localhost/fiduciary-content:{content}"


def buildah(*words: str | Path) -> list[str]:
    """buildah with a store of its own, in a mount namespace of its own: killed halfway, it leaves no mount."""
    store = cache.root() / "buildah"
    storage = ["--root", store / "root", "--runroot", store / "run", "--storage-driver", "overlay"]
    prefix = ["unshare", "--mount", "--propagation", "private", "buildah"]
    command, *rest = words
    return [*prefix, *(str(word) for word in (*storage, command, *rest))]


def _env() -> dict[str, str]:
    return {**os.environ, "BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "docker"}


def _exists(tag: str) -> bool:
    words = buildah("inspect", "--type", "image", tag)
    return subprocess.run(words, env=_env(), capture_output=True).returncode == 0


def _prune(tag: str, newest: cache.Entry) -> None:
    """Remove all but the latest archives of the same image name: each edit of a Dockerfile leaves one behind."""
    name = tag.rpartition(":")[0]
    (newest.directory / "tag").touch()
    same = [
        marker for marker in (cache.root() / "images").glob("*/tag") if marker.read_text().rpartition(":")[0] == name
    ]
    for old in sorted(same, key=lambda marker: marker.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old.parent, ignore_errors=True)
