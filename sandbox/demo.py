"""`make demo`: the story of a model, from `kubectl apply` to forecasts that clients get, told by real objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from sandbox import drift, experiment, forecasts, inference, replay
from sandbox.account import Account
from sandbox.console import duration
from sandbox.drift import Counter, DriftView, Months
from sandbox.experiment import ExperimentView
from sandbox.kubectl import Kubectl, Object, condition, is_true, said, settled
from sandbox.running import Running, held_out, trainer_image
from sandbox.steps import StepFailed
from sandbox.story import Story, TrainingView

if TYPE_CHECKING:
    from sandbox.forecasts import Asked
    from sandbox.market import Market
    from sandbox.replay import Replay

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "deploy" / "samples"
NAMESPACE = "quant"
VOLATILITY, DIRECTION, ROLLING = "spx-volatility", "spx-direction", "spx-rolling"
TRAINING_SECONDS, SERVING_SECONDS, JUDGED_SECONDS = 600, 180, 900
AS_OF = "2017-12-29"  # of the samples: no version saw a later day
WEEK = ("2018-02-01", "2018-02-02", "2018-02-05", "2018-02-06", "2018-02-07", "2018-02-08", "2018-02-09")
RATE, DWELL = 220.0, 2.0  # of the replay: requests per second, and seconds that a day lasts
TRAINED_TO, LEHMAN = "2006-12-29", "2008-09-15"  # of spx-rolling: its file's last row at first, and what comes
BEFORE, AFTER = 2, 4  # months of sessions that pass around it, at most
DRIFT_SECONDS = 180


def sandbox(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "sandbox", *words], cwd=ROOT, check=False)
    if done.returncode:
        raise StepFailed(
            f"`python -m sandbox {' '.join(words)}` ended with exit code {done.returncode}; its lines are above"
        )


def told_by(kubectl: Kubectl) -> Account:
    return Account(kubectl, NAMESPACE, VOLATILITY)


def judged(model: Object) -> bool:
    return settled(model) and condition(model, "GatesPassed").get("status") in ("True", "False")


def forget_earlier_demo(story: Story, kubectl: Kubectl) -> None:
    """Start from an empty namespace: the story is about the first version, and records survive their models."""
    found = kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name").strip()
    if found and kubectl("get", "financialmodels,modeldecisions", "-n", NAMESPACE, "-o", "name").strip():
        story.say(
            f"An earlier demo left models in the namespace {NAMESPACE}: removing it with its records. MLflow "
            "keeps what was trained, and what has the same training key is not trained again."
        )
        kubectl("delete", "namespace", NAMESPACE, "--wait", "--timeout=180s")
    kubectl("apply", "--server-side", "-k", str(ROOT / "deploy" / "sandbox" / NAMESPACE))


def serves(model: Object) -> bool:
    """A real request through the Gateway was answered by the champion, and nothing is on its way."""
    return settled(model) and is_true(model, "Ready")


def first_versions(story: Story, kubectl: Kubectl) -> Object:
    story.command(
        kubectl, "apply", "-f", _shown(SAMPLES / "spx-volatility.yaml"), "-f", _shown(SAMPLES / "spx-direction.yaml")
    )
    wanted = {VOLATILITY, DIRECTION}

    def done(models: dict[str, Object]) -> bool:
        if not wanted <= models.keys() or not judged(models[DIRECTION]):
            return False
        return serves(models[VOLATILITY]) or refused(models[VOLATILITY])

    states = kubectl.follow(
        "financialmodels",
        NAMESPACE,
        done,
        seconds=TRAINING_SECONDS + SERVING_SECONDS,
        what=f"A verdict on both samples, and {VOLATILITY} behind the Gateway",
    )
    models = TrainingView(story.console).follow(states)
    story.command(kubectl, "get", "fm", "-n", NAMESPACE)
    if not refused(models[DIRECTION]) or refused(models[VOLATILITY]):
        raise StepFailed(
            f"the samples were not judged as they should be: {said(models[DIRECTION])}; {said(models[VOLATILITY])}"
        )
    champion = models[VOLATILITY]["status"]["champion"]
    story.say(f"[green]{VOLATILITY} serves[/]: version {champion['version']}, {champion['digest'][:19]}…")
    story.say(f"[red]{DIRECTION} is refused[/], and says why:")
    story.quote(condition(models[DIRECTION], "GatesPassed")["message"])
    return models[VOLATILITY]


def refused(model: Object) -> bool:
    return judged(model) and condition(model, "GatesPassed")["status"] == "False"


def first_forecast(story: Story, model: Object, market: Market, gateway: str) -> Asked:
    """One request, as a client's program would send it, and what the market then did. Returns all days of the year."""
    url = inference.endpoint(model, gateway)
    story.say(f"[bold]POST {url}/infer[/]  with {forecasts.ROWS} days of prices up to the close of {WEEK[0]}:")
    asked = forecasts.ask(url, model["status"]["endpoint"].get("headers", {}), market, market.after(AS_OF))
    answer = asked.answers[WEEK[0]]
    said = {"version": answer.version, "digest": answer.digest, "predictionId": answer.id, "prediction": answer.value}
    story.quote(json.dumps(said))
    story.say("It is the log of the next session's volatility. A week that the model never saw, day by day:")
    story.show(forecasts.beside_outcomes(market, WEEK, [forecasts.only(asked, WEEK)]))
    return asked


