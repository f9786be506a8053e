"""What a ledger compares: everything that a row depends on besides predictions and outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, cast

from fiduciary_outcomes.document import Field, Object, digest, model_name

if TYPE_CHECKING:
    from collections.abc import Mapping

LabelKind = Literal["Direction", "Return", "Volatility"]
Arm = Literal["champion", "challenger"]
ARMS: tuple[Arm, Arm] = ("champion", "challenger")
VERSION = frozenset({"version", "digest"})
SHARED = frozenset({"kind", "model", "champion", "challenger", "label", "calendar"})
Kind = Literal["Live", "Watch", "Prequential"]
"""Live: of an experiment. Watch: of the version that serves, beside the one before it where there is one. Prequential:
of two procedures that were replayed; it comes complete."""
LIVE = SHARED | {"pairing", "graceSeconds", "firstSession"}
LIVE_OPTIONAL = frozenset({"clock", "paper"})
LONGEST_GRACE = 400 * 86400


@dataclass(frozen=True)
class Version:
    """One arm: an immutable version of the model."""

    number: str
    digest: str


@dataclass(frozen=True)
class Paper:
    """Trading on paper.

    Attributes:
        notional: capital of each arm, in the currency of the breaker's limit; profits are not reinvested.
        cost: of trading one unit of notional, as a share of it.
    """

    notional: float
    cost: float


@dataclass(frozen=True)
class Definition:
    """A ledger's header.

    Attributes:
        document: as it was sent; ``digest`` is its hash, and begins the chain.
        grace: seconds after the label's end at which a session closes.
        clock: ``Wall``, or ``Outcomes``: the newest label end whose outcome met a prediction (market replay).
        paper: None where the label has no direction to trade, or where none was asked for.
    """

    document: Mapping[str, object]
    digest: str
    kind: Kind
    model: str
    champion: Version
    challenger: Version | None  # None: a watched version without one before it
    label: LabelKind
    horizon: int
    calendar: str
    pairing: Literal["EntityTime", "RequestId"] = "EntityTime"
    grace: float = 0.0
    first_session: str = ""
    clock: Literal["Wall", "Outcomes"] = "Wall"
    paper: Paper | None = None

    @property
    def versions(self) -> Mapping[Arm, Version]:
        """Of each arm that there is."""
        if self.challenger is None:
            return {"champion": self.champion}
        return {"champion": self.champion, "challenger": self.challenger}


def read_live(found: Object, namespace: str) -> Definition:
    """A definition whose keys were checked against :data:`LIVE`. Raises :class:`~document.Refused`."""
    shared = _shared(found, namespace)
    definition = Definition(
        **shared,
        kind=cast("Kind", found["kind"].choice("Live", "Watch")),
        pairing=cast("Literal['EntityTime', 'RequestId']", found["pairing"].choice("EntityTime", "RequestId")),
        grace=float(found["graceSeconds"].integer(0, LONGEST_GRACE)),
        first_session=day(found["firstSession"]),
        clock=cast("Literal['Wall', 'Outcomes']", found["clock"].choice("Wall", "Outcomes"))
        if "clock" in found
        else "Wall",
        paper=_paper(found["paper"]) if "paper" in found else None,
    )
    if definition.paper is not None and definition.label == "Volatility":
        found["paper"].refuse("null: a volatility forecast says nothing about direction, so there is nothing to trade")
    if definition.paper is not None and definition.pairing == "RequestId":
        found["paper"].refuse("null: requests have no entity to trade")
    return definition


def read_prequential(found: Object, namespace: str) -> Definition:
    """The header of a posted ledger: its document without the rows. Raises :class:`~document.Refused`."""
    if not isinstance(found["provenance"].value, dict):
        found["provenance"].refuse("an object that says whose procedures were replayed on which data")
    return Definition(**_shared(found, namespace), kind="Prequential")


def day(field: Field) -> str:
    """An ISO date."""
    text = field.text(10, 10, what="a date such as 2018-01-02")
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        field.refuse("a date such as 2018-01-02")


def _shared(found: Object, namespace: str) -> dict[str, Any]:
    label = found["label"].object(frozenset({"kind", "horizon"}))
    alone = found["kind"].value == "Watch" and found["challenger"].value is None
    champion = _version(found["champion"])
    challenger = None if alone else _version(found["challenger"])
    if challenger is not None and challenger.digest == champion.digest:
        found["challenger"].refuse("another version than the champion's", "SameVersion")
    return {
        "document": {key: value for key, value in found.content.items() if key not in ("rows", "digest")},
        "digest": digest({key: value for key, value in found.content.items() if key not in ("rows", "digest")}),
        "model": model_name(found["model"], namespace),
        "champion": champion,
        "challenger": challenger,
        "label": label["kind"].choice("Direction", "Return", "Volatility"),
        "horizon": label["horizon"].integer(1, 260),
        "calendar": found["calendar"].text(32),
    }


def _version(field: Field) -> Version:
    found = field.object(VERSION)
    return Version(found["version"].text(32), found["digest"].digest())


def _paper(field: Field) -> Paper:
    found = field.object(frozenset({"notional", "costBps"}))
    return Paper(found["notional"].amount(), found["costBps"].amount() / 10_000.0)
