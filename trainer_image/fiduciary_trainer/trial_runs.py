"""Trials of a search as child runs in MLflow: what people compare. Nothing is ever read back from them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PARENT = "mlflow.parentRunId"
"""The tag by which MLflow's pages fold child runs under their parent."""
TAG_TRIAL = "fiduciary.dev/trial"
TAG_STATE = "fiduciary.dev/trial-state"
TAG_REASON = "fiduciary.dev/trial-reason"
STATUS = {"Complete": "FINISHED", "Pruned": "KILLED", "Failed": "FAILED"}
"""MLflow has no word for a trial that was given up; KILLED is what its own integration with optuna uses."""


def known(client: MlflowClient, experiment: str, run: str) -> set[int]:
    """Numbers of the trials that have a whole child run."""
    ended = (child for child in _children(client, experiment, run) if child.info.status in STATUS.values())
    return {int(child.data.tags[TAG_TRIAL]) for child in ended}


def log(client: MlflowClient, experiment: str, run: str, trial: Mapping[str, Any]) -> None:
    """Make a trial's child run, or finish one that an interruption has left: safe to repeat."""
    from mlflow.entities import Metric, Param, RunTag

    number = int(trial["number"])
    name = f"trial {number}"
    query = f"tags.`{TAG_TRIAL}` = '{number}'"
    child = next(iter(_children(client, experiment, run, query)), None)
    if child is None:
        tags = {PARENT: run, TAG_TRIAL: str(number), "mlflow.runName": name}
        child = client.create_run(experiment, tags=tags, run_name=name)
    now, child_id = time.time_ns() // 1_000_000, child.info.run_id
    tags = [RunTag(TAG_STATE, trial["state"])]
    if trial["reason"]:
        tags.append(RunTag(TAG_REASON, trial["reason"][:500]))
    client.log_batch(
        child_id,
        metrics=[Metric(name, loss, now, 0) for name, loss in trial["losses"].items()],
        params=[Param(f"hyperparameters.{name}", str(value)) for name, value in trial["configuration"].items()],
        tags=tags,
    )
    client.set_terminated(child_id, STATUS[trial["state"]])


def _children(client: MlflowClient, experiment: str, run: str, also: str = "") -> list[Run]:
    query = f"tags.`{PARENT}` = '{run}'" + (f" AND {also}" if also else "")
    found = client.search_runs([experiment], query, max_results=5000)
    return [child for child in found if child.data.tags.get(TAG_TRIAL, "").isdecimal()]
