"""Why a version is not ready, whatever loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide.serving import podfacts
from fiduciary.decide.serving.seldon import models
from fiduciary.serving.seldonviews import ModelView

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.step import Note
    from fiduciary.serving.observed import DeploymentView


def not_ready(case: Case, view: DeploymentView, need: int) -> Note | None:
    """Why fewer than ``need`` replicas are ready; None if enough are."""
    if isinstance(view, ModelView):
        return models.not_ready(case, view, need)
    return podfacts.not_ready(view, need, case.now)


def rolling_out(case: Case, view: DeploymentView) -> Note | None:
    """What keeps a version that answers from being as it should be everywhere."""
    if isinstance(view, ModelView):
        return models.not_ready(case, view, view.replicas)
    return podfacts.rolling_out(view, case.now)


def next_look(case: Case, view: DeploymentView) -> datetime | None:
    """When time alone makes a state something to tell."""
    if isinstance(view, ModelView):
        return models.next_look(view, case.now)
    return podfacts.next_look(view, case.now)
