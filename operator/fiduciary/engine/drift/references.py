"""What versions were trained on: drift references read from MLflow beside the reconciles, and calibrated once each.

MLflow is not trusted: a reference counts where it hashes to what the version's manifest says, and the manifest to the
version's digest, which the decision log holds. Kept is what detectors rest on, a few numbers a block, not the counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog

from fiduciary.clients.mlflow import RegistryError
from fiduciary.decide.drift import calibrate
from fiduciary.decide.drift.reference import Reference, parsed
from fiduciary.engine.queue import Backoff, Waiting
from fiduciary.evidence.refusal import Refusal, Why

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from fiduciary.api.data import LabelKind
    from fiduciary.api.driftpolicy import DriftPolicySpec
    from fiduciary.decide.drift.calibrate import Calibrated

log = structlog.get_logger(part="drift")

BACKOFF = Backoff(first=2.0, limit=300.0)
CONCURRENCY = 2
MANIFEST, REFERENCE = "version/manifest.json", "drift_reference.json"
#: A reference has a million cells at most, some 2.5 MB.
MOST_BYTES = 16 << 20


class Artifacts(Protocol):
    """The call of :class:`fiduciary.clients.mlflow.Registry` that is made here."""

    async def artifact(self, run_id: str, path: str, most: int = ...) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A version whose reference one policy needs.

    Attributes:
        key: of the calibration (:func:`fiduciary.decide.drift.calibrate.key`).
        run_id: None: the version was not trained here, and carries no reference.
        digest: of the version.
    """

    key: str
    connection: str
    run_id: str | None
    digest: str
    spec: DriftPolicySpec
    uid: str
    label: LabelKind


@dataclass
class _Aim:
    asked: Asked
    found: Calibrated | Refusal | None = None
    problem: str = ""


class References:
    """``changed`` is told the key whose calibration was made, or which cannot be made for now."""

    def __init__(
        self,
        registries: Mapping[str, Artifacts],
        changed: Callable[[Hashable], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue: Waiting[Hashable] = Waiting(BACKOFF, clock)
        self._registries = registries
        self._changed = changed
        self._aims: dict[Hashable, _Aim] = {}

    def aim(self, key: Hashable, asked: Asked | None) -> None:
        """What ``key`` needs from now on."""
        aim = self._aims.get(key)
        if asked is None:
            if self._aims.pop(key, None) is not None:
                self.queue.core.drop(key)
        elif aim is None or _other(aim, asked):
            self._aims[key] = _Aim(asked)
            self.queue.core.forget(key)
            self.queue.add(key)

    def drop(self, key: Hashable) -> None:
        self.aim(key, None)

    def of(self, key: Hashable, calibration: str) -> Calibrated | Refusal | None:
        """The calibration of this key; None while it is not made."""
        aim = self._aims.get(key)
        return aim.found if aim is not None and aim.asked.key == calibration else None

    def problem(self, key: Hashable) -> str:
        """Why it is not made yet; empty: it is on its way."""
        aim = self._aims.get(key)
        return "" if aim is None else aim.problem

    def close(self) -> None:
        self.queue.close()

    async def run(self) -> None:
        """Read until :meth:`close`."""
        await self.queue.work_off(self._work, CONCURRENCY)

    async def _work(self, key: Hashable) -> None:
        try:
            await self.step(key)
        except Exception:
            log.exception("reference.bug", key=str(key))  # the others go on, and so does this one
            self.queue.fail(key)

    async def step(self, key: Hashable) -> None:
        """Read one reference and calibrate it."""
        aim = self._aims.get(key)
        if aim is None:
            return
        before, known, asked = aim.problem, aim.found, aim.asked
        try:
            content = await self._content(asked)
        except RegistryError as error:
            aim.problem = f"{error.reason}: {error.message}"
            self.queue.fail(key)
            if aim.problem != before:
                log.warning("reference.waits", key=str(key), reason=error.reason, why=error.message)
                self._changed(key)
            return
        # A large one takes a moment, in which others work.
        aim.found = await asyncio.to_thread(_calibrated, asked, content)
        aim.problem = ""
        if isinstance(content, Refusal):
            self.queue.fail(key)  # whoever restores the run in MLflow tells nobody
        else:
            self.queue.core.forget(key)
        if isinstance(aim.found, Refusal) and aim.found != known:
            log.warning("reference.refused", key=str(key), why=aim.found.message)
        if self._aims.get(key) is aim and (known is None or aim.found != known):
            self._changed(key)

    async def _content(self, asked: Asked) -> bytes | Refusal | None:
        """The document's bytes; None where the version carries none. Raises :class:`RegistryError`."""
        if asked.run_id is None:
            return None
        client = self._registries.get(asked.connection)
        if client is None:
            raise RegistryError("RegistryRefused", f"connection {asked.connection!r} is not in the operator's settings")
        manifest = await client.artifact(asked.run_id, MANIFEST)
        if manifest is None or _hash(manifest) != asked.digest.removeprefix("sha256:"):
            seen = "none" if manifest is None else f"one that hashes to {_hash(manifest)[:12]}"
            return _foreign(f"run {asked.run_id} has to have the manifest of {asked.digest[:19]}, and has {seen}")
        expected = _listed(manifest)
        if expected is None:
            return None
        content = await client.artifact(asked.run_id, f"version/{REFERENCE}", MOST_BYTES)
        if content is None or _hash(content) != expected:
            return _foreign(f"{REFERENCE} of run {asked.run_id} is not the file that the version's manifest names")
        return content


def _other(aim: _Aim, asked: Asked) -> bool:
    """Whether something else is asked for; where it is read from is nothing else once it was read."""
    unread = aim.found is None or isinstance(aim.found, Refusal)
    place = (aim.asked.connection, aim.asked.run_id) != (asked.connection, asked.run_id)
    return (aim.asked.key, aim.asked.label) != (asked.key, asked.label) or (unread and place)


def _calibrated(asked: Asked, content: bytes | Refusal | None) -> Calibrated | Refusal:
    if isinstance(content, Refusal):
        return content
    reference: Reference | Refusal | None = None
    if content is not None:
        try:
            reference = parsed(json.loads(content))
        except (ValueError, RecursionError):
            return _foreign(f"{REFERENCE} of run {asked.run_id} is no JSON")
    if isinstance(reference, Refusal):
        return reference
    return calibrate.calibrated(asked.spec, asked.uid, asked.digest, asked.label, reference)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _listed(manifest: bytes) -> str | None:
    """Hash of the reference by the manifest, whose own hash is known to be the version's."""
    files: object = cast("dict[str, Any]", json.loads(manifest)).get("files")
    named = cast("dict[str, Any]", files).get(REFERENCE) if isinstance(files, dict) else None
    return named if isinstance(named, str) else None


def _foreign(what: str) -> Refusal:
    return Refusal(Why.MALFORMED, f"{what}: somebody changed the run in MLflow; restore it, or train again")