def challenger(story: Story, kubectl: Kubectl, model: Object) -> Object:
    """The model once a new version has become challenger of `model`'s. Raises StepFailed where none does."""
    name, before = model["metadata"]["name"], model["status"]["champion"]["digest"]

    def done(models: dict[str, Object]) -> bool:
        return name in models and judged_anew(models[name], before)

    states = kubectl.follow(
        "financialmodels", NAMESPACE, done, seconds=TRAINING_SECONDS, what="A verdict on the new version"
    )
    only = ({name: seen[name]} for seen in states if name in seen)
    found = TrainingView(story.console).follow(only)[name]
    if "challenger" not in found["status"]:
        raise StepFailed(f"the new version did not become challenger. {refusal(found)}")
    story.say(f"Version {found['status']['challenger']['version']} is [green]challenger[/]:")
    story.quote(condition(found, "GatesPassed").get("message", ""))
    return found


def refusal(model: Object) -> str:
    """What the gates have against the newest version, or what else keeps it from being challenger."""
    gates = condition(model, "GatesPassed")
    return gates.get("message", "") if gates.get("status") == "False" else said(model)


def judged_anew(model: Object, champion: str) -> bool:
    """Either there is a challenger that is not this champion, or the newest training ended without one."""
    status = model["status"]
    if status["observedGeneration"] != model["metadata"]["generation"]:
        return False
    runs = status.get("runs") or [{}]
    rejected = runs[0].get("outcome") in ("Rejected", "Failed", "Aborted")
    return status.get("challenger", {}).get("digest") not in (None, champion) or rejected


def rolling(story: Story, kubectl: Kubectl, market: Market) -> None:
    """A model on a file that ends in 2006, which trains while others do."""
    story.say(f"Another model trains meanwhile, on a file that ends on {TRAINED_TO}: its market is still to come.")
    path = SAMPLES / "spx-drift.yaml"
    planned = kubectl.documents("apply", "--dry-run=server", "-f", str(path))
    with replay.Rows(kubectl, planned[0], trainer_image().tag) as rows:
        rows.begin(market, TRAINED_TO)
    story.command(kubectl, "apply", "-f", _shown(path))


def linear(story: Story, kubectl: Kubectl, model: Object) -> Object:
    story.say("The same resource, with [bold]architecture: Linear[/] and more features:")
    story.command(kubectl, "apply", "-f", _shown(SAMPLES / "spx-volatility-linear.yaml"))
    return challenger(story, kubectl, model)


def judged_by_clients(story: Story, kubectl: Kubectl, model: Object, played: Replay, phase: str) -> Object:
    """The experiment on the model's challenger, shown until it ends. Raises StepFailed where it ends otherwise."""
    name = f"{VOLATILITY}-{model['status']['challenger']['version']}"
    states = kubectl.follow(
        "modelexperiments",
        NAMESPACE,
        lambda found: name in found and experiment.ended(found[name]),
        seconds=JUDGED_SECONDS,
        what=f"A verdict of {name}",
    )
    found = ExperimentView(story.console, played).follow(name, states)
    story.command(kubectl, "get", "mx", "-n", NAMESPACE)
    if found["status"]["phase"] != phase:
        raise StepFailed(f"it should have ended as {phase}, but {said(found)}")
    return found


def records_of(kubectl: Kubectl, found: Object) -> list[Object]:
    """What the log says of an experiment, oldest first: the last one is its verdict."""
    name = found["metadata"]["name"]
    return [one for one in told_by(kubectl).records() if one["cause"].get("experiment") == name]


