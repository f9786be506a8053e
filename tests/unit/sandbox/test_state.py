"""State on this machine: names, ports, locks, pid files, and what is found without them."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from sandbox import process, requirements, state
from sandbox.process import Daemon
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
from pathlib import Path


@pytest.fixture(autouse=True)
def own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "root", lambda: tmp_path / "sandbox")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "sandbox"


@pytest.mark.parametrize("name", ["", "A", "a/b", "../x", "-a", "a-", "a" * 32, "1a"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(StepFailed, match="cannot name a sandbox"):
        state.directory(name)


def test_sandboxes_are_listed(own_root: Path) -> None:
    for name in ("b", "a"):
        state.write(own_root / name / "sandbox.json", {"provider": "node"})
    (own_root / "c").mkdir()
    assert state.names() == ["a", "b"]


def test_a_file_that_was_cut_off_reads_as_empty(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ')
    assert state.read(tmp_path / "x.json") == {}
    assert state.read(tmp_path / "missing.json") == {}


def test_ports_are_free_different_and_remembered(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = state.ports(file, ["a", "b"])
    again = state.ports(file, ["b", "c"])
    assert len(set(again.values())) == 3
    assert again["a"] == first["a"]
    assert again["b"] == first["b"]


def test_no_port_is_one_that_clients_are_given(tmp_path: Path) -> None:
    lowest = int(state.EPHEMERAL.read_text().split()[0])
    assert all(port < lowest for port in state.ports(tmp_path / "ports.json", list("abcdef")).values())


def test_two_commands_on_one_sandbox_exclude_each_other() -> None:
    with (
        state.exclusive("x"),
        pytest.raises(StepFailed, match=rf"process {os.getpid()}\) is working on sandbox 'x'"),
        state.exclusive("x"),
    ):
        pass
    with state.exclusive("x"):
        pass
    state.forget_lock("x")
    assert not state.root().exists()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon("sleeper", tmp_path / "d")
    yield made
    made.kill()


def test_a_daemon_is_started_once_and_again_when_its_words_change(daemon: Daemon) -> None:
    assert daemon.ensure(["sleep", "600"])
    first = daemon.pid
    assert not daemon.ensure(["sleep", "600"])
    assert daemon.pid == first
    assert daemon.ensure(["sleep", "601"])
    assert daemon.pid != first
    assert daemon.argv == ["sleep", "601"]


def test_a_daemon_has_its_own_session_and_a_mark(daemon: Daemon) -> None:
    daemon.ensure(["sleep", "600"])
    assert daemon.pid is not None
    assert os.getsid(daemon.pid) == daemon.pid
    # The kernel tells the parent that exec went well a moment before /proc shows the new environment.
    Run().until(lambda: process.marked(daemon.directory) == [daemon.pid], "the mark", seconds=5, every=0.01)


def test_stopping_ends_it_even_when_it_is_frozen(daemon: Daemon) -> None:
    daemon.ensure(["sleep", "600"])
    daemon.signal(signal.SIGSTOP)
    daemon.stop()
    assert not daemon.alive
    assert not daemon.pid_file.exists()


def test_a_program_that_ignores_sigterm_is_killed(daemon: Daemon, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ignoring = "import signal, pathlib, sys; signal.signal(15, signal.SIG_IGN); pathlib.Path(sys.argv[1]).touch()"
    daemon.ensure([sys.executable, "-c", f"{ignoring}; signal.pause()", ready])
    Run().until(ready.exists, "the program ready", seconds=10)
    daemon.stop(patience=0.1)
    assert not daemon.alive


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_a_reused_process_number_is_not_taken_for_the_daemon(daemon: Daemon, change: dict[str, object]) -> None:
    daemon.ensure(["sleep", "600"])
    pid, record = daemon.pid, json.loads(daemon.pid_file.read_text())
    assert pid is not None
    daemon.pid_file.write_text(json.dumps({**record, **change}))
    assert not daemon.alive
    daemon.signal(signal.SIGKILL)
    os.kill(pid, 0)  # nobody was killed
    daemon.pid_file.write_text(json.dumps(record))


def test_a_daemon_whose_pid_file_was_never_written_is_found_by_its_mark(daemon: Daemon) -> None:
    daemon.ensure(["sleep", "600"])
    record = daemon.pid_file.read_text()
    daemon.pid_file.unlink()
    assert not daemon.alive
    assert process.marked(daemon.directory) == [json.loads(record)["pid"]]
    daemon.pid_file.write_text(record)


def test_a_program_behind_a_wrapper_is_the_one_that_signals_reach(tmp_path: Path) -> None:
    wrapped = Daemon("inner", tmp_path / "d", ("sh", "-c", '"$@" & wait', "sh"))
    wrapped.ensure(["sleep", "600"])
    Run().until(lambda: "sleep" in _command(wrapped.pid), "the inner program", seconds=10)
    assert Daemon("inner", tmp_path / "d").pid == wrapped.pid
    wrapped.kill()
    assert not wrapped.alive


def _command(pid: int | None) -> str:
    return Path(f"/proc/{pid}/comm").read_text()


def test_missing_programs_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/apt-get" if program == "apt-get" else None)
    needed = {"runc": "runc", "ip": "iproute2"}
    expected = "missing programs: ip, runc. Install them with `sudo apt-get install --yes .* iproute2 runc`"
    with pytest.raises(StepFailed, match=expected):
        requirements.ensure(needed, Run())


def test_without_apt_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _program: None)
    with pytest.raises(StepFailed, match=r"no apt-get; install what brings them \(on Debian: runc\)"):
        requirements.ensure({"runc": "runc"}, Run())


def test_nothing_happens_when_nothing_is_missing() -> None:
    requirements.ensure({"sh": "dash"}, Run())
