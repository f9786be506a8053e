"""What the experiments of a model's life have used up, folded from its records in order (statistics.md rules 6 and 18).

Nothing of it is stored: the log says it, so lost status is rebuilt without a decision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fiduciary.decide.experiment.world import Anchor, Carried, Spending

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Pair:
    """An experiment that ended: its two versions, and where it stood."""

    champion: str  # digest
    challenger: str
    test: int
    discoveries: int
    carried: tuple[Carried, ...]


@dataclass(frozen=True, slots=True)
class Spent:
    """j and R so far, the anchors with what was lost since, and every pair that was compared."""

    tests: int = 0
    discoveries: int = 0
    anchors: tuple[Anchor, ...] = ()
    pairs: tuple[Pair, ...] = ()

    def after(self, verdict: str, champion: str, challenger: str, summary: Mapping[str, Any]) -> Spent:
        """With one more recorded verdict of an experiment; ``summary`` as :mod:`.summary` wrote it.

        A superiority test counts when it began, whatever came of it. A promotion on superiority is a discovery and the
        new anchor; one of a refresh adds its estimated differences.
        """
        if "test" not in summary:
            return self  # it never began
        improves = summary["purpose"] == "Improve"
        pair = Pair(champion, challenger, summary["test"], summary["discoveries"], _carried(summary))
        others = tuple(one for one in self.pairs if (one.champion, one.challenger) != (champion, challenger))
        spent = replace(
            self,
            tests=max(self.tests, summary["test"]) if improves else self.tests,
            pairs=(*others, pair),
        )
        if verdict != "Promote":
            return spent
        if improves:
            return replace(spent, discoveries=self.discoveries + 1, anchors=_anchors(summary))
        return replace(spent, anchors=_consumed(self.anchors, summary))

    def spending(self, champion: str, challenger: str, configurations: int) -> Spending:
        """What the next experiment on this pair starts with. A resumed pair is the test that it was, not a new one."""
        known = next((p for p in self.pairs if (p.champion, p.challenger) == (champion, challenger)), None)
        if known is not None:
            return Spending(known.test, known.discoveries, configurations, self.anchors, known.carried)
        return Spending(self.tests + 1, self.discoveries, configurations, self.anchors)


def _carried(summary: Mapping[str, Any]) -> tuple[Carried, ...]:
    carried: list[Carried] = []
    for name, kept in summary["guardrails"].items():
        carried.append(Carried(name, "Harm", float(kept["harm"])))
        if "notWorse" in kept:
            carried.append(Carried(name, "NonInferiority", float(kept["notWorse"])))
    for name, kept in summary["objectives"].items():
        carried.append(Carried(name, "Superiority", float(kept["logE"]), int(summary["through"])))
    return tuple(carried)


def _anchors(summary: Mapping[str, Any]) -> tuple[Anchor, ...]:
    return tuple(Anchor(name, float(kept["rate"])) for name, kept in summary["guardrails"].items() if "rate" in kept)


def _consumed(anchors: tuple[Anchor, ...], summary: Mapping[str, Any]) -> tuple[Anchor, ...]:
    """The first champion is the first anchor: its rate is the challenger's less the difference."""
    before = {anchor.name: anchor for anchor in anchors}
    for name, kept in summary["guardrails"].items():
        if "rate" not in kept:
            continue
        rate, difference = float(kept["rate"]), float(kept["difference"])
        old = before.get(name) or Anchor(name, max(0.0, rate - difference))
        before[name] = replace(old, differences=old.differences + difference)
    return tuple(before.values())
