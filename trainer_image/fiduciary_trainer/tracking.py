"""MLflow: one run per training key, found again by its tag; patient when MLflow is away.

Only ``MlflowClient`` is used: the fluent API keeps a global current run, which a resumed run must not have.
Every call is safe to repeat, because a lost answer looks like a lost request.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fiduciary_trainer import trial_runs
from fiduciary_trainer.outcome import Retryable, encode, fit, significant
from fiduciary_trainer.patience import Unreachable, patiently

# Retries and their budget are ours (below); MLflow's own defaults are 7 retries of 120 s inside one call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

    from fiduciary_trainer.finished import Finished

T = TypeVar("T")

PREFIX = "fiduciary.dev/"
TAG_KEY = f"{PREFIX}training-key"
TAG_PROGRESS = f"{PREFIX}progress"
TAG_RESULT = f"{PREFIX}result"

PROGRESS_SECONDS = 5.0
SHORTEST_SILENCE, LONGEST_SILENCE = 30.0, 600.0
"""After progress could not be shown, doubling: an MLflow that swallows packets costs a timeout each time."""
TAG_LIMIT = 7_900
"""MLflow keeps 8,000 characters of a tag: room for the fold values that a termination message may have to leave out."""

BATCH = 500
"""Points in one call; MLflow accepts 1,000 metrics, parameters and tags together."""


@dataclass(frozen=True)
class RunPlace:
    """Where a run is."""

    run_id: str
    experiment_id: str
    artifact_uri: str


class Tracking:
    """The run of one training.

    Args:
        uri: MLflow's tracking address.
        experiment: name of the experiment, ``<namespace>.<name>``.
        training_key: the run's identity.
        run_name: what people see in the list of runs.
        tags: of the run from its start.
        stop: set when the pod must end; every wait ends with it.
        clock: seconds, monotonic.
        client: made from ``uri`` if absent.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        training_key: str,
        run_name: str,
        tags: Mapping[str, str],
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        client: MlflowClient | None = None,
    ) -> None:
        self._uri = uri
        self._experiment = experiment
        self._training_key = training_key
        self._run_name = run_name
        self._tags = {**tags, TAG_KEY: training_key}
        self._stop = stop
        self._clock = clock
        self._made_client = client
        self._next_progress = float("-inf")
        self._silence = SHORTEST_SILENCE
        self._next_trial = float("-inf")
        self._children: set[int] | None = None
        self.place: RunPlace | None = None

    @property
    def _client(self) -> MlflowClient:
        if self._made_client is None:
            from mlflow.tracking import MlflowClient  # two seconds of import, which a refused contract need not wait

            self._made_client = MlflowClient(tracking_uri=self._uri)
        return self._made_client

    def start(self, patience: float) -> dict[str, Any] | None:
        """Find or create the run; wait up to ``patience`` seconds for MLflow, then go on without it.

        Training needs no MLflow until it ends, so an absent one delays nothing but the display of progress.

        Returns:
            The result of this training key if an earlier attempt delivered it: then nothing is left to do.

        Raises:
            Retryable: MLflow answers, but refuses us (host name, credentials), which training cannot change.
        """
        try:
            run = self._patiently(self._find_or_create, patience)
        except Unreachable:
            return None
        result = run.data.tags.get(TAG_RESULT)
        return json.loads(result) if result and run.info.status == "FINISHED" else None

    def progress(
        self,
        epoch: int,
        epochs: int,
        percent: float,
        eta_seconds: float | None,
        name: str | None,
        value: float | None,
        search: Mapping[str, Any] | None = None,
    ) -> None:
        """Show how far the training is, at most every ``PROGRESS_SECONDS``. Never fails: it is only a display.

        ``name`` and ``value`` are the last metric; None where there is none yet. ``search``: how far a search is.
        """
        now = self._clock()
        if now < self._next_progress:
            return
        self._next_progress = now + PROGRESS_SECONDS
        document: dict[str, Any] = {
            "epoch": epoch,
            "epochs": epochs,
            "percent": round(percent, 1),
            "etaSeconds": None if eta_seconds is None else round(eta_seconds),
            "lastMetric": None if name is None else {"name": name, "value": significant(value)},
        }
        if search is not None:
            document["search"] = significant(search)
        try:
            place = self.place or self._settle(self._once(self._find_or_create))
            self._once(lambda: self._client.set_tag(place.run_id, TAG_PROGRESS, encode(document).decode()))
            self._silence = SHORTEST_SILENCE
        except (Unreachable, Retryable):
            self._next_progress = self._clock() + self._silence
            self._silence = min(2.0 * self._silence, LONGEST_SILENCE)

    def delivered(self, patience: float) -> dict[str, Any] | None:
        """The result of this training key if it was delivered; nothing is created. Errors as of :meth:`start`."""

        def find() -> Run | None:
            experiment = self._client.get_experiment_by_name(self._experiment)
            return None if experiment is None else self._find(experiment.experiment_id)

        try:
            run = self._patiently(find, patience)
        except Unreachable:
            return None
        result = None if run is None or run.info.status != "FINISHED" else run.data.tags.get(TAG_RESULT)
        return json.loads(result) if result else None

    def trial(self, trial: Mapping[str, Any]) -> None:
        """Show a trial of a search as a child of the run. Never fails: at the end all of them are made sure of."""
        if self.place is None or self._clock() < self._next_trial:
            return
        place = self.place
        try:
            if self._children is None:
                self._children = self._once(lambda: trial_runs.known(self._client, place.experiment_id, place.run_id))
            if trial["number"] not in self._children:
                self._once(lambda: trial_runs.log(self._client, place.experiment_id, place.run_id, trial))
                self._children.add(trial["number"])
        except (Unreachable, Retryable):
            self._next_trial = self._clock() + SHORTEST_SILENCE

    def deliver(self, finished: Finished, patience: float) -> bytes:
        """Upload everything, write the result tag, end the run.

        Args:
            finished: the work on disk.
            patience: seconds of waiting for MLflow, in total, before giving up.

        Returns:
            The termination message: the result tag, with fold values left out where it would be too long.

        Raises:
            Retryable: MLflow stayed away or refuses us; the work stays on disk.
        """
        end = self._clock() + patience

        def call(step: Callable[[], T]) -> T:
            try:
                return self._patiently(step, end - self._clock())
            except Unreachable as away:
                raise Retryable(
                    "RegistryUnreachable",
                    f"MLflow at {self._uri} did not take the measured result within {patience:.0f} s: {away}. "
                    "The result is kept on the checkpoint volume where the spec names one; a retry then only uploads",
                ) from away

        place = self.place or self._settle(call(self._find_or_create))
        run_id = place.run_id
        call(lambda: self._log_parameters(run_id, finished))
        for start in range(0, len(finished.points), BATCH):
            call(lambda start=start: self._log_points(run_id, finished, start))
        if finished.trials:
            where = place.experiment_id, place.run_id
            known = call(lambda: trial_runs.known(self._client, *where))
            for trial in finished.trials:
                if trial["number"] not in known:
                    call(lambda trial=trial: trial_runs.log(self._client, *where, trial))
        for item in sorted(finished.folder.iterdir()):
            if item.is_dir():
                call(lambda item=item: self._client.log_artifacts(run_id, str(item), item.name))
            elif item.name == "folds.json":
                call(lambda item=item: self._client.log_artifact(run_id, str(item)))
        result = {
            **finished.result,
            "runId": run_id,
            "experimentId": place.experiment_id,
            "source": f"{place.artifact_uri.rstrip('/')}/version",
        }
        whole, message = fit(result, TAG_LIMIT), fit(result)
        call(lambda: self._client.set_tag(run_id, TAG_RESULT, whole.decode()))
        call(lambda: self._client.set_terminated(run_id, "FINISHED"))
        return message

    def fail(self, document: bytes) -> None:
        """Mark the run as failed with its document, if MLflow is there; never an error of its own."""
        if self.place is None:
            return
        run_id = self.place.run_id
        try:
            self._once(lambda: self._client.set_tag(run_id, TAG_RESULT, document.decode()))
            self._once(lambda: self._client.set_terminated(run_id, "FAILED"))
        except (Unreachable, Retryable):
            pass

    def _find_or_create(self) -> Run:
        experiment = self._experiment_id()
        run = self._find(experiment)
        if run is None:
            tags = {**self._tags, "mlflow.runName": self._run_name}
            self._client.create_run(experiment, tags=tags, run_name=self._run_name)
            # Read again: after a lost answer there may be two, and every attempt must settle on the same one.
            run = self._find(experiment)
            if run is None:
                raise Unreachable("the run that was just created is not found")
        elif run.info.status != "FINISHED":
            self._client.update_run(run.info.run_id, status="RUNNING")
            for name, value in self._tags.items():
                if run.data.tags.get(name) != value:
                    self._client.set_tag(run.info.run_id, name, value)
        self._settle(run)
        return run

    def _settle(self, run: Run) -> RunPlace:
        self.place = RunPlace(run.info.run_id, run.info.experiment_id, run.info.artifact_uri)
        return self.place

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return self._client.create_experiment(self._experiment)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _find(self, experiment: str) -> Run | None:
        """The oldest run that carries our key."""
        query = f"tags.`{TAG_KEY}` = '{self._training_key}'"
        runs = self._client.search_runs([experiment], query, max_results=1, order_by=["attributes.start_time ASC"])
        return runs[0] if runs else None

    def _log_parameters(self, run_id: str, finished: Finished) -> None:
        from mlflow.entities import Param, RunTag

        known = self._client.get_run(run_id).data.params
        parameters = [Param(name, value) for name, value in finished.parameters.items() if name not in known]
        tags = [RunTag(name, value) for name, value in finished.tags.items()]
        self._client.log_batch(run_id, params=parameters[:90], tags=tags)

    def _log_points(self, run_id: str, finished: Finished, start: int) -> None:
        from mlflow.entities import Metric

        points = finished.points[start : start + BATCH]
        self._client.log_batch(run_id, metrics=[Metric(p.name, p.value, p.at_ms, p.step) for p in points])

    def _patiently(self, step: Callable[[], T], patience: float) -> T:
        """Repeat a step with growing delays until it succeeds, ``patience`` is used up, or the pod must end."""
        return patiently(lambda: self._once(step), patience, self._stop, f"MLflow at {self._uri}", self._clock)

    def _once(self, step: Callable[[], T]) -> T:
        return asked(self._uri, step)