def promoted(story: Story, kubectl: Kubectl, model: Object, played: Replay) -> Object:
    """The better model is promoted by what clients' requests and the past days' outcomes show."""
    story.say(
        "Its days of 2018 are replayed as requests of clients. First the challenger gets copies, then a tenth of them, "
        "then half. It is promoted when it is [bold]shown[/] to be better (on all days that both have forecast) and no "
        "worse for clients: evidence grows like the stake of somebody who bets on it, and a full bar is enough, "
        "however often one looks. Harm would roll it back at any moment."
    )
    found = judged_by_clients(story, kubectl, model, played, "Promoted")
    record = records_of(kubectl, found)[-1]
    story.say(f"[green]Version {record['to']['version']} is promoted[/], and the record says why:")
    for reason in record["cause"]["reasons"]:
        story.quote(f"{reason['reason']}: {reason['message']}")
    report = played.client.report()
    story.say(f"{len(report.sent):,} requests of clients so far, {_failed(len(report.failed))}.")
    return kubectl.get("financialmodel", VOLATILITY, "-n", NAMESPACE)


def rolled_back(story: Story, kubectl: Kubectl, model: Object, played: Replay) -> None:
    """A challenger that passes every gate and probe, and fails on the days of the replay."""
    image = trainer_image("trainer-broken").tag
    change = {"spec": {"training": {"image": image, "hyperparameters": {"fault": "nan"}}}}
    story.say(
        "Somebody builds a trainer of their own. Its version measures well and answers every probe; on days that it "
        "has not seen, it answers [bold]not a number[/]:"
    )
    story.command(kubectl, "patch", "fm", VOLATILITY, "-n", NAMESPACE, "--type=merge", f"--patch={json.dumps(change)}")
    champion = model["status"]["champion"]["version"]
    log = told_by(kubectl)
    with log.while_champion(champion):
        waits = challenger(story, kubectl, model)
        log.still_champion(champion)
        found = judged_by_clients(story, kubectl, waits, played, "RolledBack")
        *before, record = records_of(kubectl, found)
        written = time.time()
        played.client.until_answered(400, champion)
    report = played.client.report()
    until, since = (len(one.failed) for one in (report.since(0, written), report.since(written)))
    began, ended = (datetime.fromisoformat(one["decidedAt"]) for one in ([*before, record][0], record))
    story.say(
        f"[red]Version {record['from']['version']} is rolled back[/] {duration((ended - began).total_seconds())} "
        "after it got its first copy of a request:"
    )
    for reason in record["cause"]["reasons"]:
        story.quote(f"{reason['reason']}: {reason['message']}")
    story.say(f"Clients: {_failed(until)} until then, {_failed(since)} since, of {len(report.sent):,}.")


def drifted(story: Story, kubectl: Kubectl, place: Running, market: Market) -> None:
    """Months of a crisis on the model of 2006: its policy finds what it was not trained on, and asks for a retrain."""
    story.say(
        f"[bold]{ROLLING}[/] knows the years to 2006. A DriftPolicy compares what it is asked with those: how far is a "
        "month of sessions usually from the rest of them? One false alarm in 200 months is allowed. Now 2008:"
    )
    what = f"{ROLLING} behind the Gateway"
    states = kubectl.follow("financialmodels", NAMESPACE, _rolling_serves, seconds=SERVING_SECONDS, what=what)
    *_, models = states
    months = Months.around(market, LEHMAN, BEFORE, AFTER)
    counter = Counter(place.variables["PROMETHEUS_URL"], f"{NAMESPACE}.{ROLLING}")
    with replay.Rows(kubectl, models[ROLLING], trainer_image().tag) as rows:
        rows(market, [day for day in market.time if TRAINED_TO < day < months.days[0][0]])
        with drift.passing(models[ROLLING], place.gateway, months, counter, rows) as passed:
            policies = kubectl.follow(
                "driftpolicies",
                NAMESPACE,
                lambda found: ROLLING in found and drift.drifted(found[ROLLING]),
                seconds=DRIFT_SECONDS,
                what="An alarm of the policy",
            )
            found = DriftView(story.console, passed, "inputs").follow(ROLLING, policies)
    story.say("[red]The inputs have drifted[/], says the policy:")
    story.quote(condition(found, "Drifted")["message"])
    story.say("Drift alone never changes who answers. The policy asks for a [bold]retrain[/] with the rows up to now:")
    challenger(story, kubectl, models[ROLLING])
    story.say("An experiment has begun, and decides about it as about any other version.")


