"""Which files name an image: what its Dockerfile copies and .dockerignore leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox import debian, dockerfile

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """# a comment with FROM nothing
ARG SUITE=trixie
FROM debian:${SUITE}-slim AS build
COPY --chown=1:1 src/a.txt \\
     lib /opt/
RUN echo COPY not /this
COPY ["with space.txt", "/x/"]
FROM build AS test
FROM scratch
COPY --from=build /opt /opt
ADD conf/*.yaml /conf/
"""


def test_instructions_are_read() -> None:
    assert dockerfile.sources(TEXT) == ["src/a.txt", "lib", "with space.txt", "conf/*.yaml"]
    assert dockerfile.bases(TEXT) == ["debian:trixie-slim"]
    assert dockerfile.bases(TEXT, {"SUITE": "bookworm"}) == ["debian:bookworm-slim"]


STAGES = """ARG SUITE=trixie
FROM debian:${SUITE}-slim AS base
FROM base AS dependencies
RUN true
FROM base AS trainer
COPY --from=dependencies /opt /opt
COPY features trainer /app/
FROM trainer AS trainer-test
COPY tests /tests
# The other image of the file.
FROM --platform=linux/amd64 debian:bookworm-slim as server
COPY features server /app/
"""


@pytest.mark.parametrize(
    ("target", "copied", "bases"),
    [
        ("trainer", ["features", "trainer"], ["debian:trixie-slim"]),
        ("trainer-test", ["features", "trainer", "tests"], ["debian:trixie-slim"]),
        ("server", ["features", "server"], ["debian:bookworm-slim"]),
        (None, ["features", "trainer", "tests", "features", "server"], ["debian:trixie-slim", "debian:bookworm-slim"]),
    ],
)
def test_a_target_is_made_from_its_own_stages_only(target: str | None, copied: list[str], bases: list[str]) -> None:
    text = dockerfile.only(STAGES, target)
    assert dockerfile.sources(text) == copied
    assert dockerfile.bases(text) == bases


def test_a_stage_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no stage 'srever': it has base, dependencies, trainer, trainer-test, server"):
        dockerfile.only(STAGES, "srever")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in ("src/a.txt", "src/b.txt", "lib/deep/c.py", "lib/d.pyc", "with space.txt", "conf/e.yaml", "conf/f.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "Dockerfile").write_text(TEXT)
    (tmp_path / ".dockerignore").write_text("**/*.pyc\n")
    return tmp_path


def test_files_are_what_is_copied_and_not_ignored(context: Path) -> None:
    found = [path.relative_to(context).as_posix() for path in dockerfile.files(context, dockerfile.sources(TEXT))]
    assert found == ["conf/e.yaml", "lib/deep/c.py", "src/a.txt", "with space.txt"]


def key(context: Path, **changes: object) -> str:
    given: dict[str, object] = {"target": None, "build_args": {}, "base_keys": ["base"], **changes}
    return dockerfile.key(context / "Dockerfile", context, **given)  # pyright: ignore[reportArgumentType]


def test_the_key_follows_what_is_copied_only(context: Path) -> None:
    before = key(context)
    for unrelated in ("src/b.txt", "lib/d.pyc", "conf/f.txt"):
        (context / unrelated).write_text("changed")
    assert key(context) == before
    assert (
        len({before, key(context, target="build"), key(context, build_args={"A": "1"}), key(context, base_keys=[])})
        == 4
    )
    (context / "lib/deep/c.py").write_text("changed")
    assert key(context) != before


@pytest.mark.parametrize(
    ("rules", "path", "excluded"),
    [
        ("*\n!operator", "operator/fiduciary/app.py", False),
        ("*\n!operator", "README.md", True),
        ("*\n!operator\n**/__pycache__", "operator/x/__pycache__/a.pyc", True),
        ("docs", "docs/a/b.md", True),
        ("docs", "mydocs/a.md", False),
        ("/docs/", "docs/a.md", True),
        ("*.md\n!README.md", "README.md", False),
        ("*.md", "docs/a.md", False),
        ("# *.md", "a.md", False),
        ("a?.txt", "ab.txt", True),
    ],
)
def test_dockerignore(rules: str, path: str, excluded: bool) -> None:
    assert dockerfile.Ignore(rules).excludes(path) is excluded


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("debian:trixie-slim", "trixie"),
        ("docker.io/library/debian:bookworm-slim", "bookworm"),
        ("debian:trixie", None),
        ("python:3.13-slim", None),
        ("debian:sid-slim", None),
    ],
)
def test_base_images_made_here(name: str, suite: str | None) -> None:
    assert debian.suite_of(name) == suite