def asked(uri: str, step: Callable[[], T]) -> T:
    """Call MLflow at ``uri`` and sort its failures: :class:`Unreachable` (asking again may help), or a refusal."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        return step()
    except (requests.RequestException, ConnectionError, TimeoutError) as error:
        raise Unreachable(type(error).__name__) from error
    except MlflowException as error:
        refused = refusal(uri, str(error), error.get_http_status_code())
        if refused is not None:
            raise refused from error
        raise Unreachable(_brief(str(error))) from error


def refusal(uri: str, text: str, status: int) -> Retryable | None:
    """The typed refusal that an answer of MLflow stands for; None where MLflow is only away.

    Args:
        uri: MLflow's address, for the message.
        text: the client's error.
        status: HTTP status that the client derived; 500 also when there was no answer at all.
    """
    said = re.search(r"error code (\d{3})", text)
    code = int(said[1]) if said else status
    if "Invalid Host header" in text:
        return Retryable(
            "RegistryHostRejected",
            f"MLflow at {uri} answers 403 Invalid Host header; start it with --allowed-hosts that include this name",
        )
    if code in (401, 403):
        return Retryable("RegistryUnauthorized", f"MLflow at {uri} answers {code}; check the connection's credentials")
    if 400 <= code < 500 and code not in (408, 409, 425, 429):
        return Retryable("RegistryRefused", f"MLflow at {uri} answers {code}: {_brief(text)}")
    return None


def _brief(text: str) -> str:
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= 200 else f"{line[:199]}…"
