"""What became of a model, in the words of the objects themselves: their conditions, and the records of the log."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.kubectl import said
from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.kubectl import Kubectl, Object

LATEST = 3  # records that say how it came to this
WATCHED = "HarmAfterPromotion"
BUSY = (
    "A new champion is watched for promotion.rollbackWindow, against what clients were used to: it has all the "
    "requests, so nobody serves beside it at the same time. Where a busy machine makes answers slow, this is what "
    "happens. Run `make demo` again while nothing else runs here"
)


@dataclass(frozen=True)
class Account:
    """One FinancialModel, its experiments and its log."""

    kubectl: Kubectl
    namespace: str
    model: str

    def records(self) -> list[Object]:
        """Specs of its ModelDecisions, oldest first."""
        found = [one["spec"] for one in self._items("modeldecisions")]
        mine = [one for one in found if one["modelRef"]["name"] == self.model]
        return sorted(mine, key=lambda record: record["sequence"])

    def still_champion(self, version: str) -> None:
        """Raises StepFailed with the record that took the version's place away where it is not."""
        model = self.kubectl.get("financialmodel", self.model, "-n", self.namespace)
        champion = model.get("status", {}).get("champion", {}).get("version", "none")
        if champion == version:
            return
        left = [one for one in self.records() if one.get("from", {}).get("version") == version]
        left = [one for one in left if one["action"] in ("Promote", "RollBack")]
        why = f": {told(left[-1])}" if left else ""
        advice = f"\n{BUSY}" if left and WATCHED in _reasons(left[-1]) else ""
        raise StepFailed(f"version {version} is champion no more, version {champion} is{why}{advice}")

    @contextmanager
    def while_champion(self, version: str) -> Iterator[None]:
        """What fails in here because the champion lost its place says that instead."""
        try:
            yield
        except StepFailed:
            self.still_champion(version)
            raise

    def standing(self) -> list[str]:
        """A sentence for each of its objects, and one for each of its latest records. Empty where nobody answers."""
        try:
            items = [*self._items("financialmodels"), *self._items("modelexperiments")]
            mine = [item for item in items if self.model in (item["metadata"]["name"], _model(item))]
            return [*map(said, mine), *map(told, self.records()[-LATEST:])]
        except StepFailed:
            return []

    def _items(self, kind: str) -> list[Object]:
        return self.kubectl.get(kind, "-n", self.namespace)["items"]


def told(record: Object) -> str:
    """A record in a sentence."""
    reasons = _reasons(record)
    why = f" ({', '.join(reasons)})" if reasons else ""
    return f"record {record['sequence']}, {record['action']}{why}: {record['cause'].get('message', '')}"


def _reasons(record: Object) -> list[str]:
    return [one["reason"] for one in record["cause"].get("reasons", ())]


def _model(item: Object) -> str | None:
    return item["spec"].get("modelRef", {}).get("name")
