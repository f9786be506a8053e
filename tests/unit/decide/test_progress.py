"""What a run says of itself becomes status.training.progress."""

from __future__ import annotations

from fiduciary.api.modelstatus import SearchProgress
from fiduciary.decide.running import _searched, _told, _trials


def test_the_trainers_own_words_are_taken() -> None:
    """As the tag was read from MLflow on the node, where a fraction of a percent hid all progress."""
    metric = {"name": "inner_loss", "value": 0.69256}
    told = _told({"epoch": 365, "epochs": 560, "etaSeconds": 12, "lastMetric": metric, "percent": 65.2})
    assert told is not None
    assert (told.percent, told.epoch, told.epochs, told.eta_seconds) == (65, 365, 560, 12)
    assert told.last_metric is not None
    assert told.last_metric.value == "0.69256"


def test_what_a_foreign_image_wrote_there_is_ignored() -> None:
    assert _told({"percent": "half"}) is None


def test_how_far_a_search_is() -> None:
    counts = {"trials": 12, "total": 20, "running": 2, "pruned": 3, "failed": 1}
    told = {"percent": 40.2, "search": {**counts, "best": 0.161}}
    progress = _told(told)
    assert progress is not None
    assert progress.percent == 40
    search = _searched(told)
    assert search == SearchProgress(**counts, best="0.161")
    assert _trials(search) == "12 of 20 trials of its search ended, 3 given up, 1 failed"
    assert _searched({"percent": 40}) is None
    assert _searched({"search": {"trials": -1, "total": "all"}}) is None
    none_yet = _searched({"search": {"trials": 0, "total": 20, "running": 1, "best": None}})
    assert none_yet is not None
    assert none_yet.best is None
