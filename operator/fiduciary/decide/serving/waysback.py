"""Versions that may serve again, and whether one may serve at all as it was judged last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide.experiment.facts import verdict_on

if TYPE_CHECKING:
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.history import History


def ways_back(history: History) -> list[VersionRef]:
    """Earlier champions that may serve again, the latest first: not rolled back, and passing as judged last."""
    return [one for one in history.former if one.digest not in history.refused and passes(history, one)]


def passes(history: History, version: VersionRef) -> bool:
    """Whether the newest verdict on the artifact lets it serve. One whose records were exported did pass once."""
    verdict = verdict_on(history, version.digest or "")
    return verdict is None or verdict.action == "Accept"
