"""`make demo`: the story of a model, from `kubectl apply` to a judged and registered version, told by real objects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sandbox.console import duration
from sandbox.kubectl import Kubectl, Object, condition, is_true, settled
from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "deploy" / "samples"
NAMESPACE = "quant"
VOLATILITY, DIRECTION = "spx-volatility", "spx-direction"
TRAINING_SECONDS = 600


class Story:
    """What the user sees: chapters with the time that each took, commands as typed, and their real output."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()
        self.chapters: list[tuple[str, float]] = []

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        number = len(self.chapters) + 1
        self.console.print()
        self.console.rule(f"[bold]{number}. {title}[/]", align="left", style="bright_black")
        began = time.monotonic()
        yield
        self.chapters.append((title, time.monotonic() - began))
        self.console.print(Text(f"{duration(time.monotonic() - began)}", style="bright_black"), justify="right")

    def say(self, text: str) -> None:
        self.console.print(Padding(text, (0, 0, 0, 2)))

    def command(self, kubectl: Kubectl, *words: str) -> str:
        """Type it, run it, show what it said."""
        self.console.print(Text.assemble(("$ ", "green"), ("kubectl " + " ".join(words), "bold")), soft_wrap=True)
        said = kubectl(*words)
        # Tables of kubectl are wider than some terminals; folding them would spoil the columns.
        self.console.print(said.rstrip(), highlight=False, markup=False, soft_wrap=True)
        return said

    def summary(self) -> None:
        self.console.print()
        table = Table(show_header=False, box=None, padding=(0, 2))
        for title, seconds in self.chapters:
            table.add_row(title, Text(duration(seconds), justify="right"))
        table.add_row(
            "[bold]all of it[/]", Text(duration(time.monotonic() - self.began), justify="right", style="bold")
        )
        self.console.print(table)


