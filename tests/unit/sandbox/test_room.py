"""What is given up when the disk fills: never what is being made, never the latest of an image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sandbox import buildah, cache, room
from sandbox.buildah import Stored
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the archives; no real buildah is asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(buildah, "tidy", lambda keep=buildah.KEPT, *, stages=False: None)
    return tmp_path / "fiduciary" / "images"


def archive(images: Path, tag: str, age: int) -> None:
    folder = images / tag.replace("/", "_").replace(":", "_")
    folder.mkdir(parents=True)
    (folder / "tag").write_text(tag)
    os.utime(folder / "tag", (1e9 - age, 1e9 - age))


def left(images: Path) -> set[str]:
    return {marker.read_text() for marker in images.glob("*/tag")}


def free(monkeypatch: pytest.MonkeyPatch, *gigabytes: float) -> None:
    """What the disk has free each time it is asked."""
    answers = [figure * 1e9 for figure in gigabytes]
    monkeypatch.setattr(room, "_free", lambda: answers.pop(0) if len(answers) > 1 else answers[0])


def test_after_a_build_the_latest_archives_of_each_name_stay(images: Path) -> None:
    for age, tag in enumerate(("trainer:c", "trainer:b", "trainer:a", "server:a", "localhost:5000/server:a")):
        archive(images, tag, age)
    room.tidy()
    assert left(images) == {"trainer:c", "trainer:b", "server:a", "localhost:5000/server:a"}


def test_with_room_enough_nothing_is_given_up(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(images, "trainer:b", 0)
    archive(images, "trainer:a", 1)
    free(monkeypatch, 17)
    room.ensure(Run())
    assert left(images) == {"trainer:b", "trainer:a"}


def test_a_full_disk_costs_everything_but_the_latest(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(images, "trainer:b", 0)
    archive(images, "trainer:a", 1)
    for name in ("killed", "making"):
        (images / f"{name}.partial").mkdir()
    free(monkeypatch, 1.5, 1.5, 4.5)
    with cache.lock("images-making"):
        room.ensure(Run())
    assert left(images) == {"trainer:b"}
    assert [folder.name for folder in images.glob("*.partial")] == ["making.partial"]


def test_a_disk_that_stays_full_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1.5)
    with pytest.raises(StepFailed, match=r"only 1\.5 GB are free where .*fiduciary is, .* up to 4 GB: make room"):
        room.ensure(Run())


def test_a_lock_is_shared_among_those_that_build_and_kept_from_who_tidies() -> None:
    with (
        cache.lock("b", shared=True),
        cache.lock("b", shared=True, wait=False) as second,
        cache.lock("b", wait=False) as alone,
    ):
        assert second
        assert not alone
    with cache.lock("b", wait=False) as alone:
        assert alone


def key(letter: str) -> str:
    return buildah.by_content(letter)


def test_contents_that_follow_each_other_are_outdated() -> None:
    """A tag that is a content's key starts no series of its own; one that moved on leaves a content without a name."""
    trainer = [Stored((f"localhost/trainer:{letter}", key(letter)), age) for age, letter in enumerate("abc")]
    dns, before = Stored(("coredns:v1", key("y")), 9), Stored((key("x"),), 8)
    bases = [Stored(("debian:bookworm", key("p")), 0), Stored(("debian:trixie", key("q")), 1)]
    everything = [*trainer, dns, before, *bases]
    assert set(buildah.outdated(everything, 2)) == {trainer[0], before}
    assert set(buildah.outdated(everything, 1)) == {*trainer[:2], before}
