"""Which files an image is made from: read off its Dockerfile and the context's .dockerignore, to name it by content."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING

from sandbox import cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(KEYWORD, arguments) of each instruction, with continued lines joined and comments dropped."""
    pending = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        keyword, _, rest = pending.partition(" ")
        pending = ""
        yield keyword.upper(), rest.strip()


def only(text: str, target: str | None) -> str:
    """The part of a Dockerfile that its stage `target` is made from: that stage and those that it builds or copies on.

    Images of one file are named apart by this: what only the server's stages copy does not rebuild the trainer.
    Raises ValueError for a stage that the file does not have.
    """
    if target is None:
        return text
    stages: list[tuple[str, list[str]]] = [("", [])]  # (name, lines); the first holds what stands before any FROM
    for line in text.splitlines(keepends=True):
        if match := re.match(r"FROM\s+(?:--\S+\s+)*\S+(?:\s+AS\s+(\S+))?\s*$", line, re.IGNORECASE):
            stages.append((match[1] or str(len(stages) - 1), []))
        stages[-1][1].append(line)
    known = {name: "".join(lines) for name, lines in stages}
    if target not in known or not target:
        raise ValueError(f"the Dockerfile has no stage {target!r}: it has {', '.join(filter(None, known))}")
    needed: set[str] = {""}
    open_ends = [target]
    while open_ends:
        name = open_ends.pop()
        if name in known and name not in needed:
            needed.add(name)
            found = re.finditer(r"(?:^FROM\s+(?:--\S+\s+)*|--from=)(\S+)", known[name], re.MULTILINE | re.IGNORECASE)
            open_ends += [match[1] for match in found]
    return "".join(known[name] for name, _ in stages if name in needed)


def bases(text: str, build_args: Mapping[str, str] | None = None) -> list[str]:
    """The images named in FROM that are not stages of the file itself nor `scratch`."""
    defaults = (rest.partition("=") for word, rest in instructions(text) if word == "ARG")
    arguments = {name: value for name, _, value in defaults}
    arguments.update(build_args or {})
    stages: set[str] = set()
    found: list[str] = []
    for keyword, rest in instructions(text):
        if keyword != "FROM":
            continue
        words = [word for word in rest.split() if not word.startswith("--")]
        name = re.sub(r"\$\{?(\w+)\}?", lambda match: arguments.get(match[1], match[0]), words[0])
        if name not in stages and name != "scratch" and name not in found:
            found.append(name)
        if len(words) == 3:
            stages.add(words[2])
    return found


def sources(text: str) -> list[str]:
    """What COPY and ADD take from the context (not from other stages), as written."""
    found: list[str] = []
    for keyword, rest in instructions(text):
        if keyword not in ("COPY", "ADD"):
            continue
        words = [str(word) for word in json.loads(rest)] if rest.startswith("[") else shlex.split(rest)
        if any(word.startswith("--from") for word in words):
            continue
        found += [word for word in words if not word.startswith("--")][:-1]
    return found


class Ignore:
    """A .dockerignore: later patterns win, `!` takes back, a pattern covers everything below what it names."""

    def __init__(self, text: str) -> None:
        lines = (line.strip() for line in text.splitlines())
        self.rules = [
            (line.startswith("!"), self._expression(line.removeprefix("!").strip("/")))
            for line in lines
            if line and not line.startswith("#")
        ]

    @staticmethod
    def _expression(pattern: str) -> re.Pattern[str]:
        parts: list[str] = []
        for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
            special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
            parts.append(special.get(part, re.escape(part)))
        return re.compile("".join(parts) + "(?:/.*)?")

    def excludes(self, path: str) -> bool:
        """Whether a path (relative, with /) is left out of the context."""
        excluded = False
        for negated, expression in self.rules:
            if expression.fullmatch(path):
                excluded = not negated
        return excluded


def files(context: Path, wanted: list[str]) -> list[Path]:
    """The context's files that `wanted` (sources of COPY) covers and .dockerignore leaves, sorted."""
    ignore_file = context / ".dockerignore"
    ignore = Ignore(ignore_file.read_text() if ignore_file.exists() else "")
    found: set[Path] = set()
    for pattern in wanted:
        cleaned = os.path.normpath(pattern.lstrip("/"))
        for top in [context] if cleaned == "." else context.glob(cleaned):
            for file in cache.tree(top):
                if not ignore.excludes(file.relative_to(context).as_posix()):
                    found.add(file)
    return sorted(found)


def key(
    dockerfile: Path, context: Path, target: str | None, build_args: Mapping[str, str], base_keys: list[str]
) -> str:
    """The content hash of an image: two checkouts with equal files have equal keys."""
    text = only(dockerfile.read_text(), target)
    parts: list[str | bytes | Path] = [text, target or "", json.dumps(dict(sorted(build_args.items()))), *base_keys]
    for file in files(context, sources(text)):
        parts += [file.relative_to(context).as_posix(), file]
    return cache.content_key(*parts)
