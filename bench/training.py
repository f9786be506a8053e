"""`python -m bench.training`: what the gates accept falsely, what they find, and how fast networks are fitted.

    make bench-training [SEEDS=2000 TRAININGS=200 MINUTES=60 PART=whole]

Gates run here; the whole trainer and the fits run inside the trainer's image. Every piece is kept as it ends: the next
run goes on where one was stopped, and may be asked for a single part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from bench import kept, results
from bench.gates import screens, sizes
from sandbox import images
from sandbox.console import Console
from sandbox.steps import Run, Steps
from tests import in_image

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("sizes", "screens", "whole", "speed")
SCREEN_SEEDS = 200
GATES = (
    "operator/fiduciary/decide/gates.py",
    "operator/fiduciary/decide/measurement.py",
    "operator/fiduciary/evidence/bounds.py",
    "trainer_image/fiduciary_trainer/measure",
    "trainer_image/fiduciary_trainer/outcome.py",
)
"""What a gate's answer to given rows depends on."""
TRAINER = ("trainer_image/fiduciary_trainer", "trainer_image/fiduciary_features")
GOALS = {
    "speedup_mlp_vs_loop": "≥ 10", "speedup_tcn_vs_loop": "≥ 10", "speedup_lstm_vs_loop": "≥ 2",
    "speedup_gru_vs_loop": "≥ 2", "max_gate_false_acceptance": "≤ .0645", "null_false_acceptance": "≤ .0645 + error",
}  # fmt: skip


def gate_sizes(seeds: int) -> tuple[dict[str, float], list[dict[str, object]]]:
    """False acceptance of every gate that has a bound, at the boundary of its null."""
    shelf = kept.folder("training-sizes", ("bench/gates/sizes.py", "bench/gates/nulls.py", *GATES))
    rows: list[dict[str, object]] = []
    for number, case in enumerate(sizes.CASES):
        results.progress(f"{case.name}, {case.market}, {case.kind}: {seeds} seeds")
        count = kept.piece(
            shelf,
            f"{number}-{seeds}",
            lambda case=case: {"accepted": sum(sizes.accepted(case, seed) for seed in range(seeds))},
        )
        accepted = int(count["accepted"]) / seeds
        rows.append({"gate": case.name, "market": case.market, "label": case.kind, "accepted": accepted})
    largest = max(float(str(row["accepted"])) for row in rows)
    return {"max_gate_false_acceptance": largest, "gate_seeds": seeds}, rows


def in_trainer_image(shelf: Path, module: str, *options: str) -> None:
    """Let a module of bench/ fill the shelf inside the trainer's image."""

    def work(run: Run) -> None:
        image = in_image.image("trainer-test", run)
        mounts = {ROOT / name: f"/scratch/{name}" for name in ("bench", "operator")} | {shelf: "/shelf"}
        words = ["python", "-m", module, "/shelf", *options]
        env = {"PYTHONPATH": "/opt/trainer/app:/scratch:/scratch/operator"}
        images.run(image, words, mounts=mounts, env=env, timeout=6 * 3600, progress=run)

    steps = Steps()
    steps.add(module, work)
    steps.run(Console())


def whole_trainer(seeds: int, minutes: float) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Acceptance of the whole trainer: false where nothing is planted, power where something is."""
    shelf = kept.folder("training-whole", ("bench/gates/whole.py", *TRAINER, *GATES))
    in_trainer_image(shelf, "bench.gates.whole", "--seeds", str(seeds), "--minutes", str(minutes))
    rows = collected(shelf, seeds)
    # In HAR's own market a model with HAR's terms does beat the tuned EWMA: what is accepted there is not false.
    nulls = [row for row in rows if row["planted"] == 0.0 and "HAR" not in row["market"]]
    strongest = [row["accepted"] for row in rows if row["market"] == "momentum in returns"]
    figures = {
        "null_false_acceptance": max(row["accepted"] for row in nulls),
        "null_seeds": min(row["seeds"] for row in nulls),
    }
    if strongest:
        figures["power_planted"] = max(strongest)
    return figures, rows


def collected(shelf: Path, seeds: int) -> list[dict[str, Any]]:
    """One line a market of what is kept of the first ``seeds``: accepted share, and why the others were refused."""
    chunks = [json.loads(path.read_text()) for path in shelf.glob("*.json")]
    markets: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for chunk in sorted(chunks, key=lambda each: (each["label"], each["market"], each["planted"], each["first"])):
        if chunk["first"] < seeds:
            markets.setdefault((chunk["market"], chunk["label"], chunk["planted"]), []).append(chunk)
    lines: list[dict[str, Any]] = []
    for (market, label, planted), own in markets.items():
        count = sum(chunk["seeds"] for chunk in own)
        reasons = Counter[str]()
        for chunk in own:
            reasons.update(chunk["reasons"])
        lines.append({
            "market": market, "planted": planted, "label": label, "model": own[0]["model"], "seeds": count,
            "accepted": sum(chunk["accepted"] for chunk in own) / count,
            "mean skill": statistics.fmean(skill for chunk in own for skill in chunk["skills"]),
            "refused for": dict(reasons.most_common()),
            "CPU seconds a training": sum(chunk["cpu_seconds"] for chunk in own) / count,
        })  # fmt: skip
    return lines


def speed() -> tuple[dict[str, float], list[dict[str, Any]]]:
    """CPU seconds of our fits beside the usual loop."""
    shelf = kept.folder("training-speed", ("bench/training_speed.py", *TRAINER))
    in_trainer_image(shelf, "bench.training_speed")
    rows = [json.loads(path.read_text()) for path in sorted(shelf.glob("*.json"))]
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
    parser.add_argument("--minutes", type=float, default=1e9, help="after which the whole trainer begins nothing more")
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
        found, lines = whole_trainer(given.trainings, given.minutes)
        figures, rows = figures | found, rows + lines
        results.table("the whole trainer", lines)
    if "speed" in parts:
        found, lines = speed()
        figures, rows = figures | found, rows + lines
        results.table("fits, CPU seconds of one thread", lines)
    goals = [{"figure": name, "value": value, "goal": GOALS.get(name, "")} for name, value in figures.items()]
    load = os.getloadavg()
    results.table(f"all figures (load of the machine {load[0]:.1f}, {load[2]:.1f} over 15 minutes)", goals)
    print(f"\n{results.write('training', figures, rows, results.versions('numpy'))}")


if __name__ == "__main__":
    main()
