"""`python -m bench.workers`: what a second pod is worth to one network (`make bench-workers`), inside the trainer's
image."""

from __future__ import annotations

from bench import results
from bench.training import in_trainer_image


def main() -> None:
    results.progress("steps of one process and of two that share its batches")
    rows = in_trainer_image("bench.workers_speed")
    results.table("Two workers on the loopback against one process", rows)
    figures = {"speedup_two_workers_best": max(float(row["speedup"]) for row in rows)}
    print(f"\n{results.write('workers', figures, rows, results.versions('numpy'))}")


if __name__ == "__main__":
    main()
