"""A served model whose challengers are judged by experiments: acts on it, waits, and what its log says of them.

Blocks are as short as the sandbox's scrapes allow: an experiment comes to its verdict in a minute under a load of
`inference.RATE` requests a second.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sandbox import images, load
from tests.e2e.cluster import condition, has
from tests.e2e.models import merged
from tests.e2e.place import ROOT
from tests.e2e.serving import TRAINED, served

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sandbox.load import Client, Sent
    from sandbox.market import Market
    from tests.e2e.cluster import Object
    from tests.e2e.serving import Service

SCRAPE = 5  # seconds: deploy/sandbox/prometheus
JUDGED = 240  # seconds for a verdict
ENDED = ("Promoted", "RolledBack", "Kept")


def steps(**weights: int) -> list[Object]:
    """`shadow=0` is a full mirror, any other number a weight; two blocks each."""
    return [
        {"name": name, "minBlocks": 2, **({"weight": weight} if weight else {"mirror": 100})}
        for name, weight in weights.items()
    ]


TEMPLATE: Object = {
    "traffic": {"steps": steps(shadow=0, half=50)},
    "evidence": {"block": "10s", "dispersion": "1", "outcomes": "Prequential"},
    "guardrails": [{"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.005"}}],
    "stopping": {"minDuration": "10s", "maxDuration": "30m"},
    "noData": {"maxHold": "20m"},
}


def judged(name: str, template: Object | None = None, spec: Object | None = None) -> Object:
    """A served HAR model whose challengers are judged by an experiment of this template.

    Folds: each further configuration makes the gates stricter, and ten folds leave room for a dozen. What trains and
    compares gives way to what answers clients.
    """
    base: Object = {
        "training": {"validation": {"folds": 10}, "resources": {"requests": {"cpu": "50m"}}},
        "serving": {"resources": {"requests": {"cpu": "250m"}}},
        # The next challenger waits while the one before is watched.
        "promotion": {"mode": "Auto", "rollbackWindow": "10s", "experiment": merged(TEMPLATE, template or {})},
    }
    return served(name, merged(base, spec or {}))


def broken(fault: str, seed: int = 7) -> Object:
    """A training whose version passes gates and probes, and fails on the days after its asOf (see sandbox/images).

    HAR: each further configuration makes the gates stricter, and a reference model has none on skill over OLS.
    """
    dockerfile = ROOT / "trainer_image" / "Dockerfile"
    image = f"fiduciary-trainer-broken:{images.key(dockerfile, ROOT, 'trainer-broken')}"
    return {"architecture": "HAR", "image": image, "hyperparameters": {"fault": fault}, "seed": seed}


def sound(seed: int = 7, architecture: str = "HAR") -> Object:
    """A training by the real trainer; another seed is another version, and of these models the same numbers."""
    return {"architecture": architecture, "image": None, "hyperparameters": None, "seed": seed}


def moment(text: str) -> float:
    """Seconds since the epoch of a time in an object."""
    return datetime.fromisoformat(text).timestamp()


@dataclass(slots=True)
class Trial:
    """One model and its experiments.

    champion: the version that served when this began, or was promoted since. market: the days to send.
    """

    service: Service
    market: Market
    champion: Mapping[str, str]
    days: Sequence[str] = field(default_factory=tuple[str, ...])

    @classmethod
    def begin(cls, service: Service, market: Market, body: Object) -> Trial:
        """Apply the model and wait until its first version answers clients."""
        service.cluster.apply(body, namespace=service.namespace)
        found = service.until("Ready", "True", within=TRAINED + 120)
        return cls(service, market, found["status"]["champion"], market.after("2017-12-29")[:20])

    # --- acts ----------------------------------------------------------------------------------------------------

    def template(self, change: Object) -> None:
        """Judge the next challengers otherwise."""
        self.service.patch({"promotion": {"experiment": merged(TEMPLATE, change)}})

    def train(self, training: Object) -> Mapping[str, str]:
        """Change the training; the version that passed the gates and is challenger, as in status.challenger."""
        service = self.service
        known = {record["to"]["digest"] for record in service.records() if record["action"] == "Accept"}
        service.patch({"training": training})

        def accepted(found: Object) -> bool:
            new = found["status"].get("challenger", {}).get("digest") not in (None, *known)
            return new or has(found, "CandidateRejected", "True")

        where = ("fm", service.name, service.namespace)
        found = service.cluster.until(*where, accepted, TRAINED, "a verdict of the gates on the new version")
        assert not has(found, "CandidateRejected", "True"), condition(found, "CandidateRejected")["message"]
        return found["status"]["challenger"]

    def loaded(self, rate: float) -> Any:
        """A load of the replay's days (see sandbox.load)."""
        requests = [self.market.bars(day, 90) for day in self.days]
        return load.running(self.service.model.target(*requests), rate=rate, seconds=1800)

    # --- what there is -------------------------------------------------------------------------------------------

    def name(self, version: Mapping[str, str]) -> str:
        """Of the experiment with this challenger."""
        return f"{self.service.name}-{version['version']}"

    def experiment(self, version: Mapping[str, str]) -> Object:
        return self.service.cluster.read("mx", self.name(version), self.service.namespace)

    def records(self, version: Mapping[str, str]) -> list[dict[str, Any]]:
        """What the log says of the experiment with this challenger, oldest first."""
        name = self.name(version)
        return [record for record in self.service.records() if record["cause"].get("experiment") == name]

    def verdict(self, version: Mapping[str, str]) -> dict[str, Any]:
        """The record that ended it."""
        ends = [record for record in self.records(version) if record["action"] != "Shift"]
        assert len(ends) == 1, f"one verdict, one record: {[record['action'] for record in ends]}"
        return ends[0]

    def route_written(self) -> float:
        """When the operator last changed the route's spec, by the API server's clock."""
        route = self.service.cluster.read("route", self.service.name, self.service.namespace)
        entries = route["metadata"]["managedFields"]
        return max(moment(entry["time"]) for entry in entries if entry.get("subresource", "") != "status")

    def weights(self) -> dict[str, int]:
        """Digest's first twelve digits -> weight on the route's REST rule."""
        route = self.service.cluster.read("route", self.service.name, self.service.namespace)
        return {
            ref["name"].rpartition("-")[2]: ref.get("weight", 1) for ref in route["spec"]["rules"][0]["backendRefs"]
        }

    # --- waits ---------------------------------------------------------------------------------------------------

    def until(
        self, version: Mapping[str, str], holds: Callable[[Object], bool], what: str, within: float = JUDGED
    ) -> Object:
        """Wait until the experiment with this challenger is such; it may not exist yet."""
        cluster, namespace = self.service.cluster, self.service.namespace
        return cluster.until("mx", self.name(version), namespace, lambda mx: holds(mx.get("status", {})), within, what)

    def until_step(self, version: Mapping[str, str], step: str, within: float = JUDGED) -> Object:
        """Wait until a step's weights are in force, as probes confirmed: the experiment says them as its own."""
        wanted = next(one for one in self.experiment_steps(version) if one["name"] == step)
        return self.until(
            version,
            lambda status: status.get("step") == step and status.get("weight") == wanted.get("weight", 0),
            f"step {step} is in force",
            within,
        )

    def experiment_steps(self, version: Mapping[str, str]) -> list[Object]:
        cluster, namespace = self.service.cluster, self.service.namespace
        found = cluster.until("mx", self.name(version), namespace, lambda _: True, 60, "there is an experiment")
        return found["spec"]["traffic"]["steps"]

    def until_ended(self, version: Mapping[str, str], phase: str, within: float = JUDGED) -> Object:
        """Wait for this end, recorded where it changed any traffic; another one is told with its reason at once."""

        def ended(status: Object) -> bool:
            recorded = condition({"status": status}, "Ready").get("reason") == "VerdictRecorded"
            return status.get("phase") in ENDED and (recorded or "evidence" not in status)

        found = self.until(version, ended, f"it is {phase}", within)
        status = found["status"]
        said = f"{status['phase']} ({status.get('reason')}): {condition(found, 'Ready').get('message', '')}"
        assert status["phase"] == phase, said
        return found

    def until_rejected(self, version: Mapping[str, str]) -> None:
        """Wait until the model's status lists it among those that will not be tried again; the log knows it first."""

        def listed(found: Object) -> bool:
            return version["version"] in {one["version"] for one in found["status"].get("rejectedVersions", ())}

        where = ("fm", self.service.name, self.service.namespace)
        self.service.cluster.until(*where, listed, 10, f"version {version['version']} is listed as rejected")

    def until_only(self, champion: Mapping[str, str], within: float = 60) -> Object:
        """Wait until this version has all traffic, answers, and nobody challenges it."""
        return self.service.cluster.until(
            "fm",
            self.service.name,
            self.service.namespace,
            lambda found: (
                found["status"].get("champion", {}).get("digest") == champion["digest"]
                and "challenger" not in found["status"]
                and has(found, "Ready", "True")
                and has(found, "Reconciling", "False")
            ),
            within,
            f"version {champion['version']} serves, and nobody challenges it",
        )


