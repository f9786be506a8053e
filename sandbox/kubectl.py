"""kubectl against one sandbox: what a user types, and objects as they change."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

Object = dict[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """A kubectl program with a kubeconfig."""

    program: Path
    kubeconfig: Path

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        """Standard output. Raises StepFailed with standard error."""
        done = subprocess.run(
            self._argv(words), input=stdin, capture_output=True, text=True, env=self._env, check=False
        )
        if done.returncode:
            raise StepFailed(f"`kubectl {' '.join(words)}` failed: {done.stderr.strip()}")
        return done.stdout

    def get(self, *words: str) -> Object:
        """`kubectl get ... -o json`, decoded."""
        return json.loads(self("get", *words, "-o", "json"))

    def documents(self, *words: str) -> list[Object]:
        """What a command prints of each object that it is about, `-o json`."""
        found: list[Object] = []
        for document in documents(self(*words, "-o", "json").splitlines(keepends=True)):
            found += document["items"] if document["kind"] == "List" else [document]
        return found

    def follow(
        self, kind: str, namespace: str, done: Callable[[dict[str, Object]], bool], *, seconds: float, what: str
    ) -> Iterator[dict[str, Object]]:
        """Objects of a namespace by name, again after every change, until `done` holds of them.

        Watches, so that nothing is asked while nothing happens. Raises StepFailed after `seconds`, naming `what` and
        what the objects said of themselves instead.
        """
        words = ("get", kind, "-n", namespace, "--watch", "--output-watch-events", "-o", "json")
        deadline = time.monotonic() + seconds
        ended_with, objects = "", dict[str, Object]()
        while (left := deadline - time.monotonic()) > 0:
            process = subprocess.Popen(
                self._argv(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._env
            )
            ended = threading.Timer(left, process.kill)
            ended.start()
            try:
                objects = {}
                assert process.stdout is not None
                for event in documents(process.stdout):
                    name = event["object"]["metadata"]["name"]
                    if event["type"] == "DELETED":
                        objects.pop(name, None)
                    else:
                        objects[name] = event["object"]
                    yield objects
                    if done(objects):
                        return
                ended_with = process.stderr.read().strip() if process.stderr else ""
            finally:
                ended.cancel()
                process.kill()
                process.wait()
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))  # the API server ended the watch: once more
        seen = "; ".join(map(said, objects.values())) or f"there are no {kind} in the namespace {namespace}"
        raise StepFailed(f"{what} did not happen within {seconds:.0f} s. {ended_with}".strip() + f"\nSeen: {seen}")

    def _argv(self, words: Sequence[str]) -> list[str]:
        return [str(self.program), *words]

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}


def documents(lines: Iterable[str]) -> Iterator[Object]:
    """JSON documents of a stream: one in a line or spread over many, as kubectl's versions have it."""
    text = ""
    for line in lines:
        text += line
        if not line.rstrip().endswith("}"):
            continue
        try:
            value = json.loads(text)
        except ValueError:  # a brace inside of the document
            continue
        text = ""
        yield value


def condition(item: Object, kind: str) -> dict[str, str]:
    """A condition that speaks of the object's present generation; empty where there is none."""
    generation = item["metadata"].get("generation", 0)
    for found in item.get("status", {}).get("conditions", []):
        if found["type"] == kind and found.get("observedGeneration", generation) == generation:
            return found
    return {}


def is_true(item: Object, kind: str) -> bool:
    return condition(item, kind).get("status") == "True"


def settled(item: Object) -> bool:
    """The operator has answered for the present generation, and nothing is on its way."""
    answered = item.get("status", {}).get("observedGeneration", -1) == item["metadata"]["generation"]
    return answered and not is_true(item, "Reconciling")


def said(item: Object) -> str:
    """What an object says of itself: what a person has to do, else what is on its way, else whether it is ready."""
    status = item.get("status", {})
    name = f"{item['metadata']['name']} ({status.get('phase') or 'not looked at yet'})"
    for kind in ("Stalled", "Reconciling", "Ready"):
        found = condition(item, kind)
        if found.get("status") == "True" or (kind == "Ready" and found):
            return f"{name}: {kind} is {found['status']}, {found['reason']}: {found.get('message', '')}"
    return name
