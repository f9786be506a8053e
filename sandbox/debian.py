"""The base images `debian:trixie-slim` and `debian:bookworm-slim` where no registry's image can be pulled.

Made by mmdebstrap from Debian's own archive, and tagged with the name that Dockerfiles use, so that the same
Dockerfile builds with Docker and here. Certificates that this machine trusts beyond Debian's own are put where an
organisation's base image has them: package installation inside a build works behind a proxy that replaces TLS.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import cache

if TYPE_CHECKING:
    from sandbox.steps import Run

SUITES = ("trixie", "bookworm")
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PACKAGED = Path("/usr/share/ca-certificates")
# What the official slim images leave out as well.
LEFT_OUT = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    *tuple(f"path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "info", "groff", "lintian")),
)


def suite_of(image: str) -> str | None:
    """`trixie` for debian:trixie-slim in any of its spellings; None for other images."""
    match = re.fullmatch(r"(?:docker\.io/)?(?:library/)?debian:(\w+)-slim", image)
    return match[1] if match and match[1] in SUITES else None


def own_certificates() -> list[str]:
    """PEM blocks in this machine's bundle that no package brought."""

    def blocks(path: Path) -> set[str]:
        text = path.read_text(errors="replace")
        return {block.replace("\r", "") for block in re.findall(r"-----BEGIN.*?-----END CERTIFICATE-----", text, re.S)}

    if not BUNDLE.exists():
        return []
    packaged = {block for path in PACKAGED.rglob("*.crt") for block in blocks(path)}
    return sorted(blocks(BUNDLE) - packaged)


def key(suite: str) -> str:
    """The content hash of a base image. Debian's security updates do not change it: remove the cache to take them."""
    return cache.content_key("mmdebstrap-1", suite, *LEFT_OUT, *own_certificates())


def build(suite: str, run: Run) -> cache.Entry:
    """The root file system as base.tar, made if it is not cached."""

    def bootstrap(directory: Path) -> None:
        certificates = directory / "ca-certificates"
        certificates.mkdir()
        for number, block in enumerate(own_certificates()):
            (certificates / f"machine-{number}.crt").write_text(block + "\n")
        run.detail(f"installing Debian {suite} (minimal)")
        options = [f"--dpkgopt={option}" for option in LEFT_OUT]
        run.call(
            [
                "mmdebstrap",
                "--mode=root",
                "--variant=minbase",
                '--aptopt=Acquire::Retries "5"',
                *options,
                f"--customize-hook=copy-in {certificates} /usr/local/share",
                suite,
                directory / "base.tar",
            ]
        )

    return cache.obtain("base", key(suite), bootstrap, verify=False)