@dataclass
class Long:
    """An experiment that goes on for as long as it is disturbed, and the load on both of its arms.

    excused: seconds since the epoch, from and until, between which requests may fail.
    """

    trial: Trial
    challenger: Mapping[str, str]
    client: Client
    excused: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    @property
    def found(self) -> Object:
        return self.trial.experiment(self.challenger)

    @property
    def through(self) -> float:
        """End of the last block that was folded."""
        return moment(self.found["status"]["evidence"]["through"])

    def until_folded(self, since: float, within: float = 90) -> Object:
        """Wait until a block that began after this moment is folded, both arms answer, and half is in force."""

        def goes_on(status: Object) -> bool:
            return (
                moment(status["evidence"]["through"]) > since + 10
                and status["weight"] == 50
                and status["dataHealth"]["state"] == "Good"
            )

        found = self.trial.until(self.challenger, goes_on, "blocks are folded again, with half of the traffic", within)
        self.client.until_answered(20, self.challenger["version"])
        self.client.until_answered(20, self.trial.champion["version"])
        return found

    def until_champion_alone(self) -> None:
        """Wait until nobody but the champion answers clients."""
        alone = {self.trial.champion["version"]}
        self.client.until(lambda report: set(report.since(time.time() - 2).versions) == alone, "weight 0")

    def weights(self) -> list[int]:
        """The challenger's share by each record of a shift, oldest first."""
        return [record["traffic"].get("challenger", 0) for record in self._shifts()]

    def taken(self) -> float:
        """When the record was decided that last left the challenger no share."""
        nothing = [record for record in self._shifts() if not record["traffic"].get("challenger", 0)]
        return moment(nothing[-1]["decidedAt"])

    def _shifts(self) -> list[dict[str, Any]]:
        return [record for record in self.trial.records(self.challenger) if record["action"] == "Shift"]

    def unchanged(self, weights: Sequence[int] = (50,)) -> None:
        """One experiment, no verdict, and no record but of these shares."""
        assert {record["action"] for record in self.trial.records(self.challenger)} == {"Shift"}
        assert self.weights() == [*weights]
        status = self.found["status"]
        assert status.get("harm") is None
        assert status["phase"] in ("Running", "AwaitingApproval", "Holding"), status["phase"]

    def failed(self, since: float) -> list[Sent]:
        """Requests that failed since then and are not excused."""
        failed = self.client.report().since(since).failed
        return [one for one in failed if not any(begin <= one.at < end for begin, end in self.excused)]
