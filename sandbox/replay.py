"""`python -m sandbox replay`: days that no version saw, sent as requests, with their outcomes following.

    with replay.play(target, market, days, rate=220, dwell=2.0, chores=[Outcomes(...)]) as played:
        played.client.until_answered(200)

For `dwell` seconds every request is the one that a client would send at a day's close; then comes the next day, and
after the last one the first again. A day's outcome is what the market did on the day after it: it is told when that day
is over, so it comes after every prediction of its day, and only once.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import httpx

from sandbox import forecasts, inference, load, running
from sandbox.console import duration
from sandbox.steps import StepFailed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from sandbox.kubectl import Kubectl, Object
    from sandbox.market import Market

AFTER = 5.0  # seconds, at least, from the last request of a day until its outcome: records travel in batches
WRITER, SCORER, PORT = "outcome-writer", "fiduciary-outcomes", 8080
TOKEN_SECONDS = 3600
PATIENCE = 120.0  # seconds for which a scorer that is away is asked again


class Chore(Protocol):
    """Something that follows a day of the replay."""

    def __call__(self, market: Market, days: Sequence[str]) -> None:
        """These days' outcomes are known now. Raises StepFailed."""
        ...


@dataclass
class Replay:
    """A replay on its way. failure: why a chore ended, if one did."""

    client: load.Client
    days: Sequence[str]
    dwell: float
    began: float = field(default_factory=time.time)
    told: int = 0  # days whose outcomes were told
    failure: StepFailed | None = None

    @property
    def place(self) -> int:
        """How many days began, the rounds before included, less one."""
        return max(0, int((time.time() - self.began) / self.dwell))

    @property
    def day(self) -> str:
        return self.days[self.place % len(self.days)]

    def known(self) -> int:
        """How many days' outcomes may be told: the day after is over, and every prediction has arrived."""
        passed = (time.time() - self.began - max(AFTER, self.dwell)) / self.dwell
        return max(0, min(len(self.days), int(passed)))


@contextmanager
def play(
    target: load.Target,
    market: Market,
    days: Sequence[str],
    *,
    rate: float,
    dwell: float,
    seconds: float = 3600,
    chores: Sequence[Chore] = (),
) -> Iterator[Replay]:
    """Send these days to a target whose bodies they are. Raises StepFailed at the end where a chore failed."""
    with load.running(replace(target, dwell=dwell), rate=rate, seconds=seconds) as client:
        first = client.until(lambda report: bool(report.sent), "a request is answered or fails")
        played = Replay(client, days, dwell, first.sent[0].at)
        ended = threading.Event()

        def follow() -> None:
            while chores and not ended.wait(0.2) and played.told < len(days):
                if (known := played.known()) > played.told:
                    try:
                        for chore in chores:
                            chore(market, days[played.told : known])
                    except StepFailed as error:
                        played.failure = error
                        return
                    played.told = known

        thread = threading.Thread(target=follow, name="outcomes", daemon=True)
        thread.start()
        try:
            yield played
        finally:
            ended.set()
            thread.join(PATIENCE + 5)
    if played.failure is not None:
        raise played.failure


def target_of(model: Object, gateway: str, market: Market, days: Sequence[str], timeout: float = 8.0) -> load.Target:
    """The days as requests to where a model's status says that it answers."""
    bodies = tuple(inference.body(market.bars(day, forecasts.ROWS)) for day in days)
    headers = {**inference.HEADERS, **model["status"]["endpoint"].get("headers", {})}
    return load.Target(inference.endpoint(model, gateway) + "/infer", bodies, headers, timeout)


class Outcomes:
    """Tells the scorer of a namespace what became of each day, as its ServiceAccount `outcome-writer`."""

    def __init__(self, kubectl: Kubectl, namespace: str, model: str) -> None:
        self._kubectl, self._namespace, self._model = kubectl, namespace, model
        self._token, self._until = "", 0.0

    def __call__(self, market: Market, days: Sequence[str]) -> None:
        document = {
            "contractVersion": 1,
            "model": f"{self._namespace}.{self._model}",
            "outcomes": [outcome(market, day) for day in days],
        }
        deadline = time.monotonic() + PATIENCE
        while True:
            said = self._post(document)
            if said is None:
                return
            if time.monotonic() > deadline:
                raise StepFailed(f"the outcome scorer of {self._namespace} did not take outcomes: {said}")
            time.sleep(1.0)

    def _post(self, document: Object) -> str | None:
        """None where the scorer has them; else why not yet. Raises StepFailed where it never will."""
        try:
            address = self._kubectl.get("service", SCORER, "-n", self._namespace)["spec"]["clusterIP"]
            headers = {"Authorization": f"Bearer {self._fresh()}"}
            answer = httpx.post(f"http://{address}:{PORT}/v1/outcomes", json=document, headers=headers, timeout=10)
        except (httpx.TransportError, StepFailed) as error:
            return str(error)
        if answer.status_code == httpx.codes.OK:
            return None
        said = f"HTTP {answer.status_code}: {answer.text[:300]}"
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return said
        raise StepFailed(f"the outcome scorer of {self._namespace} refuses outcomes: {said}")

    def _fresh(self) -> str:
        if time.monotonic() > self._until:
            words = ("create", "token", WRITER, "-n", self._namespace)
            # Each scorer takes tokens of its own namespace's audience only.
            audience = f"--audience={SCORER}.{self._namespace}"
            self._token = self._kubectl(*words, audience, f"--duration={TOKEN_SECONDS}s").strip()
            self._until = time.monotonic() + TOKEN_SECONDS / 2
        return self._token


