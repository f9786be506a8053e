"""Limits of the pod as cgroups of both versions tell them, and memory that is refused before the kernel kills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fiduciary_trainer import limits
from fiduciary_trainer.limits import Limits

PACKAGES = Path(__file__).parents[2] / "trainer_image"
HOST = len(os.sched_getaffinity(0))
MI = 1 << 20


def read(folder: Path, own: str, files: dict[str, str]) -> Limits:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")
    (folder / "own").write_text(own + "\n")
    return limits.of_pod(folder, folder / "own")


@pytest.mark.parametrize(
    ("quota", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", HOST), ("99900000 100000", HOST)]
)
def test_a_container_with_version_2(tmp_path: Path, quota: str, cpus: int) -> None:
    assert read(tmp_path, "0::/", {"cpu.max": quota, "memory.max": str(512 * MI)}) == Limits(cpus, 512 * MI)


def test_no_limit(tmp_path: Path) -> None:
    assert read(tmp_path, "0::/", {"cpu.max": "max 100000", "memory.max": "max"}) == Limits(HOST, None)
    assert limits.of_pod(tmp_path / "absent", tmp_path / "nowhere") == Limits(HOST, None)


def test_an_ancestors_limit_holds(tmp_path: Path) -> None:
    """A container without limits of its own in a pod that has some, seen from the host's namespace."""
    files = {
        "kubepods/pod1/cpu.max": "100000 100000", "kubepods/pod1/memory.max": str(300 * MI),
        "kubepods/pod1/box/cpu.max": "max 100000", "kubepods/pod1/box/memory.max": "max",
        "kubepods/memory.max": str(900 * MI),
    }  # fmt: skip
    assert read(tmp_path, "0::/kubepods/pod1/box", files) == Limits(1, 300 * MI)


def test_version_1(tmp_path: Path) -> None:
    own = "9:name=systemd:/\n4:memory:/box\n1:cpu,cpuacct:/box\n0::/"
    files = {
        "cpu/box/cpu.cfs_quota_us": "100000", "cpu/box/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
        "memory/box/memory.limit_in_bytes": str(700 * MI), "memory/memory.limit_in_bytes": str((1 << 63) - 4096),
    }  # fmt: skip
    assert read(tmp_path, own, files) == Limits(1, 700 * MI)


def test_version_1_in_a_container_whose_path_is_the_hosts(tmp_path: Path) -> None:
    own = "4:memory:/kubepods/pod1/box\n1:cpu,cpuacct:/kubepods/pod1/box"
    files = {
        "cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(256 * MI),
    }  # fmt: skip
    assert read(tmp_path, own, files) == Limits(1, 256 * MI)


ALLOCATES = """
import numpy, pyarrow
from fiduciary_trainer.limits import SPARE, Limits, keep_within, peak_memory, refuse_no_more
keep_within(Limits(1, peak_memory() + (64 << 20)), accelerated=False)
assert (pyarrow.cpu_count(), pyarrow.io_thread_count()) == (1, 1)
kept = numpy.ones(32 << 17)  # 32 MiB: within
try:
    numpy.ones((SPARE + (1 << 30)) // 8)
except MemoryError:
    print("refused")
refuse_no_more()
numpy.ones((SPARE + (1 << 30)) // 8)
print("taken back")
"""


def test_memory_beyond_the_limit_is_refused_and_the_process_lives() -> None:
    environment = os.environ | {"PYTHONPATH": str(PACKAGES)}
    done = subprocess.run([sys.executable, "-c", ALLOCATES], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("refused\ntaken back\n", 0), done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="the image with CUDA brings its own libraries")
def test_torch_multiplies_with_openblas() -> None:
    """Debian's torch works with the reference BLAS too, at a sixteenth of the speed, and says nothing."""
    torch.randn(64, 64) @ torch.randn(64, 64)
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "blas" in line}
    assert any("openblas-serial/libblas" in path for path in loaded), loaded
