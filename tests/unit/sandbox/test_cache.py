"""Content keys and entries of the cache: same content, same key; nothing damaged or half-written is ever used."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from sandbox import cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fiduciary"


def tree(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_the_key_follows_content_not_place(tmp_path: Path) -> None:
    one, other = tree(tmp_path / "one", a="1", b="2"), tree(tmp_path / "other", a="1", b="2")
    assert cache.content_key("x", one) == cache.content_key("x", other)
    (other / "b").write_text("3")
    assert cache.content_key("x", one) != cache.content_key("x", other)


def test_names_modes_and_borders_count(tmp_path: Path) -> None:
    keys = {
        cache.content_key(tree(tmp_path / "1", a="xy", b="")),
        cache.content_key(tree(tmp_path / "2", a="x", b="y")),
        cache.content_key(tree(tmp_path / "3", a="xy", c="")),
        cache.content_key("a", "b"),
        cache.content_key("ab"),
    }
    runnable = tree(tmp_path / "4", a="xy", b="")
    (runnable / "a").chmod(0o755)
    keys.add(cache.content_key(runnable))
    assert len(keys) == 6


def test_what_python_leaves_behind_does_not_count(tmp_path: Path) -> None:
    folder = tree(tmp_path / "one", a="1")
    before = cache.content_key(folder)
    tree(folder / "__pycache__", junk="x")
    assert cache.content_key(folder) == before


def test_an_entry_is_made_once() -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "program").write_text("1")
        (folder / "link").symlink_to("program")

    first, second = cache.obtain("bin", "k", make), cache.obtain("bin", "k", make)
    assert len(made) == 1
    assert first.directory == second.directory
    assert (second.directory / "link").read_text() == "1"


@pytest.mark.parametrize("damage", ["change", "remove", "manifest", "link"])
def test_a_damaged_entry_is_made_again(damage: str) -> None:
    def make(folder: Path) -> None:
        (folder / "program").write_text("good")
        (folder / "link").symlink_to("program")

    entry = cache.obtain("bin", "k", make)
    if damage == "change":
        entry.path("program").write_text("evil")
    elif damage == "remove":
        entry.path("program").unlink()
    elif damage == "manifest":
        entry.path("manifest.json").write_text('{"progr')
    else:
        entry.path("link").unlink()
        entry.path("link").symlink_to("/bin/sh")
    assert cache.load("bin", "k") is None
    assert cache.obtain("bin", "k", make).path("link").read_text() == "good"


def test_a_large_entry_can_be_found_first_and_verified_on_use() -> None:
    entry = cache.obtain("images", "k", lambda folder: (folder / "tar").write_text("good") and None)
    entry.path("tar").write_text("evil")
    found = cache.load("images", "k", verify=False)
    assert found is not None
    assert not found.intact()


def test_an_interrupted_make_leaves_no_entry(own_cache: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.obtain("bin", "k", interrupted)
    assert cache.load("bin", "k") is None
    entry = cache.obtain("bin", "k", lambda folder: (folder / "whole").write_text("") and None)
    assert set(entry.files) == {"whole"}
    assert [path.name for path in (own_cache / "bin").iterdir()] == ["k"]


def test_callers_at_once_make_one_entry() -> None:
    made: list[int] = []
    together = threading.Barrier(4)

    def caller() -> None:
        together.wait(10)
        cache.obtain("bin", "k", lambda folder: made.append(1) or ((folder / "x").write_text("") and None))

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
