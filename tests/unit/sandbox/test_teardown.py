"""What `down` leaves to other sandboxes on the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox import state, teardown

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_directories_that_other_nodes_mount_upon_are_left_to_whoever_goes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one's `down` once removed /var/lib/kubelet, and the kernel every node's mount upon it."""
    kubelet = tmp_path / "kubelet"
    monkeypatch.setattr(state, "root", lambda: tmp_path / "sandbox")
    monkeypatch.setattr(teardown, "FIXED", (str(kubelet),))
    monkeypatch.setattr(teardown, "SYSCTLS", ())
    first, second = state.directory("first"), state.directory("second")
    for place, directory in enumerate((first, second)):
        state.write(directory / "sandbox.json", {"provider": "node"})
        teardown.note_machine(directory)
        (directory / "machine.json").touch()
        kubelet.mkdir(exist_ok=True)
        assert state.read(directory / "machine.json")["new"] == [str(kubelet)] * (place == 0)
    teardown.restore_machine(first)
    assert kubelet.exists(), "another node has its pods there"
    for file in first.iterdir():
        file.unlink()
    teardown.restore_machine(second)
    assert not kubelet.exists(), "the last one leaves the machine as the first one found it"


def test_a_later_one_that_goes_first_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "root", lambda: tmp_path / "sandbox")
    notes = {"sysctls": {"kernel/panic": "0"}, "new": []}
    for name in ("first", "second"):
        directory = state.directory(name)
        state.write(directory / "sandbox.json", {"provider": "node"})
        state.write(directory / "machine.json", notes if name == "first" else {"sysctls": {"kernel/panic": "10"}})
    teardown.restore_machine(state.directory("second"))
    assert state.read(state.directory("first") / "machine.json") == notes
