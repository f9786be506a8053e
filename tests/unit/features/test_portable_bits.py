"""Features have the same bits on every machine: training and serving may run on different processors."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fiduciary_features.logarithm import log

PACKAGES = Path(__file__).parents[3] / "trainer_image"
PROGRAM = """
import hashlib, sys
import numpy as np
from fiduciary_features import FeatureSpec
draw = np.random.default_rng(11)
close = 5000 + np.cumsum(draw.integers(-30, 31, 20_000)) / 64
spread = 1 + draw.integers(0, 40, len(close)) / 4096
columns = {"open": close + 0.25, "high": (close + 0.25) * spread, "low": close / spread, "close": close,
           "volume": draw.integers(1_000, 900_000, len(close)).astype(float)}
print(hashlib.sha256(FeatureSpec.of_set("ohlcv-v1").of_series(columns).tobytes()).hexdigest())
print(hashlib.sha256(np.log(close[1:] / close[:-1]).tobytes()).hexdigest())
"""
PLAIN = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
}
"""As on a processor without wide vectors and without fused multiplication."""


def bits(environment: dict[str, str]) -> list[str]:
    settings = {**os.environ, "PYTHONPATH": str(PACKAGES), "PYTHONWARNINGS": "ignore", **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=settings, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_another_processor_gives_the_same_features() -> None:
    here, plain = bits({}), bits(PLAIN)
    assert here[0] == plain[0]
    if here[1] == plain[1]:
        pytest.skip("numpy.log has the same bits either way here, so this machine cannot tell")


def test_the_logarithm_is_within_a_unit_in_the_last_place() -> None:
    draw = np.random.default_rng(3)
    values = np.concatenate([np.exp(3 * draw.normal(size=200_000)), 1 + 0.01 * draw.normal(size=200_000)])
    values = np.concatenate([values, [1.0, 2.0, 0.5, 5e-324, np.finfo(float).tiny, np.finfo(float).max]])
    exact = np.log(values.astype(np.longdouble))
    error = np.abs(log(values) - exact) / np.spacing(np.abs(exact.astype(float)))
    assert float(error[exact != 0].max()) < 1.0
    assert log(np.array([1.0]))[0] == 0.0


def test_what_has_no_logarithm_is_missing() -> None:
    assert np.isnan(log(np.array([0.0, -1.0, np.nan, np.inf, -np.inf]))).all()


def test_shape_and_chunks_change_no_bit() -> None:
    values = np.exp(np.random.default_rng(5).normal(size=(5, 20_000)))
    whole = log(values)
    assert whole.shape == values.shape
    assert hashlib.sha256(whole[3].tobytes()).digest() == hashlib.sha256(log(values[3]).tobytes()).digest()
    assert whole[2, 7] == log(values[2, 7:8])[0]
