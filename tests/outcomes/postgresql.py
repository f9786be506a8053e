"""A real PostgreSQL server of this machine's binaries, for tests that ask for it.

Opt-in: ``FIDUCIARY_TEST_POSTGRESQL=1``, with Debian's package ``postgresql`` (or its binaries in PATH) installed. CI
does not install it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "FIDUCIARY_TEST_POSTGRESQL"


def wanted() -> bool:
    return os.environ.get(VARIABLE, "") == "1"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        assert installed, f"{VARIABLE}=1, but {name} is not installed: apt-get install postgresql"
        found = str(installed[-1])
    return os.path.realpath(found)


@contextmanager
def server() -> Iterator[Server]:
    """Runs until the context ends. PostgreSQL refuses to be root, so root lends it another user."""
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    as_user = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="fiduciary-pg-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        shutil.chown(folder, user)
        data = f"{folder}/data"
        quiet = {"stdout": subprocess.DEVNULL, "cwd": folder}
        subprocess.run(
            [*as_user, _program("initdb"), "-D", data, "-U", "fiduciary", "-A", "trust", "--no-sync"],
            check=True,
            **quiet,
        )
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        control = [*as_user, _program("pg_ctl"), "-D", data, "-w", "-l", f"{folder}/log"]
        subprocess.run([*control, "-o", options, "start"], check=True, **quiet)
        try:
            yield Server(f"postgresql://fiduciary@127.0.0.1:{port}")
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)


class Server:
    """Makes a database for each test."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._made = 0

    def database(self) -> str:
        self._made += 1
        with psycopg.connect(f"{self._url}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE d{self._made}")  # pyright: ignore[reportArgumentType]
        return f"{self._url}/d{self._made}"
