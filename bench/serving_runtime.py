"""The serving runtime beside bare ONNX Runtime and beside MLServer's stock MLflow runtime, in one run on one machine.

Everything runs inside the image `server-bench` (our server, the baseline, and the stock runtime in an environment of
its own), on a real version that the trainer's image makes. ``python -m bench.serving_runtime`` prints the tables;
``make bench-serving`` imports :func:`measure` and adds what only a cluster can show.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from bench import results
from sandbox import images, requirements
from sandbox.steps import Run
from tests import in_image, in_server_image

GOALS = {
    "p50_ratio_vs_bare_onnxruntime": 1.5,
    "p50_ratio_vs_mlserver_mlflow": 1.0,
    "record_overhead_fraction": 0.05,
}
"""At most. The published tables say so where one is missed."""

SECONDS = 900
PROGRAM = "python -m bench.serving_image.measure /scratch/versions"


@dataclass(frozen=True)
class Measured:
    """What one run found.

    Attributes:
        figures: by the names of the issue.
        rows: of the tables; ``what`` was done, and which ``server`` did it.
        versions: of the libraries inside the image.
    """

    figures: dict[str, float]
    rows: list[dict[str, Any]]
    versions: dict[str, str]

    def show(self) -> None:
        """Print one table for each thing that was done, and the figures beside their goals."""
        for what in dict.fromkeys(str(row["what"]) for row in self.rows):
            rows = [row for row in self.rows if row["what"] == what]
            results.table(what, [{key: value for key, value in row.items() if key != "what"} for row in rows])
        goals = {name: f"≤ {GOALS[name]}" if name in GOALS else "" for name in self.figures}
        rows = [{"figure": name, "value": value, "goal": goals[name]} for name, value in self.figures.items()]
        results.table("figures", rows)


def measure(run: Run | None = None) -> Measured:
    """Build what is needed and measure."""
    run = run or Run()
    requirements.widen_path()
    results.progress("images and a real version")
    image = in_image.image("server-bench", run)
    versions = in_server_image.versions(run)
    results.progress("measuring (about three minutes)")
    mounts = {versions: "/scratch/versions", in_image.ROOT / "bench": "/scratch/bench"}
    env = {"PYTHONPATH": "/opt/server/app:/scratch"}
    said = images.run(image, ["sh", "-c", PROGRAM], mounts=mounts, env=env, timeout=SECONDS, progress=run)
    found = json.loads(said.strip().splitlines()[-1])
    return Measured(**found)


def main() -> int:
    found = measure()
    found.show()
    print(f"\n{results.write('serving-runtime', found.figures, found.rows, found.versions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
