"""What a run says of itself becomes status.training.progress."""

from __future__ import annotations

from fiduciary.decide.running import _told


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
