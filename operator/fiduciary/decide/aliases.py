"""MLflow's aliases as a mirror of the log: what they should say, and whether somebody else moved them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.decide.decision import Mirror

if TYPE_CHECKING:
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History

CHAMPION = "champion"
CHALLENGER = "challenger"
GRACE = timedelta(seconds=60)
"""An alias that is out of step so soon after a decision is our own write that has not arrived, nobody's deed."""


def wanted(history: History) -> dict[str, str]:
    """The aliases that the log asks for."""
    standing = {CHAMPION: history.champion, CHALLENGER: history.challenger}
    return {alias: place.version for alias, place in standing.items() if place is not None and place.version}


def mirror(case: Case, history: History) -> Mirror | None:
    """The writes that bring MLflow in step; None where it is, or could not be asked."""
    registry = case.registry
    if registry is None or not registry.reachable:
        return None
    want = wanted(history)
    extra = tuple(alias for alias in (CHAMPION, CHALLENGER) if alias in registry.aliases and alias not in want)
    if not extra and all(registry.aliases.get(alias) == version for alias, version in want.items()):
        return None
    standing = [place for place in (history.champion, history.challenger) if place is not None and place.version]
    return Mirror(
        connection=case.spec.registry.connection,
        model=case.registered_model,
        set_aliases=want,
        delete_aliases=extra,
        version_tags={str(place.version): {"fiduciary.dev/decision": str(place.decision)} for place in standing},
    )


def moved(case: Case, history: History) -> str | None:
    """What somebody else did to our aliases; None if nothing, or if it may be our own write under way."""
    registry, last = case.registry, history.last
    if registry is None or not registry.reachable or last is None or last.at is None or case.now - last.at < GRACE:
        return None
    told = [
        f"{alias} is {registry.aliases.get(alias) or 'not set'}, the log says {version}"
        for alias, version in wanted(history).items()
        if registry.aliases.get(alias) != version
    ]
    if not told:
        return None
    return f"somebody changed aliases of {case.registered_model} in MLflow: {'; '.join(told)}. They are set back"
