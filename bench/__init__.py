"""Benchmarks: each prints a table and writes `bench/results/NAME.json`. The operator is on the path, not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "operator"))
