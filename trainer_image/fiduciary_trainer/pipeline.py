"""The whole training in order: data, walk-forward, numbers, checks, final fit, version, report."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fiduciary_trainer import artifacts, data, finished, limits, measuring, procedure, provenance, retention
from fiduciary_trainer.checkpoint import Attempt
from fiduciary_trainer.finished import Finished, Point
from fiduciary_trainer.job import Dataset, Feast, Files
from fiduciary_trainer.outcome import CONTRACT_VERSION, Diverged, Retryable, WorkerLost, encode, significant
from fiduciary_trainer.report import Report, write_report
from fiduciary_trainer.search.share import Share
from fiduciary_trainer.validation import results
from fiduciary_trainer.walkforward import fit_final, run_combinatorial, run_walk_forward

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fiduciary_trainer.data import Locations
    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.measure import Measurement, Rows
    from fiduciary_trainer.search.run import Count
    from fiduciary_trainer.walkforward import Progress, WalkForward
    from fiduciary_trainer.workers import Workers


def train(
    contract: Contract,
    locations: Locations,
    state: Path,
    work: Path,
    progress: Progress,
    stop: threading.Event,
    share: Share | None = None,
    tell: Callable[[Count, Mapping[str, Any]], None] = lambda count, trial: None,
    workers: Workers | None = None,
) -> Finished:
    """Carry out a job document up to finished work on disk; MLflow is not needed.

    Args:
        contract: the job.
        locations: mounts that data and checkpoints are on.
        state: where finished work is kept until MLflow has it.
        work: for files in the making.
        progress: told after every step of training.
        stop: set when the pod must end. Training stops for it; what is measured is brought to its end, which takes
            seconds.
        share: of the search's trials, where other pods carry out some; None: all of them are this one's.
        tell: told after each trial of a search.
        workers: pods that fit together, of which this is the first; None: it fits alone.

    Raises:
        DataRefused, BadContract, Retryable, WorkerLost, Diverged, OutOfMemory: see :mod:`fiduciary_trainer.outcome`.
    """
    began, began_ms = time.monotonic(), time.time_ns() // 1_000_000
    limits.keep_within(limits.of_pod(), accelerated=torch.cuda.is_available())
    with step("data"):
        loaded = data.load(contract, locations)
    attempt = Attempt.begin(contract, loaded.digest, locations)
    if workers is not None:
        _join(attempt, workers, loaded.digest)
    if attempt.resumed:
        say(resumed=True)
    if removed := retention.forget_old(contract, locations, datetime.now(UTC)):
        say(oldCheckpointsRemoved=removed)
    trials: dict[int, Mapping[str, Any]] = {}

    def told(count: Count, trial: Mapping[str, Any]) -> None:
        trials[trial["number"]] = trial
        say(trial=trial["number"], state=trial["state"], loss=trial["losses"].get("inner_loss"), of=count.trials)
        tell(count, trial)

    with step("search"), _listening(attempt, stop):
        searched = procedure.search(loaded.bars, contract, progress, attempt, share or Share(), told)
    selection = {} if searched is None else searched.selection
    with step("walk-forward"), _listening(attempt, stop):
        walk = run_walk_forward(loaded.bars, contract, progress, attempt, selection=selection)
    with step("measure"):
        rows = measuring.out_of_sample(walk)
        _demand_numbers(rows)
        measured = measuring.measurement_of(rows, contract)
    with step("leakage and row checks"):
        checked = measuring.checks_of(walk, rows, measured, loaded.bars, contract)
    with step("final fit"), _listening(attempt, stop):
        model = fit_final(loaded.bars, contract, progress, attempt, selection)
    scattered = None
    if contract.training.validation.test_folds is not None:
        with step("combinatorial purged"), _listening(attempt, stop):
            scattered = run_combinatorial(loaded.bars, contract, progress, attempt, selection)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        content = Path(scratch)
        with step("version"):
            built = artifacts.build(content / "version", contract, loaded.bars, rows, model)
            checked = measuring.with_kept_weights(measuring.with_probe(checked, built.probe), walk, model)
        facts = {
            "digest": built.digest,
            "dataDigest": loaded.digest,
            "rows": loaded.rows,
            "dataFrom": loaded.first,
            "dataThrough": loaded.last,
            "labelKind": contract.data.label,
            "code": provenance.code(),
            "seed": contract.training.seed,
        }
        with step("validation"):
            validated = results.write(content / "validation", walk, rows, contract, scattered, searched)
        with step("report"):
            report = Report(
                job=contract.document,
                rows=rows,
                measurement=measured,
                checks=checked.values,
                unavailable=checked.unavailable,
                history=walk.history,
                facts=facts,
                counts=walk.counts,
                chosen=walk.chosen,
                leakage_scores=checked.leakage_scores,
                validation=validated,
            )
            write_report(content / "report", report)
            folds = {"folds": measuring.fold_table(walk, measured), "leakageScores": checked.leakage_scores}
            (content / "folds.json").write_bytes(encode(significant(folds, 9)))
        result = {
            "contractVersion": CONTRACT_VERSION,
            "outcome": "Measured",
            "trainingKey": contract.training_key,
            **facts,
            "seconds": round(time.monotonic() - began, 1),
            "metrics": {name: metric.as_json() for name, metric in measured.metrics.items()},
            "checks": dict(checked.values),
        }
        unavailable = {**measured.unavailable, **checked.unavailable}
        if searched is not None:
            overfitting = validated["overfitting"]
            if "unavailable" in overfitting:
                unavailable["pbo"] = overfitting["unavailable"]
            else:
                result["metrics"]["pbo"] = {"e": overfitting["probability"], "n": overfitting["days"]}
        if unavailable:
            result["unavailable"] = unavailable
        return finished.save(
            state,
            contract.training_key,
            content,
            significant(result, 9),
            _parameters(contract),
            _points(walk, measured, began_ms),
            _tags(contract, facts),
            [trials[number] for number in sorted(trials)],
        )


def carry_out_trials(contract: Contract, locations: Locations, share: Share, stop: threading.Event) -> int:
    """Carry out the trials of a search that are this pod's and keep them where the others find them; how many trials
    the search has had in the end.

    Raises:
        DataRefused, Diverged, Retryable, OutOfMemory: as :func:`train`.
    """
    limits.keep_within(limits.of_pod(), accelerated=torch.cuda.is_available())
    with step("data"):
        loaded = data.load(contract, locations)
    attempt = replace(Attempt.begin(contract, loaded.digest, locations), writes=False)

    def told(count: Count, trial: Mapping[str, Any]) -> None:
        say(trial=trial["number"], state=trial["state"], loss=trial["losses"].get("inner_loss"), of=count.trials)

    with step("search"), _listening(attempt, stop):
        searched = procedure.search(loaded.bars, contract, _unseen, attempt, share, told)
    return 0 if searched is None else len(searched.trials)


def work_along(contract: Contract, locations: Locations, workers: Workers, stop: threading.Event) -> None:
    """Fit what the first worker fits, in the same order, and keep nothing of it.

    Raises:
        DataRefused, Diverged, Retryable, WorkerLost, OutOfMemory: as :func:`train`.
    """
    limits.keep_within(limits.of_pod(), accelerated=torch.cuda.is_available())
    with step("data"):
        loaded = data.load(contract, locations)
    attempt = replace(Attempt.begin(contract, loaded.digest, locations), writes=False)
    _join(attempt, workers, loaded.digest)
    with step("walk-forward"), _listening(attempt, stop):
        run_walk_forward(loaded.bars, contract, _unseen, attempt, selection={})
    with step("final fit"), _listening(attempt, stop):
        fit_final(loaded.bars, contract, _unseen, attempt, {})
    if contract.training.validation.test_folds is not None:
        with step("combinatorial purged"), _listening(attempt, stop):
            run_combinatorial(loaded.bars, contract, _unseen, attempt, {})


def _join(attempt: Attempt, workers: Workers, digest: str) -> None:
    """All fit the same rows, or none does. Raises Retryable, WorkerLost."""
    attempt.workers = workers
    say(worker=workers.rank, of=workers.shares)
    first = workers.content(lambda: digest.encode()).decode()
    if first != digest:
        raise Retryable(
            "DataDiffer",
            f"this worker read data with digest {digest}, the first one {first}: they changed in between, or a volume "
            "of the pods is not the same one; all read again",
        )


def _unseen(**_: object) -> None:
    """The pod that trains shows the progress."""


def _demand_numbers(rows: Rows) -> None:
    finite = np.isfinite(rows.prediction)
    if rows.quantiles is not None:
        finite &= np.all(np.isfinite(rows.quantiles.values), axis=1)
    bad = int(np.sum(~finite))
    if bad:
        raise Diverged(
            "Diverged",
            f"{bad} of {len(rows.prediction)} out-of-sample predictions are no finite numbers; expected all to be: "
            "lower learningRate in training.hyperparameters, or look for extreme values in the data",
        )


@contextmanager
def _listening(attempt: Attempt, stop: threading.Event) -> Iterator[None]:
    """SIGTERM asks the training loop to keep its state and end; outside of it, the process's own handler counts."""
    before = signal.getsignal(signal.SIGTERM)
    attempt.listen()
    attempt.asked_to_stop = attempt.asked_to_stop or stop.is_set()
    try:
        yield
    except WorkerLost:
        attempt.secure()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        if attempt.asked_to_stop:
            stop.set()


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print one JSON line with the seconds that a step took."""
    began = time.monotonic()
    yield
    say(step=name, seconds=round(time.monotonic() - began, 2))


def say(**fields: Any) -> None:
    """One structured line of the pod's log. Never data, never secrets."""
    sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _parameters(contract: Contract) -> dict[str, str]:
    """What a person filters runs by, as text."""
    training, given = contract.training, contract.data
    flat: dict[str, Any] = {
        "architecture": training.architecture,
        "seed": training.seed,
        "asOf": contract.as_of,
        "source": _source(given.source),
        "features": given.features.name,
        "label": given.label,
        "label.column": given.column,
        "label.horizon": given.horizon,
        "folds": training.validation.folds,
        "purge": training.validation.purge,
        "embargo": training.validation.embargo,
        "costBps": training.validation.cost_bps,
    }
    searched = set() if training.search is None else {each.name for each in training.search.space}
    chosen = {
        name: "chosen inside the training rows" if value is None or name in searched else value
        for name, value in training.settings.items()
    }
    flat |= {f"hyperparameters.{name}": value for name, value in chosen.items()}
    return {name: str(value) for name, value in flat.items()}