def _rolling_serves(models: dict[str, Object]) -> bool:
    return ROLLING in models and serves(models[ROLLING])


def _failed(count: int) -> str:
    return f"[{'red' if count else 'green'}]{count or 'none'} failed[/]"


def both_forecasts(story: Story, model: Object, market: Market, gateway: str, before: Asked) -> None:
    """The same week asked again, and what both versions said of all days that neither saw in training."""
    url, headers = inference.endpoint(model, gateway), model["status"]["endpoint"].get("headers", {})
    now = forecasts.ask(url, headers, market, market.after(AS_OF))
    story.show(forecasts.beside_outcomes(market, WEEK, [forecasts.only(one, WEEK) for one in (before, now)]))
    losses = ", ".join(f"version {one.version} [bold]{one.loss(market):.3f}[/]" for one in (before, now))
    story.say(f"Mean squared error of the log volatility over the {len(now.answers)} days after {AS_OF}: {losses}.")
    middle = sorted(now.seconds)[len(now.seconds) // 2]
    story.say(f"A request through the Gateway took {middle * 1e3:.1f} ms at the median.")


def records(story: Story, kubectl: Kubectl, settings: dict[str, str]) -> None:
    story.command(kubectl, "get", "md", "-n", NAMESPACE)
    address = kubectl.get("service", "mlflow", "-n", "mlflow")["spec"]["clusterIP"]
    url = settings.get("MLFLOW_URL", f"http://{address}:5000")
    story.say(f"Runs, plots and versions in MLflow, from this machine:  [link={url}]{url}[/link]")


def _shown(path: Path) -> str:
    """Relative to the current directory where that is shorter: what a user would type."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def stopped(console: Console, error: StepFailed, kubectl: Kubectl | None) -> None:
    """Why it ended, and what the objects and the log say now."""
    console.print(f"\n[red bold]The demo stopped:[/] {escape(str(error))}", highlight=False)
    if kubectl is None:
        return
    for line in told_by(kubectl).standing():
        console.print(f"  {escape(line)}", highlight=False)
    console.print(
        "The cluster is still there: `make demo` begins the story again, `make sandbox-down` removes it.",
        highlight=False,
    )


def main() -> int:
    name = os.environ.get("FIDUCIARY_SANDBOX") or "fiduciary"
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    story = Story(console)
    kubectl: Kubectl | None = None
    try:
        with story.chapter("A cluster, with the operator, MLflow, Prometheus and a Gateway on it"):
            sandbox("up", "--name", name)
            place = Running.of(name)
            kubectl = place.kubectl
            forget_earlier_demo(story, kubectl)
        gateway = place.gateway
        with story.chapter("Two models are applied: real S&P 500 data, trained and judged"):
            first = first_versions(story, kubectl)
        with story.chapter("A forecast from behind the Gateway, and what the market then did"):
            market = held_out()
            before = first_forecast(story, first, market, gateway)
        with story.chapter("The spec changes: a better model becomes challenger"):
            rolling(story, kubectl, market)
            waits = linear(story, kubectl, first)
        days = market.after(AS_OF)
        target = replay.target_of(first, gateway, market, days)
        outcomes = replay.Outcomes(kubectl, NAMESPACE, VOLATILITY)
        with replay.play(target, market, days, rate=RATE, dwell=DWELL, chores=[outcomes]) as played:
            with story.chapter(f"The market is replayed: {RATE:.0f} requests a second decide"):
                second = promoted(story, kubectl, waits, played)
            with story.chapter("A broken challenger is rolled back"):
                rolled_back(story, kubectl, second, played)
        with story.chapter("The crisis of 2008 comes to a model of 2006: drift"):
            drifted(story, kubectl, place, market)
        with story.chapter("Every decision is a record"):
            records(story, kubectl, place.variables)
        with story.chapter("The same week, asked of the new champion"):
            told_by(kubectl).still_champion(second["status"]["champion"]["version"])
            both_forecasts(story, second, market, gateway, before)
    except StepFailed as error:
        stopped(console, error, kubectl)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped. The cluster is still there: `make demo` goes on, `make sandbox-down` removes it.")
        return 130
    story.summary()
    look = f'eval "$(python3 -m sandbox env --name {name})"'
    console.print(f"\nLook around:  [bold]{look}[/], then kubectl; [bold]make sandbox-down[/] removes everything.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
