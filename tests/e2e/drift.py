"""A served model under drift policies: its days, what kills and blinds the operator, what nobody disturbed finds."""

from __future__ import annotations

import csv
import io
import json
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fiduciary.api.driftpolicy import DriftPolicy
from fiduciary.api.versions import StandingVersion
from fiduciary.clients.prometheus_answers import decoded, valued
from fiduciary.decide.drift.calibrate import Calibrated, calibrated
from fiduciary.decide.drift.reference import Reference, parsed
from fiduciary.decide.drift.report import stored
from fiduciary.decide.drift.series import Watched, by_version, counts_query, readings, rows_of, rows_query
from fiduciary.decide.drift.state import Reading, State
from fiduciary.decide.drift.world import ModelFacts, World
from fiduciary.decide.driftpolicy import decide
from sandbox import inference
from sandbox.market import COLUMNS
from tests.e2e.cluster import Cluster, has
from tests.e2e.conftest import OPERATOR, OPERATOR_NAMESPACE, operator_pods
from tests.e2e.experiments import SCRAPE, Trial
from tests.e2e.models import API_VERSION, CLAIM
from tests.e2e.serving import deleting
from tests.unit.decide.worlds import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from sandbox.market import Market
    from tests.e2e.cluster import Object
    from tests.e2e.node import Node
    from tests.e2e.registry import Registry
    from tests.e2e.serving import Service

ROWS = 21  # of a window: a month of sessions
REACH = 4 * SCRAPE * 1000  # ms in which the last sample of a counter is its value
FILE = "sp500.csv"
MONITORING = "monitoring"


def policy(name: str, of: str, monitor: Object, **spec: Any) -> Object:
    """One monitor of a month of sessions; seventeen years of them between two false alarms."""
    window = {"rows": ROWS, "calendar": "XNYS"}
    body = {"modelRef": {"name": of}, "window": window, "falseAlarms": {"ertWindows": 200}, "monitors": [monitor]}
    return {"apiVersion": API_VERSION, "kind": "DriftPolicy", "metadata": {"name": name}, "spec": {**body, **spec}}


