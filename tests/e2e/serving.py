"""A model with two judged versions behind the Gateway: trained once in a session, served and promoted by many tests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.e2e.cluster import Cluster, Object, condition, has
from tests.e2e.inference import Model
from tests.e2e.models import approval, merged, model

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from sandbox.market import Market
    from tests.e2e.cluster import User

GATEWAY: Object = {"parentRefs": [{"name": "contour", "namespace": "projectcontour"}]}
SERVING: Object = {"gateway": GATEWAY, "resources": {"requests": {"cpu": "200m", "memory": "192Mi"}}}
SERVING_PODS = "fiduciary.dev/component=serving"
TRAINED, SERVED = 240, 120  # seconds


def served(name: str, spec: Object | None = None) -> Object:
    """A HAR model like models.model, behind the sandbox's Gateway; a challenger waits for a person."""
    return model(name, merged({"serving": SERVING, "promotion": {"mode": "Manual"}}, spec or {}))


@dataclass(frozen=True, slots=True)
class Service:
    """One served model, and short ways to act on it and to look at it."""

    cluster: Cluster
    http: httpx.Client
    namespace: str
    name: str

    @property
    def found(self) -> Object:
        return self.cluster.read("fm", self.name, self.namespace)

    @property
    def model(self) -> Model:
        return Model.of(self.found, self.http)

    @property
    def selector(self) -> str:
        return f"fiduciary.dev/model={self.name},{SERVING_PODS}"

    def pods(self, version: Mapping[str, str]) -> list[Object]:
        selector = f"{self.selector},fiduciary.dev/version={version['version']}"
        return [pod for pod in self.cluster.list("pod", self.namespace, selector) if not deleting(pod)]

    def deployment(self, version: Mapping[str, str]) -> str:
        """Name of the Deployment of a version, which its Service has as well."""
        selector = f"{self.selector},fiduciary.dev/version={version['version']}"
        (found,) = self.cluster.list("deployment", self.namespace, selector)
        assert found["metadata"]["annotations"]["fiduciary.dev/digest"] == version["digest"]
        return found["metadata"]["name"]

    def records(self) -> list[dict[str, Any]]:
        found = [md["spec"] for md in self.cluster.list("md", self.namespace)]
        mine = [record for record in found if record["modelRef"]["name"] == self.name]
        return sorted(mine, key=lambda record: record["sequence"])

    # --- acts ----------------------------------------------------------------------------------------------------

    def patch(self, spec: Object) -> None:
        self.cluster.patch("fm", self.name, {"spec": spec}, self.namespace)

    def pin(self, version: Mapping[str, str]) -> float:
        """What a commit, or its revert, does. Returns when, in seconds since the epoch."""
        now = time.time()
        pinned = {"version": version["version"], "digest": version["digest"]}
        self.patch({"promotion": {"mode": "Pinned", "pinned": pinned}})
        return now

    def decide(self, decision: str, by: User, reason: str = "a test", **spec: Any) -> float:
        """A person's act, by somebody who did not edit the model."""
        now = time.time()
        name = f"{decision.lower()}-{time.time_ns()}"
        self.cluster.create(approval(name, self.name, decision, by.name, reason, **spec), self.namespace, by)
        return now

    def approve(self, by: User, reason: str = "a test") -> float:
        """Approval of the challenger that the status asks for."""
        asked = self.found["status"]["approvalRequest"]
        return self.decide("Approve", by, reason, evidenceDigest=asked["digest"])

    # --- waits ---------------------------------------------------------------------------------------------------

    def until(self, kind: str, status: str, reason: str | None = None, within: float = 60) -> Object:
        return self.cluster.until(
            "fm",
            self.name,
            self.namespace,
            lambda found: has(found, kind, status, reason),
            within,
            f"{kind}={status} {reason or ''}",
        )

    def until_champion(self, version: Mapping[str, str], within: float = SERVED) -> Object:
        """Wait until this version is champion by the log, whether or not the gateways know it yet."""
        return self.cluster.until(
            "fm",
            self.name,
            self.namespace,
            lambda found: found.get("status", {}).get("champion", {}).get("digest") == version["digest"],
            within,
            f"version {version['version']} is champion",
        )

    def until_serves(self, version: Mapping[str, str], within: float = SERVED) -> Object:
        """Wait until this version is champion and a real request through the Gateway was answered by it."""
        return self.cluster.until(
            "fm",
            self.name,
            self.namespace,
            lambda found: (
                found.get("status", {}).get("champion", {}).get("digest") == version["digest"]
                and has(found, "Ready", "True")
                and has(found, "Reconciling", "False")
            ),
            within,
            f"version {version['version']} serves",
        )

    def until_pods(self, version: Mapping[str, str], ready: int, within: float = SERVED) -> list[Object]:
        """Wait until so many pods of a version are ready and none is on its way out."""
        return self.cluster.until_all(
            "pod",
            self.namespace,
            lambda pods: len(pods) == ready and all(is_ready(pod) for pod in pods),
            within,
            f"{ready} ready pods of version {version['version']}",
            selector=f"{self.selector},fiduciary.dev/version={version['version']}",
        )

    def until_settled(self, within: float = SERVED) -> list[Object]:
        """Wait until no serving pod of the model is on its way in or out."""
        return self.cluster.until_all(
            "pod",
            self.namespace,
            lambda pods: all(is_ready(pod) for pod in pods),
            within,
            "every serving pod is ready",
            selector=self.selector,
        )


@dataclass(frozen=True, slots=True)
class TwoVersions:
    """The served model that tests share: HAR, then Linear; either may be champion when a test begins."""

    service: Service
    first: Mapping[str, str]  # as in status.champion: version, digest, runId
    second: Mapping[str, str]
    market: Market

    @classmethod
    def train(cls, service: Service, market: Market) -> TwoVersions:
        """Apply the HAR model, wait until it serves; change it to Linear, wait until that is challenger."""
        cluster, name, namespace = service.cluster, service.name, service.namespace
        cluster.apply(served(name), namespace=namespace)
        first = service.until("Ready", "True", within=TRAINED + SERVED)["status"]["champion"]
        service.patch({"training": {"architecture": "Linear"}})
        found = cluster.until(
            "fm",
            name,
            namespace,
            lambda found: "challenger" in found["status"] or has(found, "CandidateRejected", "True"),
            TRAINED,
            "a verdict on the second version",
        )
        assert "challenger" in found["status"], condition(found, "CandidateRejected")["message"]
        return cls(service, first, found["status"]["challenger"], market)

    def request(self, day: str = "2018-02-05") -> Market:
        return self.market.bars(day, 90)

    @property
    def requests(self) -> list[Market]:
        """Of the first weeks that no version saw."""
        return [self.request(day) for day in self.market.after("2017-12-29")[:20]]


def deleting(item: Object) -> bool:
    return "deletionTimestamp" in item["metadata"]


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return not deleting(pod) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
