"""What a sandbox leaves behind, and what it must not take from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox import state, teardown

if TYPE_CHECKING:
    from pathlib import Path


def test_the_first_that_goes_leaves_the_machine_to_the_others(tmp_path: Path) -> None:
    """Removing /var/lib/kubelet took the mount on it from the node of another sandbox: its pods lost their volumes."""
    shared = tmp_path / "kubelet"
    shared.mkdir()
    sandboxes = tmp_path / "sandboxes"
    for at, name in enumerate(("first", "second", "third"), 1):
        (sandboxes / name).mkdir(parents=True)
        notes = {"at": at, "sysctls": {}, "new": [str(shared)] if name == "first" else []}
        state.write(sandboxes / name / "machine.json", notes)
    for name in ("first", "third"):
        teardown._restore_machine(sandboxes / name)
        assert shared.exists(), f"{name} is not the last"
        (sandboxes / name / "machine.json").unlink()
    teardown._restore_machine(sandboxes / "second")
    assert not shared.exists()