def outcome(market: Market, day: str) -> Object:
    """What the scorer is told of a day: the label of the session after it, and that session's simple return."""
    at = market.time.index(day)
    close = market.columns["close"]
    return {
        "entity": "",
        "labelEnd": market.time[at + 1],
        "value": market.outcome[at],
        "return": close[at + 1] / close[at] - 1.0,
    }


class Rows:
    """Appends each day's row to the file that a model with `asOf: Rolling` trains on, as production would."""

    def __init__(self, kubectl: Kubectl, model: Object, image: str) -> None:
        """Raises StepFailed for a model whose data are no CSV file on a claim."""
        data, meta = model["spec"]["data"], model["metadata"]
        files = data["source"].get("files", {})
        uri = files.get("uri", "")
        if data["asOf"] != "Rolling" or not uri.startswith("pvc://") or files.get("format") != "CSV":
            raise StepFailed(
                f"{meta['name']} has asOf {data['asOf']} and the source {data['source']}; rows can be appended to a "
                "CSV file on a claim (pvc://CLAIM/FILE) of a model with asOf: Rolling"
            )
        self._claim, _, self._path = uri.removeprefix("pvc://").partition("/")
        self._kubectl, self._namespace, self._image = kubectl, meta["namespace"], image
        self._pod = f"{meta['name']}-replay"

    def __enter__(self) -> Rows:
        self._kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(self._body()))
        ready = ("wait", "pod", self._pod, "-n", self._namespace, "--for=condition=Ready", "--timeout=90s")
        self._kubectl(*ready)
        return self

    def __exit__(self, *_: object) -> None:
        self._kubectl("delete", "pod", self._pod, "-n", self._namespace, "--wait=false", "--ignore-not-found")

    def __call__(self, market: Market, days: Sequence[str]) -> None:
        self._run(APPEND, [row(market, day) for day in days])

    def begin(self, market: Market, through: str) -> None:
        """The file with all rows up to that day, and no other."""
        self._run(BEGIN, [row(market, day) for day in market.time if day <= through])

    def _run(self, script: str, rows: Sequence[Object]) -> None:
        words = ("exec", "-i", self._pod, "-n", self._namespace, "--", "python3", "-c", script, f"/data/{self._path}")
        self._kubectl(*words, stdin=json.dumps(rows))

    def _body(self) -> Object:
        confined = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        container = {
            "name": "rows",
            "image": self._image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-c", "import signal; signal.sigwait({signal.SIGTERM})"],
            "securityContext": confined,
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }
        user = {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self._pod, "namespace": self._namespace},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "securityContext": user,
                "containers": [container],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": self._claim}}],
            },
        }


def row(market: Market, day: str) -> Object:
    at = market.time.index(day)
    return {"date": day, **{name: values[at] for name, values in market.columns.items()}}


BEGIN = """
import csv, json, sys
rows = json.load(sys.stdin)
with open(sys.argv[1], "w", newline="") as file:
    out = csv.DictWriter(file, rows[0], lineterminator="\\n")
    out.writeheader()
    out.writerows(rows)
"""
# Rows that are newer than the file's last one, in the order of its header; the whole in one write.
APPEND = """
import csv, io, json, sys
rows = json.load(sys.stdin)
with open(sys.argv[1], newline="") as file:
    lines = list(csv.reader(file))
header, last = lines[0], lines[-1]
out = io.StringIO()
for row in rows:
    if row["date"] > last[header.index("date")]:
        csv.writer(out, lineterminator="\\n").writerow([row.get(name, "") for name in header])
with open(sys.argv[1], "a") as file:
    file.write(out.getvalue())
"""


def main(given: argparse.Namespace) -> None:
    """Replay each day once, with a line for what was answered as it goes. Raises StepFailed."""
    place = running.Running.of(given.name)
    kubectl, market = place.kubectl, running.held_out()
    namespace, _, name = given.model.partition("/")
    model = kubectl.get("financialmodel", name, "-n", namespace)
    if "endpoint" not in model.get("status", {}):
        raise StepFailed(f"{given.model} is not served yet: `kubectl get fm -n {namespace} {name}` says why")
    as_of = model["spec"]["data"]["asOf"]
    days = market.after(given.after or (as_of if as_of != "Rolling" else "2017-12-29"))[: given.days]
    if not days:
        raise StepFailed(f"the data end on {market.time[-1]}: there is no day after {given.after or as_of} to replay")
    chores: list[Chore] = [] if given.no_outcomes else [Outcomes(kubectl, namespace, name)]
    target = target_of(model, place.gateway, market, days)
    if as_of == "Rolling":
        with Rows(kubectl, model, running.trainer_image().tag) as rows:
            _told(target, market, days, given, [*chores, rows])
    else:
        _told(target, market, days, given, chores)


def _told(
    target: load.Target, market: Market, days: Sequence[str], given: argparse.Namespace, chores: Sequence[Chore]
) -> None:
    print(f"{len(days)} days, {days[0]} to {days[-1]}, {given.rate:.0f} requests a second, {given.dwell:g} s a day")
    print(f"about {duration(len(days) * given.dwell)}; Ctrl-C ends it", flush=True)
    with play(target, market, days, rate=given.rate, dwell=given.dwell, chores=chores, seconds=86_400) as played:
        said = -1
        while played.failure is None and (played.place < len(days) or (chores and played.told < len(days))):
            if played.place != said and played.place < len(days):
                said = played.place
                report = played.client.report()
                versions = ", ".join(f"version {v or '?'} {n}" for v, n in sorted(report.versions.items()))
                line = f"{played.day}  {len(report.sent):>8} requests, {len(report.failed)} failed  ({versions})"
                told = f"  outcomes of {played.told} days told" if chores else ""
                print(line + told, flush=True)
            played.client.check()
            time.sleep(0.2)
        report = played.client.stop()
    print(report.summary())
    sys.stdout.flush()
