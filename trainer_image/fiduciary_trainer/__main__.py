"""``python -m fiduciary_trainer [JOB.json]``: one job document in, one result out, an exit code for Kubernetes.
``python -m fiduciary_trainer compare [JOB.json]``: see :mod:`fiduciary_trainer.comparison`.
``python -m fiduciary_trainer outcomes [JOB.json]``: see :mod:`fiduciary_trainer.outcomes`.

An earlier attempt may have delivered the result (its run says so), or may have measured without MLflow (its work is on
the checkpoint volume). Both are looked for first: the same key is never trained twice.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    # Process 1 of a container does not even hear a SIGTERM that it has no handler for, and the imports below take
    # seconds: a pod deleted meanwhile would stay for its whole grace period. Nothing has begun: Retryable.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))

import argparse
import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiduciary_trainer import contract as contracts
from fiduciary_trainer import finished, outcome, provenance, retention
from fiduciary_trainer.data.locations import Locations, secret_values
from fiduciary_trainer.search.share import Share
from fiduciary_trainer.tracking import Tracking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.meeting import Meeting
    from fiduciary_trainer.search.run import Count

START_PATIENCE = 15.0
"""Seconds that a training waits for MLflow before it begins: enough for a restarting pod, short beside training."""

PATIENCE_WITH_CHECKPOINT = 900.0
"""Then the pod ends as Retryable; the work is on the volume, and the next attempt only uploads."""

PATIENCE_WITHOUT = 24 * 3600.0
"""The work would be lost with the pod: wait until the Job's deadline ends it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job; returns the exit code of docs/trainer-contract.md."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["compare"]:
        from fiduciary_trainer.comparison import process

        return process.main(arguments[1:])
    if arguments[:1] == ["outcomes"]:
        from fiduciary_trainer.outcomes import process as sender

        return sender.main(arguments[1:])
    given = _parse(arguments)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    locations = Locations(given.claims, given.checkpoints, given.secrets, given.checkpoint_secrets)
    process = _Process(given, locations, stop)
    try:
        code, document = 0, process.run()
    except Exception as error:  # everything ends in a document: the operator reads nothing else
        code, document = outcome.failure(error, process.training_key, process.run_id, secret_values(locations))
        if process.tracking is not None:
            process.tracking.fail(document)
    outcome.write(given.termination_log, document)
    return code


class _Process:
    """What is known so far, so that a failure can name it."""

    def __init__(self, given: argparse.Namespace, locations: Locations, stop: threading.Event) -> None:
        self._given = given
        self._locations = locations
        self._stop = stop
        self.training_key: str | None = None
        self.tracking: Tracking | None = None

    @property
    def run_id(self) -> str | None:
        place = self.tracking.place if self.tracking is not None else None
        return None if place is None else place.run_id

    def run(self) -> bytes:
        self.training_key = _key(self._given.job)
        contract = contracts.load(self._given.job)
        document = contract.document
        tracking = self.tracking = Tracking(
            uri=provenance.text(document, "mlflow", "trackingUri"),
            experiment=provenance.text(document, "mlflow", "experiment"),
            training_key=contract.training_key,
            run_name=f"{contract.training.architecture} {contract.as_of} {_short(contract.training_key)}",
            tags=provenance.run_tags(document),
            stop=self._stop,
        )
        share = _share(contract)
        if share.index:
            return self._help(contract, tracking, share)
        meeting, first = _meeting(contract, self._stop)
        if meeting is not None and not first:
            return self._work_along(contract, tracking, meeting)
        delivered = tracking.start(START_PATIENCE)
        message = self._train(contract, tracking, share, meeting) if delivered is None else outcome.fit(delivered)
        if meeting is not None:
            meeting.done()
        return message

    def _train(self, contract: Contract, tracking: Tracking, share: Share, meeting: Meeting | None) -> bytes:
        """Train, unless an earlier attempt left its work; then deliver it."""
        state = self._state(contract)
        done = finished.load(state, contract.training_key)
        if done is None:
            from fiduciary_trainer import pipeline  # torch and matplotlib, which an upload alone does not need

            shown = _Shown(tracking)
            done = pipeline.train(
                contract,
                self._locations,
                state,
                self._given.work,
                shown,
                self._stop,
                share,
                shown.trial,
                None if meeting is None else meeting.gather(),
            )
        kept = contract.checkpoint is not None
        message = tracking.deliver(done, PATIENCE_WITH_CHECKPOINT if kept else PATIENCE_WITHOUT)
        finished.discard(done)
        if kept:
            retention.forget(contract, self._locations)
        return message

    def _help(self, contract: Contract, tracking: Tracking, share: Share) -> bytes:
        """One of several pods that search: the first of them trains, the others carry out their trials and end."""
        delivered = tracking.delivered(START_PATIENCE)
        if delivered is not None:
            return outcome.fit(delivered)
        from fiduciary_trainer import pipeline

        trials = pipeline.carry_out_trials(contract, self._locations, share, self._stop)
        return outcome.encode(
            {
                "contractVersion": outcome.CONTRACT_VERSION,
                "outcome": "Searched",
                "trainingKey": contract.training_key,
                "trials": trials,
            }
        )

    def _work_along(self, contract: Contract, tracking: Tracking, meeting: Meeting) -> bytes:
        """One of several pods that train together: the first of them measures and delivers, the others fit with it."""
        delivered = tracking.delivered(START_PATIENCE)
        if delivered is not None:
            return outcome.fit(delivered)
        from fiduciary_trainer import pipeline

        workers = meeting.gather()
        if workers is not None:
            pipeline.work_along(contract, self._locations, workers, self._stop)
            meeting.stay()
        return outcome.encode(
            {
                "contractVersion": outcome.CONTRACT_VERSION,
                "outcome": "Helped",
                "trainingKey": contract.training_key,
            }
        )

    def _state(self, contract: Contract) -> Path:
        """Where finished work waits for MLflow: the checkpoint claim, if there is one that is a volume."""
        checkpoint = contract.checkpoint
        if checkpoint is not None and checkpoint.uri.startswith(("pvc://", "file://")):
            _, path = self._locations.open(checkpoint.uri, checkpoint=True)
            return Path(path) / "finished"
        return self._given.work / "finished"