def _source(source: Dataset | Files | Feast) -> str:
    if isinstance(source, Dataset):
        return source.name
    return source.uri if isinstance(source, Files) else f"{source.feature_service} at {source.entity_uri}"


def _points(walk: WalkForward, measured: Measurement, at_ms: int) -> list[Point]:
    """Curves by epoch and member, every metric, and its fold values with the fold's number as step."""
    points: list[Point] = []
    for fold, epochs in enumerate(walk.history, start=1):
        members = {int(epoch["member"]) for epoch in epochs}
        for epoch in epochs:
            where = f"fold_{fold}" if len(members) == 1 else f"fold_{fold}/member_{int(epoch['member'])}"
            for loss in ("train_loss", "inner_loss"):
                points.append(Point(f"{where}/{loss}", float(epoch[loss]), int(epoch["epoch"]), at_ms))
    for name, metric in measured.metrics.items():
        single: Mapping[str, float | None] = {name: metric.estimate, f"{name}_se": metric.se}
        points += [Point(key, value, 0, at_ms) for key, value in single.items() if value is not None]
        by_fold: Sequence[float | None] = metric.folds or ()
        points += [
            Point(f"by_fold/{name}", value, fold, at_ms)
            for fold, value in enumerate(by_fold, start=1)
            if value is not None
        ]
    return points


def _tags(contract: Contract, facts: Mapping[str, Any]) -> dict[str, str]:
    prefix = "fiduciary.dev/"
    return {
        f"{prefix}data-digest": facts["dataDigest"],
        f"{prefix}digest": facts["digest"],
        f"{prefix}seed": str(contract.training.seed),
        f"{prefix}code": facts["code"]["sha256"],
        **{f"{prefix}{name}-version": value for name, value in provenance.libraries().items()},
    }
