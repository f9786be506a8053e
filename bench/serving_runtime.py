"""The serving runtime beside bare ONNX Runtime and beside MLServer's stock MLflow runtime, in one run on one machine.

Everything runs inside the image `server-bench` (our server, the baseline, and the stock runtime in an environment of
its own), on a real version that the trainer's image makes. ``python -m bench.serving_runtime`` prints the tables;
``make bench-serving`` imports :func:`measure` and adds what only a cluster can show.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from bench import results
from sandbox import images, requirements
from sandbox.steps import Run
from tests import in_image, in_server_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GOALS = {
    "p50_ratio_vs_bare_onnxruntime": 1.5,
    "p50_ratio_vs_mlserver_mlflow": 1.0,
    "record_overhead_fraction": 0.05,
}
"""At most. The published tables say so where one is missed."""

SECONDS = 900
PROGRAM = "python -m bench.serving_image.measure /work/versions"


def measure(run: Run | None = None) -> tuple[dict[str, float], list[dict[str, Any]], dict[str, str]]:
    """Build what is needed and measure.

    Returns:
        Figures by the names of the issue; rows of the tables, by what was done and which server did it; versions.
    """
    run = run or Run()
    requirements.widen_path()
    results.progress("images and a real version")
    image = in_image.image("server-bench", run)
    versions = in_server_image.versions(run)
    results.progress("measuring (about three minutes)")
    mounts = {versions: "/work/versions", in_image.ROOT / "bench": "/work/bench"}
    env = {"PYTHONPATH": "/opt/server/app:/work"}
    said = images.run(image, ["sh", "-c", PROGRAM], mounts=mounts, env=env, timeout=SECONDS, progress=run)
    found = json.loads(said.strip().splitlines()[-1])
    return found["figures"], found["rows"], found["versions"]


def show(figures: Mapping[str, float], rows: Sequence[Mapping[str, object]]) -> None:
    """Print one table for each thing that was done, and the figures beside their goals."""
    for what in dict.fromkeys(str(row["what"]) for row in rows):
        results.table(
            what, [{key: value for key, value in row.items() if key != "what"} for row in rows if row["what"] == what]
        )
    goals = {name: f"≤ {GOALS[name]}" if name in GOALS else "" for name in figures}
    results.table("figures", [{"figure": name, "value": figures[name], "goal": goals[name]} for name in figures])


def main() -> int:
    figures, rows, versions = measure()
    show(figures, rows)
    print(f"\n{results.write('serving-runtime', figures, rows, versions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
