"""What the experiments of a model's life have used up, folded from its records in order (statistics.md rules 6 and 18).

Nothing of it is stored: the log says it, so lost status is rebuilt without a decision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fiduciary.decide.experiment.recorded import VERDICTS
from fiduciary.decide.experiment.summary import rows
from fiduciary.decide.experiment.world import Anchor, Carried, Resumed, Spending
from fiduciary.decide.trial import trial_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fiduciary.api.modeldecision import ModelDecision, ModelDecisionSpec


@dataclass(frozen=True, slots=True)
class Pair:
    """An experiment that ended: its two versions, and where it stood."""

    champion: str  # digest
    challenger: str
    resumed: Resumed | None  # its last superiority test; a refresh is none
    carried: tuple[Carried, ...]


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion changed, so that it can be gone back on."""

    champion: str
    challenger: str
    anchors: tuple[Anchor, ...]  # before it


@dataclass(frozen=True, slots=True)
class Spent:
    """j and R so far, the anchors with what was lost since, and every pair that was compared."""

    tests: int = 0
    discoveries: int = 0
    anchors: tuple[Anchor, ...] = ()
    pairs: tuple[Pair, ...] = ()
    promotions: tuple[Promotion, ...] = ()  # that stand, oldest first

    def after(self, verdict: str, champion: str, challenger: str, summary: Mapping[str, Any]) -> Spent:
        """With one more recorded verdict of an experiment; ``summary`` as :mod:`.summary` wrote it.

        A superiority test counts when it began, whatever came of it. A promotion on superiority is a discovery and the
        new anchor; one of a refresh adds its estimated differences. One that is gone back on gives the anchors back: a
        margin is measured from what serves. It stays a discovery, since superiority was shown.
        """
        if "test" not in summary:
            return self  # it never began
        improves = summary["purpose"] == "Improve"
        before = self._pair(champion, challenger)
        others = tuple(one for one in self.pairs if one is not before)
        spent = replace(
            self,
            tests=max(self.tests, summary["test"]) if improves else self.tests,
            pairs=(*others, _ended(before, champion, challenger, summary)),
        )
        if verdict == "RollBack":
            return spent._without(champion, challenger)
        if verdict != "Promote":
            return spent
        promotions = (*self.promotions, Promotion(champion, challenger, self.anchors))
        if improves:
            found = self.discoveries + 1
            return replace(spent, discoveries=found, anchors=_anchors(summary), promotions=promotions)
        return replace(spent, anchors=_consumed(self.anchors, summary), promotions=promotions)

    def spending(self, champion: str, challenger: str, configurations: int) -> Spending:
        """What the next experiment on this pair starts with."""
        known = self._pair(champion, challenger)
        return Spending(
            self.tests + 1,
            self.discoveries,
            configurations,
            self.anchors,
            () if known is None else known.carried,
            None if known is None else known.resumed,
        )

    def _pair(self, champion: str, challenger: str) -> Pair | None:
        return next((one for one in self.pairs if (one.champion, one.challenger) == (champion, challenger)), None)

    def _without(self, champion: str, challenger: str) -> Spent:
        """With the anchors of before the newest promotion of this pair; unchanged if it was never promoted."""
        stand = self.promotions
        for index in reversed(range(len(stand))):
            if (stand[index].champion, stand[index].challenger) == (champion, challenger):
                return replace(self, anchors=stand[index].anchors, promotions=stand[:index])
        return self


def spent(records: Iterable[ModelDecision]) -> Spent:
    """What a log has used up."""
    return charged(record.spec for record in records)


