"""What the route has to be: a function of the decision log, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.manifests.plans import Arm, Mirrored

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.history import History


@dataclass(frozen=True, slots=True)
class Routing:
    """Who answers clients from record ``decision`` on. ``blocked``: nobody, by the kill switch."""

    decision: int
    at: datetime
    arms: tuple[Arm, ...]
    mirrored: tuple[Mirrored, ...] = ()
    blocked: bool = False

    @property
    def answering(self) -> frozenset[str]:
        """Digests that may answer a request."""
        return frozenset(arm.version.digest or "" for arm in self.arms if arm.weight > 0)


def routing(history: History) -> Routing | None:
    """The route that the log asks for; None where there must be none: nothing was ever routed, or serving ended."""
    champion, traffic = history.champion, history.traffic
    if champion is None or traffic is None or traffic.champion == 0 or history.routed_at is None:
        return None
    kill, challenger = history.kill, history.challenger
    if kill is None or not kill.engaged:
        arms = [Arm(champion, traffic.champion)]
        mirrored: tuple[Mirrored, ...] = ()
        if challenger is not None and traffic.challenger > 0:
            arms.append(Arm(challenger, traffic.challenger))
        if challenger is not None and traffic.mirror > 0:
            mirrored = (Mirrored(challenger, traffic.mirror),)
        return Routing(history.routed, history.routed_at, tuple(arms), mirrored)
    if history.kill_serves is not None:
        return Routing(history.routed, history.routed_at, (Arm(history.kill_serves, 100),))
    return Routing(history.routed, history.routed_at, (Arm(champion, 0),), blocked=True)


def without_challenger(routing: Routing | None) -> Routing | None:
    """The same with all requests to the champion: harm was found, and its record cannot be written yet."""
    if routing is None or routing.blocked or len(routing.arms) + len(routing.mirrored) < 2:
        return routing
    return replace(routing, arms=(Arm(routing.arms[0].version, 100),), mirrored=())
