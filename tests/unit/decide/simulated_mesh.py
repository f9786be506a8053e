"""Seldon's scheduler and mesh in a simulated world, as a real v2.6.0 was observed (facts: serving.md §1b).

Statuses say what Seldon says, and the mesh does what it really does: the two differ where the real ones do. An edit of
an Experiment is taken at the next look, unless the scheduler is away; then its conditions stay as they were.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fiduciary.manifests.content import content_of
from fiduciary.serving.seldonviews import ExperimentView, ModelView, Said, SeldonView, ServerView

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from tests.unit.decide.simulated_serving import Stored

SERVER = ServerView("fiduciary", frozenset({"fiduciary-onnx"}), 4 << 30, replicas=3, ready=True)
AVAILABLE = Said(True, "", "ModelAvailable")


@dataclass
class Split:
    """What Envoy holds for the route of one default."""

    generation: int
    weights: dict[str, int]
    mirror: str | None = None


@dataclass
class SimulatedMesh:
    """A test turns what it wants to go wrong."""

    servers: tuple[ServerView, ...] = (SERVER,)
    scheduler_works: bool = True
    says: dict[str, Said] = field(default_factory=dict[str, Said])  # Model -> its condition instead of the usual one
    rejects: dict[str, str] = field(default_factory=dict[str, str])  # Experiment -> why
    no_route: set[str] = field(default_factory=set[str])  # Models whose route Envoy lacks though they are available
    holds: dict[str, Split] = field(default_factory=dict[str, Split])  # default -> split
    said: dict[str, tuple[tuple[str, Said], ...]] = field(default_factory=dict[str, "tuple[tuple[str, Said], ...]"])
    available: set[str] = field(default_factory=set[str])
    frozen: bool = False  # somebody's Experiment has weights that are all 0: Envoy refuses every later route table
    told: dict[str, Said] = field(default_factory=dict[str, Said])  # Model -> what Seldon said last
    changed: dict[tuple[str, int], datetime] = field(default_factory=dict[tuple[str, int], "datetime"])
    taken: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    flips: dict[str, int] = field(default_factory=dict[str, int])
    _requests: int = 0

    # -- the scheduler

    def turn(self, models: Mapping[str, Stored], experiments: Mapping[str, Stored], now: datetime) -> None:
        for name, stored in experiments.items():
            self.changed.setdefault((name, stored.generation), now)
        if not self.scheduler_works:
            return
        self.available = {
            name for name, stored in models.items() if stored.replicas > 0 and self.says.get(name, AVAILABLE).status
        }
        self.told = {name: self.says.get(name, AVAILABLE) for name in models}
        for default in [
            default for default in self.holds if not any(_default(s) == default for s in experiments.values())
        ]:
            del self.holds[default]
        for name, stored in experiments.items():
            self._take(name, stored, now)

    def _take(self, name: str, stored: Stored, now: datetime) -> None:
        default = _default(stored)
        if self.taken.get(name) == (stored.uid, stored.generation):
            return
        before = dict(self.said.get(name, ())) if self.taken.get(name, ("",))[0] == stored.uid else {}
        self.taken[name] = (stored.uid, stored.generation)
        if name in self.rejects:
            rejected = Said(False, self.rejects[name], "", now)
            self.said[name] = tuple({**before, "ModelReady": rejected}.items())
            return
        weights = _weights(stored)
        mirror = stored.body["spec"].get("mirror")
        taken = {"CandidatesReady": Said(True, "Candidates ready", "", now)}
        taken |= {"ExperimentReady": Said(True, "experiment active", "", now), "MirrorReady": Said(True, "", "", now)}
        missing = [candidate for candidate in weights if candidate not in self.available]
        if missing:
            no = f"No live replica for model {missing[0]} for model route {name}.experiment"
            taken |= {"CandidatesReady": Said(False, no, "", now), "ExperimentReady": Said(False, no, "", now)}
            weights = {default: 100}
        self.said[name] = tuple({**before, **taken}.items())
        if not self.frozen:
            self.holds[default] = Split(stored.generation, weights, mirror["name"] if mirror else None)

    # -- Envoy

    def shares(self, model: str) -> dict[str, float]:
        """Who answers requests with this model's name, and how often; nothing: 404."""
        if model in self.no_route:
            return {}
        held = self.holds.get(model)
        weights = held.weights if held is not None else {model: 100}
        live = {name: weight for name, weight in weights.items() if weight > 0 and name in self.available}
        total = sum(live.values())
        return {name: weight / total for name, weight in live.items()}

    def draw(self, headers: Mapping[str, str]) -> str | None:
        """The model that answers one request; None: 404."""
        model, pin = headers.get("seldon-model", ""), headers.get("x-seldon-route")
        if pin is not None:
            wanted = pin.strip(":").rpartition("_")[0]
            held = self.holds.get(model)
            return wanted if held is not None and wanted in held.weights and wanted in self.available else None
        shares = self.shares(model)
        self._requests += 1
        place, reached = (self._requests * 0.6180339887498949) % 1.0, 0.0
        for name, share in shares.items():
            reached += share
            if place < reached:
                return name
        return next(iter(shares), None)

    # -- what is seen

    def model(self, view: ModelView, name: str) -> ModelView:
        return replace(view, said=self.told.get(name))

    def view(self, experiments: Mapping[str, Stored]) -> SeldonView:
        return SeldonView(tuple(self._split(name, stored) for name, stored in experiments.items()), self.servers)

    def _split(self, name: str, stored: Stored) -> ExperimentView:
        spec, metadata = stored.body["spec"], stored.body["metadata"]
        content, edited = content_of(stored.body)
        mirror = spec.get("mirror")
        return ExperimentView(
            name=name,
            uid=stored.uid,
            resource_version=str(stored.version),
            generation=stored.generation,
            decision=int(metadata["annotations"]["fiduciary.dev/decision"]),
            content=content,
            edited=edited,
            owner_uid=next((owner["uid"] for owner in metadata.get("ownerReferences", ())), ""),
            default=spec["default"],
            candidates=tuple(_weights(stored).items()),
            mirror=(mirror["name"], mirror["percent"]) if mirror else None,
            conditions=self.said.get(name, ()),
            changed_at=self.changed.get((name, stored.generation)),
            flips=self.flips.get(name, 0),
        )


def _default(stored: Stored) -> str:
    return str(stored.body["spec"]["default"])


def _weights(stored: Stored) -> dict[str, int]:
    return {candidate["name"]: candidate["weight"] for candidate in stored.body["spec"]["candidates"]}


def named(objects: Mapping[tuple[str, str], Any], kind: str) -> Iterator[tuple[str, Any]]:
    """Objects of one kind by name."""
    return ((name, stored) for (found, name), stored in sorted(objects.items()) if found == kind)