class TrainingView:
    """Models that train: bars where the terminal can redraw, a line per change elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.said: dict[str, str] = {}

    def follow(self, states: Iterator[dict[str, Object]]) -> dict[str, Object]:
        """Show every state; returns the last."""
        began, last = time.monotonic(), {}
        if not self.console.is_terminal:
            for last in states:
                self._lines(last, time.monotonic() - began)
            return dict(last)
        with Live(console=self.console, refresh_per_second=8, get_renderable=lambda: self._table(last, began)):
            for last in states:  # noqa: B007 -- the Live display reads it
                pass
        return dict(last)

    def _table(self, models: dict[str, Object], began: float) -> RenderableType:
        table = Table(box=None, padding=(0, 2), header_style="bright_black")
        for column in ("model", "phase", "", "", ""):
            table.add_column(column)
        for name, model in sorted(models.items()):
            phase, percent, detail = describe(model)
            bar = ProgressBar(total=100, completed=percent, width=30) if percent is not None else ""
            style = "green" if is_true(model, "GatesPassed") else "red" if phase == "Refused" else "cyan"
            shown = f"{percent} %" if percent is not None else ""
            table.add_row(f"[bold]{name}[/]", f"[{style}]{phase}[/]", bar, shown, Text(detail, style="bright_black"))
        return Group(table, Text(f"  {duration(time.monotonic() - began)}", style="bright_black"))

    def _lines(self, models: dict[str, Object], seconds: float) -> None:
        for name, model in models.items():
            phase, percent, detail = describe(model)
            tens = "" if percent is None else f"{percent // 10 * 10} %"
            if self.said.get(name) != f"{phase} {tens}":
                self.said[name] = f"{phase} {tens}"
                self.console.print(
                    f"  {duration(seconds):>12}  {name:<16} {phase:<12} {tens:>5}  {detail}",
                    highlight=False,
                    soft_wrap=True,
                )


def describe(model: Object) -> tuple[str, int | None, str]:
    """Phase, percent of a running training, and what else its status says about it."""
    status = model.get("status", {})
    training = status.get("training") or {}
    progress = training.get("progress") or {}
    phase = str(status.get("phase") or "Pending")
    if phase != "Training" and not training:
        return phase, None, ""
    words: list[str] = [str(training.get("phase") or "")]
    if "epochs" in progress:
        words.append(f"epoch {progress.get('epoch', 0)}/{progress['epochs']}")
    if metric := progress.get("lastMetric"):
        words.append(f"{metric['name']} {metric['value']}")
    if progress.get("etaSeconds"):
        words.append(f"about {duration(progress['etaSeconds'])} left")
    return phase, progress.get("percent"), " · ".join(word for word in words if word)


def sandbox(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "sandbox", *words], cwd=ROOT, check=False)
    if done.returncode:
        raise StepFailed(
            f"`python -m sandbox {' '.join(words)}` ended with exit code {done.returncode}; its lines are above"
        )


def environment(name: str) -> dict[str, str]:
    """What `python -m sandbox env` says."""
    argv = [sys.executable, "-m", "sandbox", "env", "--name", name]
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {m[1]: m[2].strip("'\"") for m in re.finditer(r"^(?:export )?(\w+)=(.*)$", said, re.MULTILINE)}


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


def first_versions(story: Story, kubectl: Kubectl) -> None:
    story.command(
        kubectl, "apply", "-f", _shown(SAMPLES / "spx-volatility.yaml"), "-f", _shown(SAMPLES / "spx-direction.yaml")
    )
    wanted = {VOLATILITY, DIRECTION}
    states = kubectl.follow(
        "financialmodels",
        NAMESPACE,
        lambda models: wanted <= models.keys() and all(judged(models[name]) for name in wanted),
        seconds=TRAINING_SECONDS,
        what="A verdict on both samples",
    )
    models = TrainingView(story.console).follow(states)
    story.command(kubectl, "get", "fm", "-A")
    refused = condition(models[DIRECTION], "GatesPassed")
    if refused["status"] != "False" or not is_true(models[VOLATILITY], "GatesPassed"):
        raise StepFailed(
            "the samples were not judged as they should be: `kubectl describe fm -n quant` says more"
        )
    champion = models[VOLATILITY]["status"]["champion"]
    story.say(f"[green]{VOLATILITY} is registered[/] as version {champion['version']}, {champion['digest'][:19]}…")
    story.say(f"[red]{DIRECTION} is refused[/], and says why:")
    story.console.print(Padding(Text(refused["message"], style="italic"), (0, 0, 0, 4)))


def challenger(story: Story, kubectl: Kubectl) -> None:
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
    story.command(kubectl, "get", "fm", "-A")
    if "challenger" not in model["status"]:
        raise StepFailed(
            "the linear model did not become challenger: `kubectl describe fm -n quant` says more"
        )
    story.say(f"[green]The linear model is challenger[/]: version {model['status']['challenger']['version']}.")
    story.console.print(Padding(Text(condition(model, "GatesPassed").get("message", ""), style="italic"), (0, 0, 0, 4)))


def settled_on_challenger(model: Object) -> bool:
    """Either there is a challenger, or its training ended without one."""
    status = model["status"]
    runs = status.get("runs") or [{}]
    return "challenger" in status or runs[0].get("outcome") in ("Rejected", "Failed", "Aborted")


def records(story: Story, kubectl: Kubectl, settings: dict[str, str]) -> None:
    story.command(kubectl, "get", "md", "-A")
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
            settings = environment(name)
            kubectl = Kubectl(Path(settings.get("KUBECTL", "kubectl")), Path(settings["KUBECONFIG"]))
            forget_earlier_demo(story, kubectl)
        with story.chapter("Two models are applied: real S&P 500 data, trained and judged"):
            first_versions(story, kubectl)
        with story.chapter("The spec changes: a better model becomes challenger"):
            challenger(story, kubectl)
        with story.chapter("Every decision is a record"):
            records(story, kubectl, settings)
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