@dataclass
class Desk:
    """A served model and the file that it is trained on. readings: at the end of each window that was sent."""

    trial: Trial
    node: Node
    market: Market
    registry: Registry
    readings: list[Reading] = field(default_factory=list[Reading])

    @property
    def service(self) -> Service:
        return self.trial.service

    @property
    def cluster(self) -> Cluster:
        return self.service.cluster

    def days(self, since: str, windows: int) -> list[list[str]]:
        """So many windows of sessions, the first session at or after `since`."""
        later = [day for day in self.market.time if day >= since]
        return [later[at * ROWS : (at + 1) * ROWS] for at in range(windows)]

    def deliver(self, through: str) -> None:
        """The file that is trained on, with all rows up to that day."""
        out = io.StringIO()
        rows = csv.writer(out)
        rows.writerow(("date", *COLUMNS))
        for at in range(self.market.time.index(through) + 1):
            rows.writerow((self.market.time[at], *(self.market.columns[name][at] for name in COLUMNS)))
        path = f"/disk/{self.service.namespace}/{CLAIM}/{FILE}"
        self.node.run("sh", "-c", f"cat > {path}.new && mv {path}.new {path}", stdin=out.getvalue())

    # --- rows ----------------------------------------------------------------------------------------------------

    def send(self, window: Sequence[str]) -> None:
        """Ask for each day's forecast, and wait until Prometheus has the rows: they are one window, and whole."""
        champion, model = self.trial.champion, self.service.model
        before = self.counted(champion)
        for day in window:
            said = model.predict(self.market.bars(day, 90))
            assert said.digest == champion["digest"]
        self.readings.append(self.until_counted(champion, before + len(window)))

    def send_in_cents(self, window: Sequence[str]) -> None:
        """A client whose newest close comes from a feed in another unit: each request is refused, and says why."""
        champion, model = self.trial.champion, self.service.model
        before = self.counted(champion)
        for day in window:
            document = inference.document(self.market.bars(day, 90))
            (closes,) = (one["data"] for one in document["inputs"] if one["name"] == "close")
            closes[-1] *= 100.0
            answer = model.post(document)
            assert answer.status_code == 400, answer.text
            assert "cannot be computed" in answer.json()["error"], answer.text
        self.until_counted(champion, before + len(window))

    def until_counted(self, version: Mapping[str, str], rows: int) -> Reading:
        """Everything that was counted when the rows of a version first were so many; ever so many it may not be."""

        def there(seen: Sequence[tuple[int, int]]) -> bool:
            assert not seen or seen[-1][1] <= rows, f"{seen[-1][1]} rows, {rows} were sent"
            return bool(seen) and seen[-1][1] == rows

        found = self.cluster.poll(lambda: self.rows(version), there, 30, f"{rows} rows are counted", 0.5)
        first, step = min(at for at, value in found if value == rows), SCRAPE * 1000
        watched, at = self.watched(version), -(-first // step) * step
        body = ask(self.cluster, counts_query([watched], REACH), at)
        return readings(valued("Prometheus", 200, body), at)[watched.place]

    def counted(self, version: Mapping[str, str]) -> int:
        """How many rows there are."""
        found = self.rows(version)
        return found[-1][1] if found else 0

    def rows(self, version: Mapping[str, str]) -> Sequence[tuple[int, int]]:
        """The rows of a version in the last scrapes."""
        watched = self.watched(version)
        series = decoded("Prometheus", 200, ask(self.cluster, rows_query([watched], REACH))).of("matrix")
        return rows_of(by_version(series).get(watched.place, ()), REACH)

    def watched(self, version: Mapping[str, str]) -> Watched:
        namespace = self.service.namespace
        return Watched(namespace, f"{namespace}.{self.service.name}", version["version"], version["digest"])

    # --- policies ------------------------------------------------------------------------------------------------

    def policy(self, name: str) -> DriftPolicy:
        return DriftPolicy.model_validate(self.cluster.read("dp", name, self.service.namespace))

    def until(self, name: str, kind: str, status: str, reason: str | None = None, within: float = 60) -> Object:
        what = f"the policy {name}: {kind}={status} {reason or ''}"
        where = ("dp", name, self.service.namespace)
        return self.cluster.until(*where, lambda dp: has(dp, kind, status, reason), within, what)

    def until_judged(self, name: str, windows: int, within: float = 60) -> Object:
        """Wait until the policy has judged so many windows of the version that serves."""
        what = f"the policy {name} has judged {windows} windows"
        where = ("dp", name, self.service.namespace)
        return self.cluster.until(*where, lambda dp: judged(dp) >= windows, within, what)

    def alarms(self) -> list[dict[str, Any]]:
        return [record for record in self.service.records() if record["action"] == "Alarm"]

    def alerts(self) -> list[dict[str, Any]]:
        """What is firing of the policy `spx` in Alertmanager."""
        (pod,) = self.cluster.list("pod", MONITORING, "app.kubernetes.io/name=alertmanager")
        matchers = f'filter=namespace="{self.service.namespace}"&filter=policy="spx"'
        path = f"api/v2/alerts?{quote(matchers, safe='=&')}"
        return self.cluster.pod(MONITORING, pod["metadata"]["name"], 9093, path).json()

    def undisturbed(self, name: str) -> State:
        """What a policy that nobody kills or blinds finds in the windows that were sent, one after the other."""
        its, champion = self.policy(name), self.trial.champion
        document = json.loads(self.registry.artifact(champion["runId"], "version/drift_reference.json"))
        reference = parsed(document)
        assert isinstance(reference, Reference), reference
        digest = champion["digest"]
        found = calibrated(its.spec, its.metadata.uid, digest, "Volatility", reference)
        assert isinstance(found, Calibrated), found
        facts = ModelFacts("Volatility", StandingVersion(version=champion["version"], digest=digest))
        world = World(its, facts, PLATFORM, found, reference=reference.edges_digest)
        for reading in self.readings:
            now = datetime.fromtimestamp(reading.at / 1000, UTC)
            world = replace(world, readings=(reading,))
            world = replace(world, state=decide(world, now).state)
        assert world.state is not None
        return world.state


def state(found: DriftPolicy) -> State:
    evidence = found.status.evidence
    assert evidence is not None
    kept = stored(evidence)
    assert isinstance(kept, State), kept
    return kept


def judged(found: Object) -> int:
    """Windows that a policy has judged since it began."""
    its = DriftPolicy.model_validate(found)
    return 0 if its.status.evidence is None else state(its).folded


# --- what happens to the operator, and to what it reads --------------------------------------------------------------


def kill_operator(cluster: Cluster, node: Node) -> None:
    """SIGKILL. Its pod goes as well, else the kubelet would wait longer and longer to start it again; and its lease,
    else a new pod would wait until it has run out."""
    for pod in operator_pods(cluster):
        if not deleting(pod):
            meta = pod["metadata"]
            killed = node.signal("SIGKILL", "python", "-m", "fiduciary", meta["uid"], within=60)
            assert killed == 1, f"{killed} processes of the operator"
            words = ("delete", "pod", meta["name"], "--grace-period=0", "--force", "--wait=false")
            cluster.kubectl(*words, namespace=OPERATOR_NAMESPACE)
    cluster.delete("lease", OPERATOR, OPERATOR_NAMESPACE)


@contextmanager
def out_of_reach(cluster: Cluster) -> Generator[None]:
    """Prometheus goes on scraping, and nobody finds it: its Service has no endpoint."""

    def choose(name: str) -> None:
        change = {"spec": {"selector": {"app.kubernetes.io/name": name}}}
        cluster.patch("service", "prometheus", change, MONITORING)

    choose("nobody")
    try:
        yield
    finally:
        choose("prometheus")


def ask(cluster: Cluster, promql: str, at: int | None = None) -> bytes:
    """What Prometheus' pod answers at ``at`` (ms; None: now), whether or not its Service finds it."""
    (pod,) = cluster.list("pod", MONITORING, "app.kubernetes.io/name=prometheus")
    when = "" if at is None else f"&time={at / 1000:.3f}"
    answer = cluster.pod(MONITORING, pod["metadata"]["name"], 9090, f"api/v1/query?query={quote(promql)}{when}")
    assert answer.status_code == 200, answer.text
    return answer.content