def charged(records: Iterable[ModelDecisionSpec]) -> Spent:
    """What records have used up, the one that is only being written included.

    An experiment that got traffic and has no verdict with its numbers (it was removed by force, or its model was
    deleted) has begun its test all the same.
    """
    found = Spent()
    open_: dict[str, bool] = {}  # UID of a trial -> whether it claims superiority
    promoted: dict[str, tuple[str, str]] = {}  # UID -> its pair
    for spec in records:
        if spec.action == "Retire":
            found, open_ = replace(found, tests=found.tests + sum(open_.values())), {}
        trial = trial_of(spec)
        if trial is None:
            continue
        if spec.action == "Shift":
            open_.setdefault(trial.uid, trial.purpose == "Improve")
        elif spec.action in VERDICTS:
            claims, summary = open_.pop(trial.uid, False), spec.evidence.summary
            if "test" not in summary:
                found = replace(found, tests=found.tests + claims)
                continue
            its = promoted.get(trial.uid) or pair_of(spec)
            if spec.action == "Promote":
                promoted[trial.uid] = its
            found = found.after(VERDICTS[spec.action], *its, summary)
    return found


def pair_of(record: ModelDecisionSpec) -> tuple[str, str]:
    """Digests of (champion, challenger) of a verdict: its two versions, unless its summary says otherwise."""
    told = record.evidence.summary.get("pair")
    if told is not None:
        return str(told[0]), str(told[1])
    before, after = ("" if ref is None else ref.digest or "" for ref in (record.from_, record.to))
    return (after, before) if record.action == "RollBack" else (before, after)


def tried(records: Iterable[ModelDecision]) -> int:
    """N: distinct configurations whose outer results were seen since the last discovery; the challenger's at least."""
    found: set[str] = set()
    for record in records:
        summary = record.spec.evidence.summary
        if "configKey" in summary and "measured" in summary:
            found.add(str(summary["configKey"]))
        elif record.spec.action == "Promote" and summary.get("purpose") == "Improve":
            found.clear()
    return max(1, len(found))


def _ended(before: Pair | None, champion: str, challenger: str, summary: Mapping[str, Any]) -> Pair:
    """A refresh asks nothing of objectives: what an earlier test on the pair has shown of them stays."""
    resumed, carried = None if before is None else before.resumed, _carried(summary)
    improves = summary["purpose"] == "Improve"
    if improves:
        resumed = Resumed(summary["test"], summary["discoveries"], summary["configurations"])
    renewed = {(one.name, one.side, one.what) for one in carried}
    kept = tuple(
        one
        for one in (() if before is None else before.carried)
        if (one.name, one.side, one.what) not in renewed and not (improves and one.side == "Superiority")
    )
    return Pair(champion, challenger, resumed, (*kept, *carried))


def _carried(summary: Mapping[str, Any]) -> tuple[Carried, ...]:
    carried: list[Carried] = []
    for name, kept in rows(summary).items():
        carried.append(Carried(name, "Harm", kept["what"], float(kept["harm"])))
        if "notWorse" in kept:
            margin = float(kept["margin"])
            carried.append(Carried(name, "NonInferiority", kept["what"], float(kept["notWorse"]), margin))
    for name, kept in summary["objectives"].items():
        # A live ledger belongs to one experiment: the next one has another, whose rows begin with 0.
        through = -1 if kept["what"].endswith(" Live") else int(summary["through"])
        carried.append(Carried(name, "Superiority", kept["what"], float(kept["logE"]), through=through))
    return tuple(carried)


def _anchors(summary: Mapping[str, Any]) -> tuple[Anchor, ...]:
    return tuple(Anchor(name, float(kept["rate"])) for name, kept in rows(summary).items() if "rate" in kept)


def _consumed(anchors: tuple[Anchor, ...], summary: Mapping[str, Any]) -> tuple[Anchor, ...]:
    """The first champion is the first anchor: its rate is the challenger's less the difference."""
    before = {anchor.name: anchor for anchor in anchors}
    for name, kept in rows(summary).items():
        if "rate" not in kept:
            continue
        rate, difference = float(kept["rate"]), float(kept["difference"])
        old = before.get(name) or Anchor(name, max(0.0, rate - difference))
        before[name] = replace(old, differences=old.differences + difference)
    return tuple(before.values())
