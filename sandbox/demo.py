"""`make demo`: the story of a model, from `kubectl apply` to forecasts that clients get, told by real objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console

from sandbox import forecasts, inference
from sandbox.kubectl import Kubectl, Object, condition, is_true, settled
from sandbox.running import Running, held_out
from sandbox.steps import StepFailed
from sandbox.story import Story, TrainingView

if TYPE_CHECKING:
    from sandbox.forecasts import Asked
    from sandbox.market import Market

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "deploy" / "samples"
NAMESPACE = "quant"
VOLATILITY, DIRECTION = "spx-volatility", "spx-direction"
TRAINING_SECONDS, SERVING_SECONDS = 600, 180
AS_OF = "2017-12-29"  # of the samples: no version saw a later day
WEEK = ("2018-02-01", "2018-02-02", "2018-02-05", "2018-02-06", "2018-02-07", "2018-02-08", "2018-02-09")
APPROVER, APPROVERS = "ana@desk", "fiduciary:approvers"  # see deploy/sandbox/quant


def sandbox(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "sandbox", *words], cwd=ROOT, check=False)
    if done.returncode:
        raise StepFailed(
            f"`python -m sandbox {' '.join(words)}` ended with exit code {done.returncode}; its lines are above"
        )


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
        raise StepFailed("the samples were not judged as they should be: `kubectl describe fm -n quant` says more")
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


def challenger(story: Story, kubectl: Kubectl) -> Object:
    story.say("The same resource, with [bold]architecture: Linear[/] and more features:")
    story.command(kubectl, "apply", "-f", _shown(SAMPLES / "spx-volatility-linear.yaml"))
    states = kubectl.follow(
        "financialmodels",
        NAMESPACE,
        lambda models: (
            VOLATILITY in models and judged(models[VOLATILITY]) and settled_on_challenger(models[VOLATILITY])
        ),
        seconds=TRAINING_SECONDS,
        what="A verdict on the linear model",
    )
    model = TrainingView(story.console).follow({VOLATILITY: seen[VOLATILITY]} for seen in states if VOLATILITY in seen)[
        VOLATILITY
    ]
    story.command(kubectl, "get", "fm", "-n", NAMESPACE)
    if "challenger" not in model["status"]:
        raise StepFailed("the linear model did not become challenger: `kubectl describe fm -n quant` says more")
    story.say(f"[green]The linear model is challenger[/]: version {model['status']['challenger']['version']}.")
    story.quote(condition(model, "GatesPassed").get("message", ""))
    return model


def approved(story: Story, kubectl: Kubectl, model: Object) -> Object:
    """A person who did not write the spec approves, as herself; the route moves."""
    wanted = model["status"]["challenger"]["digest"]
    act = approval(model)
    story.say(f"Whoever wrote the spec may not approve it. [bold]{APPROVER}[/] may, and does:")
    said = yaml.safe_dump(act, sort_keys=False, width=120)
    story.command(kubectl, "create", f"--as={APPROVER}", f"--as-group={APPROVERS}", "-f", "-", stdin=said)
    states = kubectl.follow(
        "financialmodels",
        NAMESPACE,
        lambda models: (
            models.get(VOLATILITY, {}).get("status", {}).get("champion", {}).get("digest") == wanted
            and serves(models[VOLATILITY])
        ),
        seconds=SERVING_SECONDS,
        what="The approved version as champion",
    )
    model = TrainingView(story.console).follow({VOLATILITY: seen[VOLATILITY]} for seen in states if VOLATILITY in seen)[
        VOLATILITY
    ]
    story.command(kubectl, "get", "fm", "-n", NAMESPACE)
    return model


def approval(model: Object) -> Object:
    return {
        "apiVersion": model["apiVersion"],
        "kind": "ModelApproval",
        "metadata": {"generateName": f"{VOLATILITY}-", "namespace": NAMESPACE},
        "spec": {
            "modelRef": {"name": VOLATILITY},
            "decision": "Approve",
            "evidenceDigest": model["status"]["approvalRequest"]["digest"],
            "approver": APPROVER,
            "reason": "its lower bound of skill is above that of the model that serves",
        },
    }


def both_forecasts(story: Story, model: Object, market: Market, gateway: str, before: Asked) -> None:
    """The same week asked again, and what both versions said of all days that neither saw in training."""
    url, headers = inference.endpoint(model, gateway), model["status"]["endpoint"].get("headers", {})
    now = forecasts.ask(url, headers, market, market.after(AS_OF))
    story.show(forecasts.beside_outcomes(market, WEEK, [forecasts.only(one, WEEK) for one in (before, now)]))
    losses = ", ".join(f"version {one.version} [bold]{one.loss(market):.3f}[/]" for one in (before, now))
    story.say(f"Mean squared error of the log volatility over the {len(now.answers)} days after {AS_OF}: {losses}.")
    middle = sorted(now.seconds)[len(now.seconds) // 2]
    story.say(f"A request through the Gateway took {middle * 1e3:.1f} ms at the median.")


def settled_on_challenger(model: Object) -> bool:
    """Either there is a challenger, or its training ended without one."""
    status = model["status"]
    runs = status.get("runs") or [{}]
    return "challenger" in status or runs[0].get("outcome") in ("Rejected", "Failed", "Aborted")


def records(story: Story, kubectl: Kubectl, settings: dict[str, str]) -> None:
    story.command(kubectl, "get", "md", "-n", NAMESPACE)
    address = kubectl.get("service", "mlflow", "-n", "mlflow")["spec"]["clusterIP"]
    url = settings.get("MLFLOW_URL", f"http://{address}:5000")
    story.say(f"Runs, plots and versions in MLflow, from this machine:  [link={url}]{url}[/link]")


def _shown(path: Path) -> str:
    """Relative to the current directory where that is shorter: what a user would type."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> int:
    name = os.environ.get("FIDUCIARY_SANDBOX") or "fiduciary"
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    story = Story(console)
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
            waits = challenger(story, kubectl)
        with story.chapter("A person approves it, and traffic moves"):
            second = approved(story, kubectl, waits)
        with story.chapter("Every decision is a record"):
            records(story, kubectl, place.variables)
        with story.chapter("The same week, asked of the new champion"):
            both_forecasts(story, second, market, gateway, before)
    except StepFailed as error:
        console.print(f"\n[red bold]The demo stopped:[/] {error}", highlight=False)
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
