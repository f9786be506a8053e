"""What was seen of Seldon Core v2: plain, frozen data that the engine gathered from Models, Experiments and Servers.

Seldon writes no ``observedGeneration``, keeps a scheduler's state in a condition's ``message`` and its cause in
``reason``, and leaves conditions as they were while its controller is away. So a view keeps both texts and when they
were written, and nothing here is believed without a probe (facts: Seldon Core v2.6.0 as it was observed).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.serving.observed import DeploymentView

if TYPE_CHECKING:
    from datetime import datetime

API_VERSION = "mlops.seldon.io/v1alpha1"
AVAILABLE = "ModelAvailable"


@dataclass(frozen=True, slots=True)
class Said:
    """One condition of a Seldon object."""

    status: bool
    reason: str = ""
    message: str = ""
    at: datetime | None = None  # lastTransitionTime, whole seconds


@dataclass(frozen=True, slots=True)
class ModelView(DeploymentView):
    """A Seldon Model: one version, loaded by a Server whose pods are nobody's own.

    Attributes:
        said: its condition ``ModelReady``; None: Seldon has said nothing yet.
        requirements, memory, server: of its spec; memory in bytes.
        edges: of its runtime's latency histogram, milliseconds; fixed when it was made.
    """

    said: Said | None = None
    requirements: tuple[str, ...] = ()
    memory: int = 0
    server: str = ""
    edges: frozenset[int] = frozenset()
    deleting_at: datetime | None = None

    @property
    def able(self) -> int:
        """Replicas that can take requests. A Model that was scaled to 0 stays Ready while its requests get 404, and
        ``status.replicas`` is what was asked for."""
        said = self.said
        if self.deleting or self.replicas == 0 or said is None or not said.status:
            return 0
        # True with a message of another state does not occur; an empty one is what releases before 2.6 wrote.
        return self.replicas if said.message in ("", AVAILABLE) else 0


@dataclass(frozen=True, slots=True)
class ExperimentView:
    """A Seldon Experiment of a model: the split on the route of its default.

    ``conditions`` by type: ExperimentReady, CandidatesReady, MirrorReady, Ready, and ModelReady, which is where a
    rejection is written, and where it stays although a later edit was taken. ``changed_at``: since when its spec is as
    it is; None: since before this process began. ``flips``: how often this process saw the readiness of one generation
    change; two schedulers that undo each other's routes show as that.
    """

    name: str
    uid: str
    resource_version: str
    generation: int
    decision: int
    content: str
    edited: bool = False
    owner_uid: str = ""
    default: str = ""
    candidates: tuple[tuple[str, int], ...] = ()
    mirror: tuple[str, int] | None = None
    conditions: tuple[tuple[str, Said], ...] = ()
    changed_at: datetime | None = None
    flips: int = 0
    deleting: bool = False
    deleting_at: datetime | None = None

    def said(self, kind: str) -> Said | None:
        return next((said for name, said in self.conditions if name == kind), None)

    @property
    def names(self) -> frozenset[str]:
        """Models that it sends requests or copies to."""
        mirrored = {self.mirror[0]} if self.mirror is not None else set[str]()
        return frozenset({name for name, _ in self.candidates} | mirrored)


@dataclass(frozen=True, slots=True)
class ServerView:
    """A Server of the model's namespace.

    Attributes:
        capabilities: its own, else its ServerConfig's, and the extra ones; None: neither says.
        memory: bytes of one replica that Models share; None: its pod template does not say.
        replicas: as asked for. A Server with 0 of them stays Ready.
    """

    name: str
    capabilities: frozenset[str] | None
    memory: int | None
    replicas: int
    ready: bool
    message: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SeldonView:
    """Everything of Seldon, apart from Models, that a model's world holds."""

    experiments: tuple[ExperimentView, ...] = ()
    servers: tuple[ServerView, ...] = ()  # of the model's namespace: a scheduler places Models on its own Servers only
