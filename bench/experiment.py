"""What experiments cost and how fast they act: on a real node, and 200 of them on a real API server and Prometheus.

    make bench-experiment

Two parts. experiment_cluster.py: a model in the sandbox under an open-loop load; a better challenger is promoted, total
failures are rolled back, one experiment is replayed from Prometheus' samples. experiment_scale.py: the operator's CPU
and queries while 200 experiments run on recorded series. `--part node` and `--part scale` run one of them.
"""

from __future__ import annotations

import argparse
import sys

from bench import experiment_cluster, experiment_scale, results

PARTS = ("node", "scale")
GOALS = {**experiment_cluster.GOALS, **experiment_scale.GOALS}


def main() -> int:
    """Exit code 1 where a request failed in a promotion or a replay came to other bits: no matters of speed."""
    parser = argparse.ArgumentParser(prog="python -m bench.experiment", description="What experiments cost.")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: both")
    parser.add_argument("--experiments", type=int, default=200, help="of the part `scale` (default: %(default)s)")
    options = parser.parse_args()
    parts: list[str] = options.part or [*PARTS]
    figures: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    if "node" in parts:
        node = experiment_cluster.measure()
        node.show()
        figures |= node.figures
        rows += node.rows
    if "scale" in parts:
        scale = experiment_scale.measure(options.experiments)
        scale.show()
        figures |= scale.figures
        rows += scale.rows
    goals = [{"figure": name, "value": value, "goal": GOALS.get(name, "")} for name, value in figures.items()]
    results.table("all figures", goals)
    print(f"\n{results.write('experiment', figures, rows, results.versions('aiohttp', 'kopf'))}")
    return 1 if figures.get("failed_requests_promotion") or figures.get("replay_identical", 1.0) != 1.0 else 0


if __name__ == "__main__":
    sys.exit(main())
