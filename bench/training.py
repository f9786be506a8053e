"""`python -m bench.training`: what the gates accept falsely, what they find, and how fast networks are fitted.

    make bench-training [SEEDS=2000 TRAININGS=200]

Gates run here; the whole trainer and the fits run inside the trainer's image.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bench import results
from bench.gates import screens, sizes
from sandbox import images
from sandbox.console import Console
from sandbox.steps import Run, Steps
from tests import in_image

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("sizes", "screens", "whole", "speed")
SCREEN_SEEDS = 200
GOALS = {
    "speedup_mlp_vs_loop": "≥ 10", "speedup_tcn_vs_loop": "≥ 10", "speedup_lstm_vs_loop": "≥ 2",
    "speedup_gru_vs_loop": "≥ 2", "max_gate_false_acceptance": "≤ .0645", "null_false_acceptance": "≤ .0645 + error",
}  # fmt: skip


def gate_sizes(seeds: int) -> tuple[dict[str, float], list[dict[str, object]]]:
    """False acceptance of every gate that has a bound, at the boundary of its null."""
    rows: list[dict[str, object]] = []
    for case in sizes.CASES:
        results.progress(f"{case.name}, {case.market}, {case.kind}: {seeds} seeds")
        accepted = sum(sizes.accepted(case, seed) for seed in range(seeds)) / seeds
        rows.append({"gate": case.name, "market": case.market, "label": case.kind, "accepted": accepted})
    largest = max(float(str(row["accepted"])) for row in rows)
    return {"max_gate_false_acceptance": largest, "gate_seeds": seeds}, rows


def in_trainer_image(module: str, *options: str) -> list[dict[str, Any]]:
    """Lines that a module of bench/ writes inside the trainer's image."""
    found: list[dict[str, Any]] = []

    def work(run: Run) -> None:
        image = in_image.image("trainer-test", run)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            out.chmod(0o777)
            mounts = {ROOT / name: f"/scratch/{name}" for name in ("bench", "operator")} | {out: "/out"}
            words = ["python", "-m", module, "/out/result.json", *options]
            env = {"PYTHONPATH": "/opt/trainer/app:/scratch:/scratch/operator"}
            images.run(image, words, mounts=mounts, env=env, timeout=6 * 3600, progress=run)
            found.extend(json.loads((out / "result.json").read_text()))

    steps = Steps()
    steps.add(module, work)
    steps.run(Console())
    return found


def whole_trainer(seeds: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Acceptance of the whole trainer: false where nothing is planted, power where something is."""
    rows = in_trainer_image("bench.gates.whole", "--seeds", str(seeds))
    # In HAR's own market a model with HAR's terms does beat the tuned EWMA: what is accepted there is not false.
    nulls = [row["accepted"] for row in rows if row["planted"] == 0.0 and "HAR" not in row["market"]]
    strongest = [row["accepted"] for row in rows if row["market"] == "momentum in returns"]
    return {"null_false_acceptance": max(nulls), "null_seeds": seeds, "power_planted": max(strongest)}, rows


def speed() -> tuple[dict[str, float], list[dict[str, Any]]]:
    """CPU seconds of our fits beside the usual loop."""
    rows = in_trainer_image("bench.training_speed")
    by_way = {(row["architecture"], row["way"]): row for row in rows}
    figures: dict[str, float] = {}
    worst = 0.0
    for name in dict.fromkeys(row["architecture"] for row in rows):
        usual, ours = by_way[name, "usual"], by_way[name, "ours"]
        figures[f"speedup_{name.lower()}_vs_loop"] = usual["cpu_seconds"] / ours["cpu_seconds"]
        worst = max(worst, abs(usual["loss"] - ours["loss"]))
    if ("LSTM", "ours") in by_way:
        lstm = by_way["LSTM", "ours"]
        figures["flop_limit_fraction_lstm"] = lstm["flops"] / lstm["limit"]
    figures["max_abs_metric_difference"] = worst
    figures["peak_rss_mib"] = max(row["peak_rss_mib"] for row in rows if row["way"] == "ours")
    figures["seconds"] = sum(row["seconds"] for row in rows if row["way"] == "ours")
    return figures, rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.training", description="Gates and speed of the trainer.")
    parser.add_argument("--seeds", type=int, default=sizes.SEEDS, help="of each gate")
    parser.add_argument("--trainings", type=int, default=200, help="seeds of the whole trainer on each market")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    given = parser.parse_args()
    parts: list[str] = given.part or [*PARTS]
    figures: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    if "sizes" in parts:
        found, lines = gate_sizes(given.seeds)
        figures, rows = figures | found, rows + lines
        results.table("false acceptance at the boundary of each gate's null", lines)
    if "screens" in parts:
        lines = list(screens.rows(min(given.seeds, SCREEN_SEEDS)))
        rows += lines
        results.table("gates that compare with a limit", lines)
    if "whole" in parts:
        found, lines = whole_trainer(given.trainings)
        figures, rows = figures | found, rows + lines
        results.table("the whole trainer", lines)
    if "speed" in parts:
        found, lines = speed()
        figures, rows = figures | found, rows + lines
        results.table("fits, CPU seconds of one thread", lines)
    goals = [{"figure": name, "value": value, "goal": GOALS.get(name, "")} for name, value in figures.items()]
    results.table("all figures", goals)
    print(f"\n{results.write('training', figures, rows, results.versions('numpy'))}")


if __name__ == "__main__":
    main()
