"""``python -m fiduciary.cli.refold EXPORT... STATUS``: fold an experiment's exported blocks again, and compare.

EXPORT is the file that the condition Exported names, and those that were numbered after it, in any order; STATUS what
``kubectl get modelexperiment NAME -o json`` says. Nothing is asked of a cluster or of Prometheus. Exit status 0: every
block hashes to the chain of the status and the evidence is the same, bit for bit; 1: it is not, and the message says
what is missing or differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.decide.experiment.refold import differing, refold
from fiduciary.engine.experiments.kept import stored
from fiduciary.evidence.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def main(arguments: Sequence[str]) -> int:
    """Compare the export with the status; 2 where it is used wrongly, or a file cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m fiduciary.cli.refold",
        description="Fold an experiment's exported blocks again, and compare with its status. Exit status: 0 the same "
        "bits, 1 something is missing or differs, 2 a file cannot be read.",
    )
    parser.add_argument(
        "exports", type=Path, nargs="+", metavar="EXPORT", help="the file of condition Exported, and the numbered ones"
    )
    parser.add_argument(
        "status", type=Path, metavar="STATUS", help="what `kubectl get modelexperiment NAME -o json` says"
    )
    given = parser.parse_args(arguments)
    try:
        lines = [line for export in given.exports for line in export.read_text(encoding="utf-8").splitlines()]
        status = json.loads(given.status.read_text(encoding="utf-8"))
    except OSError as error:
        print(f"{error.filename} cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"{given.status} is no JSON ({error}): expected what `kubectl get ... -o json` says", file=sys.stderr)
        return 2
    problem, told = compare(lines, status)
    print(told)
    return int(problem)


def compare(export: Iterable[str], status: dict[str, Any]) -> tuple[bool, str]:
    """(whether they disagree, what is found, in words)."""
    evidence = ModelExperiment.model_validate(status).status.evidence
    if evidence is None:
        return True, "the status holds no evidence: the experiment never began"
    kept = stored(evidence)
    if isinstance(kept, Refusal):
        return True, kept.message
    chain = kept.state.evidence.chain
    found = refold(_lines(export), chain)
    if isinstance(found, Refusal):
        return True, found.message
    blocks = f"blocks up to {found.last} hash to {chain or 'the start'}"
    different = differing(found, kept.state.evidence)
    if different:
        return True, f"{blocks}, but folded again they give another {', '.join(different)}"
    return False, f"{blocks}, and folded again they give the same evidence"


def _lines(export: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Lines that are whole: a disk that was full leaves half of one."""
    for text in export:
        try:
            line: object = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield cast("dict[str, Any]", line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