class _Shown:
    """Passes progress on to the run, which decides how often."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._search: Mapping[str, Any] | None = None

    def __call__(
        self, *, epoch: int, epochs: int, percent: float, eta_seconds: float | None, metric: tuple[str, float] | None
    ) -> None:
        name, value = metric if metric is not None else (None, None)
        self._tracking.progress(epoch, epochs, percent, eta_seconds, name, value, self._search)

    def trial(self, count: Count, trial: Mapping[str, Any]) -> None:
        """A trial of the search has ended."""
        from fiduciary_trainer.search.summary import progress

        self._search = progress(count)
        self._tracking.trial(trial)


def _share(contract: Contract) -> Share:
    """What this pod carries out of a search: Kubernetes numbers the pods of an Indexed Job."""
    search, index = contract.training.search, os.environ.get("JOB_COMPLETION_INDEX", "")
    several = search is not None and search.parallelism > 1 and contract.checkpoint is not None
    return Share(int(index)) if several and index.isdecimal() else Share()


def _meeting(contract: Contract, stop: threading.Event) -> tuple[Meeting | None, bool]:
    """Where the pods of this training meet, and whether this is the first of them; None where it trains alone."""
    if contract.training.nodes == 1:
        return None, True
    from fiduciary_trainer.meeting import Meeting, Place  # torch

    place = Place.of(contract.training.nodes)
    return (None, True) if place is None else (Meeting(place, stop), place.rank == 0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fiduciary_trainer", description="Carry out one training job document.")
    parser.add_argument("job", nargs="?", type=Path, default=Path("/etc/fiduciary/job.json"))
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    parser.add_argument("--work", type=Path, default=Path("/scratch"), help="writable, lives as long as the pod")
    parser.add_argument("--claims", type=Path, default=Path("/data"), help="holds one folder a claim that is read")
    parser.add_argument("--checkpoints", type=Path, default=Path("/checkpoint"), help="holds the checkpoint claim")
    parser.add_argument("--secrets", type=Path, default=Path("/etc/fiduciary/secret"), help="one file a key")
    default = Path("/etc/fiduciary/checkpoint-secret")
    parser.add_argument("--checkpoint-secrets", type=Path, default=default, help="the same of checkpoints")
    return parser.parse_args(arguments)


def _key(job: Path) -> str | None:
    """The training key of a document that may be wrong elsewhere: a refusal should still say whose it is."""
    try:
        document = json.loads(job.read_bytes())
    except (OSError, ValueError):
        return None
    key = document.get("trainingKey") if isinstance(document, dict) else None
    return key if isinstance(key, str) else None


def _short(key: str) -> str:
    return key.removeprefix("sha256:")[:8]


if __name__ == "__main__":
    sys.exit(main())
