"""FinancialModel: what a person wants trained, judged, served and kept honest."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ATOMIC, ApiModel, Rule, Shape
from fiduciary.api.data import DataSpec
from fiduciary.api.gates import GATES_FIT, Gate
from fiduciary.api.meta import Column, Kind, Resource, name_rules
from fiduciary.api.modelstatus import FinancialModelStatus
from fiduciary.api.promotion import PromotionSpec
from fiduciary.api.quantities import Date, DnsLabel
from fiduciary.api.serving import ServingSpec
from fiduciary.api.training import TrainingSpec

__all__ = ["FinancialModel", "FinancialModelSpec", "FinancialModelStatus"]


class Governance(ApiModel):
    """Who answers for the model, and what for."""

    owner: Annotated[str, Field(min_length=1, max_length=128)]
    """Person or desk that answers for the model."""
    purpose: Annotated[str, Field(min_length=1, max_length=1024)]
    """What the model is used for, in a sentence."""
    tier: Literal["High", "Medium", "Low"] = "Medium"
    """How much depends on it: High, Medium or Low. Default: Medium."""
    review_by: Date | None = None
    """Date (YYYY-MM-DD) by which a person has to review the model."""


class KillSpec(ApiModel):
    """The kill switch. It works without Prometheus, MLflow and the model."""

    engaged: bool = False
    """Engages the switch. It latches: setting this back to false is not enough, a newer ModelApproval
    {decision: Resume} has to say so too. Default: false."""
    action: Literal["Block", "PreviousChampion"] = "Block"
    """What it does: Block answers no request, PreviousChampion serves the last approved version. Default: Block."""


class RegistrySpec(ApiModel):
    """Where versions are registered."""

    model: (
        Annotated[
            str,
            Field(min_length=1, max_length=250),
            Shape(r"[A-Za-z0-9][A-Za-z0-9._-]*", "consist of letters, digits, '.', '_' and '-'"),
        ]
        | None
    ) = None
    """Registered model. The first FinancialModel that claims it owns it. It cannot be changed once
    there is a champion. Default: <namespace>.<name>."""
    connection: DnsLabel = "mlflow"
    """Registry to use: an entry of the operator's settings, never an address. It cannot be changed
    once there is a champion. Default: mlflow."""


class FinancialModelSpec(ApiModel):
    """What is wanted. The operator never writes here."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *GATES_FIT,
        Rule(
            "!has(self.training.architecture) || !(self.training.architecture in ['EWMA', 'HAR']) || "
            "self.data.label.kind == 'Volatility'",
            "architectures EWMA and HAR model volatility: they need data.label.kind Volatility",
            field_path=".training.architecture",
        ),
        Rule(
            "!has(self.training.architecture) || self.training.architecture != 'Logistic' || "
            "self.data.label.kind == 'Direction'",
            "architecture Logistic needs data.label.kind Direction; use Linear for numbers",
            field_path=".training.architecture",
        ),
        Rule(
            "!has(self.training.architecture) || self.training.architecture != 'Linear' || "
            "self.data.label.kind != 'Direction'",
            "architecture Linear needs data.label.kind Volatility or Return; use Logistic for Direction",
            field_path=".training.architecture",
        ),
        Rule(
            "!has(self.training.quantiles) || self.data.label.kind != 'Direction'",
            "quantiles need data.label.kind Volatility or Return: an outcome of Direction is 0 or 1, and its "
            "probability says all",
            field_path=".training.quantiles",
        ),
        Rule(
            "!has(self.serving) || self.serving.runtime == 'Fiduciary' || self.training.engine == 'External'",
            "serving.runtime MLflow is for training.engine External; versions that are trained here are served by "
            "runtime Fiduciary",
            field_path=".serving",
        ),
    )

    suspend: bool = False
    """Starts nothing new and promotes nothing. A running training ends and is judged; serving and safety go on.
    Default: false."""
    deletion_policy: Literal["Delete", "Retain"] = "Delete"
    """What becomes of serving when this object is deleted. Delete: it ends. Retain: it goes on without the operator,
    and a new FinancialModel of the same name adopts it. Default: Delete."""
    governance: Governance | None = None
    """Who answers for the model, and what for. Shown in records and on the model card."""
    kill: KillSpec = KillSpec()
    """The kill switch."""
    data: DataSpec
    """The data that the model is trained on."""
    training: TrainingSpec
    """How the model is trained."""
    gates: Annotated[tuple[Gate, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    """Tests that a version has to pass before it may serve, besides the built-in ones, which always run. A change
    judges the stored numbers again without training."""
    registry: RegistrySpec = RegistrySpec()
    """Where versions are registered."""
    serving: ServingSpec | None = None
    """How versions are served. Absent: the model is trained, judged and registered, and not served."""
    promotion: PromotionSpec = PromotionSpec()
    """How a challenger becomes champion."""


class FinancialModel(Resource):
    """A financial machine-learning model from its data to its production service.

    The operator trains it in a Job, refuses it unless it passes the gates, registers it in MLflow, serves it, and
    lets a challenger earn traffic in a ModelExperiment. Every decision is kept as a ModelDecision.
    """

    registration: ClassVar[Kind] = Kind(
        singular="financialmodel",
        plural="financialmodels",
        short="fm",
        max_name=40,
        columns=(
            Column("Phase", ".status.phase", description="One word for where the model is"),
            Column("Champion", ".status.champion.version", description="Version that serves, or will"),
            Column("Challenger", ".status.challenger.version", description="Version that wants to serve"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether it answers requests"),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', description="Why it is (not) ready"),
            Column("Endpoint", ".status.endpoint.url", description="Where predictions are asked for"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Architecture", ".spec.training.architecture", wide=True),
            Column("Progress", ".status.training.progress.percent", "integer", wide=True),
            Column("Run", ".status.training.runId", wide=True),
            Column("Next", ".status.nextTraining", description="Next tick of the schedule", wide=True),
            Column("Suspended", ".spec.suspend", "boolean", wide=True),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        *name_rules("FinancialModel", 40),
        Rule(
            "!has(self.spec.serving) || !has(self.spec.serving.backend) || self.spec.serving.backend != 'KServe' || "
            "size(self.metadata.name) <= 35",
            "with backend KServe the name must have at most 35 characters, because KServe makes a label of 28 more "
            "from it; choose a shorter one, or another backend",
            field_path=".metadata.name",
        ),
        Rule(
            "!(self.spec.training.engine in ['JobSet', 'TrainJob']) || size(self.metadata.name) <= 35",
            "with spec.training.engine JobSet or TrainJob the name must have at most 35 characters, because the names "
            "of their pods are made from it; choose a shorter one, or engine Job",
            field_path=".metadata.name",
        ),
        Rule(
            "!has(oldSelf.status) || !has(oldSelf.status.champion) || self.spec.registry == oldSelf.spec.registry",
            "spec.registry cannot be changed once there is a champion: the versions that the log names are numbers of "
            "that registered model; create another FinancialModel instead",
            field_path=".spec.registry",
        ),
    )

    kind: Literal["FinancialModel"] = "FinancialModel"
    spec: FinancialModelSpec
    """What is wanted."""
    status: FinancialModelStatus = FinancialModelStatus()
    """What is true now."""
