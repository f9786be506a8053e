"""Records that were lost after they were carried out: the route remembers their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.step import Note

if TYPE_CHECKING:
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History


def lost_records(case: Case, history: History) -> Note | None:
    """A route that carries out a record which does not exist (any more): what the log says now is not the truth."""
    route = case.world.route
    views = [("HTTPRoute", route), *(("Experiment", view) for view in case.world.seldon.experiments)]
    kind, view = max(views, key=lambda pair: pair[1].decision if pair[1] is not None else -1)
    if view is None or view.decision <= history.sequence:
        return None
    message = (
        f"{kind} {view.name} carries out record {view.decision}, and the log ends with record {history.sequence}: "
        "records were lost. The route stays as it is; restore them"
    )
    return Note(reasons.LOG_BROKEN, message, stalled=True)
