"""What serving costs: the runtime beside bare ONNX Runtime and the stock MLflow server, and the whole on a real node.

    make bench-serving

Two parts. serving_runtime.py: one server after the other inside the server's image, in the same run; its ratios say
what our checks, metrics and records cost. serving_cluster.py: a model in the sandbox, from `kubectl apply` to
promotions under load. `--part runtime` and `--part cluster` run one of them.
"""

from __future__ import annotations

import argparse
import sys

from bench import results, serving_cluster, serving_runtime

PARTS = ("runtime", "cluster")
GOALS = {**serving_runtime.GOALS, **serving_cluster.GOALS}


def main() -> int:
    """Exit code 1 where a request failed during a promotion: that is no matter of speed."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description="What serving costs.")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: both")
    parts: list[str] = parser.parse_args().part or [*PARTS]
    figures: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    used = results.versions("aiohttp", "grpcio")
    if "runtime" in parts:
        runtime = serving_runtime.measure()
        runtime.show()
        figures |= runtime.figures
        rows += runtime.rows
        used |= runtime.versions
    if "cluster" in parts:
        cluster = serving_cluster.measure()
        cluster.show()
        figures |= cluster.figures
        rows += cluster.rows
    goals = [{"figure": name, "value": value, "goal": GOALS.get(name, "")} for name, value in figures.items()]
    results.table("all figures", goals)
    print(f"\n{results.write('serving', figures, rows, used)}")
    return 1 if figures.get("failed_requests_promotion") else 0


if __name__ == "__main__":
    sys.exit(main())
