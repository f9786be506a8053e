"""Build the project's Dockerfiles, once per content: with the machine's container engine, else with buildah.

    image = images.build("fiduciary-trainer:dev", Path("trainer_image/Dockerfile"), Path("."), target="trainer")
    images.run(image, ["python3", "-c", "import torch"], mounts={data: "/data"})

Without an engine, layers are kept in the cache directory (not in /var/lib/containers). A node is given an image as an
uncompressed docker-archive, which is made when one first asks for it: see archive.py for how it is checked on use.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import tarfile
import tempfile
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox import buildah, cache, debian, dockerfile, room
from sandbox.archive import Archive
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LABEL = "dev.fiduciary.content"  # on images of a container engine: the content key


@dataclass(frozen=True)
class Image:
    """A built image, in the store of the container engine or of buildah."""

    tag: str
    key: str

    def archive(self, run: Run) -> Archive:
        """The image's archive; raises StepFailed when it does not hold the configuration that was built.

        The configuration names the layers by their hashes, which are compared by whoever unpacks them.
        """
        entry = self._saved(run)
        with contextlib.suppress(OSError, tarfile.TarError, KeyError, ValueError):
            found = Archive(entry.path("image.tar"))
            if entry.intact() and entry.path("config").read_text() == found.config_digest:
                # How lately an archive was wanted decides which of a name are given up first.
                entry.path("tag").touch()
                return found
        shutil.rmtree(entry.directory, ignore_errors=True)
        raise StepFailed(f"the cached archive of {self.tag} was damaged and has been removed; run this again")

    def _saved(self, run: Run) -> cache.Entry:
        """The archive in the cache, made unless it is there."""
        program = engine()

        def save(directory: Path) -> None:
            run.detail(f"storing {self.tag}")
            archive = directory / "image.tar"
            if program is not None:
                run.call([program, "save", "--output", archive, self.tag])
            else:
                room.ensure(run)
                with buildah.working():
                    target = f"docker-archive:{archive}:{self.tag}"
                    run.call(buildah.words("push", buildah.by_content(self.key), target), env=buildah.env())
            (directory / "tag").write_text(self.tag)
            (directory / "config").write_text(Archive(archive).config_digest)

        content = cache.content_key(self.key, self.tag, *([program] if program else []))
        return cache.obtain("images", f"{content}-3", save, verify=False, leave=frozenset({"image.tar"}))


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

    with cache.lock(f"image-{content}"):
        if not buildah.exists(buildah.by_content(content)):
            text = dockerfile.only(path.read_text(), target)
            for base in dockerfile.bases(text, build_args):
                provide_base(base, run)
            room.ensure(run)
            run.detail(f"building {tag}")
            _build(tag, text, [*options, "-t", buildah.by_content(content), str(context)], run)
            room.tidy()
    return Image(tag, content)


def _build(tag: str, text: str, options: list[str], run: Run) -> None:
    log = cache.root() / "logs" / f"image-{tag.replace('/', '_').replace(':', '_')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with buildah.working(), tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        # buildah of Debian 12 would build every stage that stands before the target: `text` has none of them.
        file.write(text)
        file.flush()
        words = buildah.words("bud", "--network=host", "--layers", "--pull-never", "-f", file.name, *options)
        run.call(words, env=buildah.env(), log=log)


def _build_with(program: str, tag: str, content: str, options: list[str], context: Path, run: Run) -> Image:
    wanted = '{{ index .Config.Labels "' + LABEL + '" }}'
    found = subprocess.run([program, "image", "inspect", "-f", wanted, tag], capture_output=True, text=True)
    if found.stdout.strip() != content:
        run.detail(f"building {tag} with {program}")
        run.call([program, "build", "--label", f"{LABEL}={content}", *options, context])
    return Image(tag, content)


def provide_base(name: str, run: Run) -> None:
    """Have a base image in buildah's store: Debian's from its archive, others from their registry."""
    suite = debian.suite_of(name)
    if suite is None:
        with buildah.working():
            run.call(buildah.words("pull", name), env=buildah.env())
        return
    content = debian.key(suite)
    tag = f"docker.io/library/debian:{suite}-slim"
    with cache.lock(f"base-image-{suite}"):
        marker = buildah.by_content(content)
        if buildah.exists(marker):
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
        with buildah.working():
            run.call(buildah.words("bud", "-t", tag, "-t", marker, "-f", scratch, context), env=buildah.env())
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
    container = f"run-{uuid.uuid4().hex[:12]}"
    with buildah.working():
        start = buildah.words("from", "--pull-never", f"--name={container}", buildah.by_content(image.key))
        progress.call(start, env=buildah.env())
        try:
            words = buildah.words("run", *options, container, "--", *argv)
            return progress.call(words, env=buildah.env(), timeout=timeout)
        finally:
            subprocess.run(buildah.words("rm", container), env=buildah.env(), capture_output=True)
