"""What serving costs: the runtime beside bare ONNX Runtime and the stock MLflow server, and the whole on a real node.

    make bench-serving

Two parts. serving_runtime.py: one process against one process, inside the server's image, in the same run. The ratios
say what our checks, metrics and records cost. serving_cluster.py: a model in the sandbox, from `kubectl apply` to
promotions under load. `--part runtime` and `--part cluster` run one of them.
"""

from __future__ import annotations

import argparse
import sys

from bench import results

PARTS = ("runtime", "cluster")


def main() -> int:
    """Exit code 1 where a request failed during a promotion: that is no matter of speed."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description="What serving costs.")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: both")
    parts: list[str] = parser.parse_args().part or [*PARTS]
    figures: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    if "runtime" in parts:
        from bench import serving_runtime

        runtime = serving_runtime.measure()
        figures |= runtime.figures
        rows += runtime.rows
        results.table("The runtime alone", runtime.rows)
    if "cluster" in parts:
        from bench import serving_cluster

        cluster = serving_cluster.measure()
        figures |= cluster.figures
        rows += cluster.rows
        results.table("On the node, through the Gateway", cluster.rows)
    results.table("Figures", [{"figure": name, "value": value} for name, value in figures.items()])
    path = results.write("serving", figures, rows, results.versions("aiohttp", "httpx"))
    print(f"\n{path}")
    return 1 if figures.get("failed_requests_promotion") else 0


if __name__ == "__main__":
    sys.exit(main())
