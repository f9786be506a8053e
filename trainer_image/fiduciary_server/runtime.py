"""The MLServer runtime: a model of MLServer's own kind, so that any MLServer can serve a version.

``serve`` puts lean transports before it (``rest.py``, ``rpc.py``), which count requests and know probes; MLServer's own
transports may call :meth:`FiduciaryRuntime.predict` as they call any model's.
"""

from __future__ import annotations

import gc
import itertools
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlserver import MLModel, ModelSettings
from mlserver.logging import logger
from mlserver.types import (
    Datatype,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataTensor,
    Parameters,
    ResponseOutput,
    TensorData,
)

from fiduciary_server import contract, example, inputs
from fiduciary_server.ending import Ended
from fiduciary_server.errors import BadRequest, Failed, Unusable
from fiduciary_server.metrics import Metrics
from fiduciary_server.probes import Probes
from fiduciary_server.records import Record, Records
from fiduciary_server.tensors import Tensor, quoted
from fiduciary_server.version import PREDICTION, QUANTILES, BrokenModel, Version

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from fiduciary_server.contract import Serving

LONGEST_ID = 128

APART = 2
"""Threads for requests that are so large that others would wait for them."""


class Asked(NamedTuple):
    """A request.

    Attributes:
        tensors: its inputs, unchecked.
        identity: the client's id.
        outputs: names of the outputs that it asks for; none: all.
        trace: an id that the gateway gave it.
    """

    tensors: Sequence[Tensor]
    identity: str | None = None
    outputs: Sequence[str] = ()
    trace: str | None = None


class Output(NamedTuple):
    """A tensor of an answer, FP32; ``data`` is flat, row by row; ``levels`` of quantiles, as text, else None."""

    name: str
    shape: list[int]
    data: list[float]
    levels: str | None = None


class Answer(NamedTuple):
    """The outputs that were asked for, and the id that they are known by."""

    prediction_id: str
    outputs: list[Output]


class FiduciaryRuntime(MLModel):
    """One version.

    Args:
        settings: ``parameters.uri`` is the version's folder, ``parameters.extra["serving"]`` the document of
            :mod:`fiduciary_server.contract`.

    Attributes:
        serving: that document.
        metrics, probes: see their modules.
        failure: why the version could not be loaded.
        loaded, records, example: once :meth:`load` is done: the version, what keeps records, and an inference request
            that passes every check.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        assert settings.parameters is not None
        assert settings.parameters.uri is not None
        extra: dict[str, Any] = settings.parameters.extra or {}
        self.serving: Serving = contract.parse(extra["serving"])
        # These need no version: series are there, and probes are known, before one is loaded.
        self.metrics = Metrics(self.serving)
        self.probes = Probes(self.serving.probe_key, self.serving.name, self.serving.digest)
        self.failure: Ended | None = None
        self._folder = Path(settings.parameters.uri)
        self._ids = itertools.count(1)
        self._sender = secrets.token_hex(8)
        self.apart = ThreadPoolExecutor(APART, "large-requests")

    async def load(self) -> bool:
        """Load the version and make two predictions with it: it is ready when it has answered.

        Raises:
            Ended: BadVersion.
        """
        try:
            self._load()
        except Ended as ended:
            self.failure = ended
            raise
        return True

    def _load(self) -> None:
        self.loaded = loaded = Version.load(self._folder, self.serving.threads)
        self.metrics.reference(loaded.reference.sha256)
        self.records = Records(self.serving, loaded.features.names, loaded.reference, loaded.transform, self.metrics)
        self.example = self._warm_up()
        self.records.start()
        # What is alive now lives as long as the process: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()

    def _warm_up(self) -> dict[str, Any]:
        """Predict from both forms of input; returns the bars, or a feature row where no bars could be made up."""
        row, bars = example.feature_row(self.loaded), example.bars(self.loaded)
        try:
            for document in (row, bars):
                self.answer(Asked([Tensor(**tensor) for tensor in document["inputs"]]), live=False)
        except Failed as error:
            raise Ended("BadVersion", f"the model cannot answer an example of its own reference: {error}") from None
        except BadRequest as error:
            logger.warning("no example of raw bars: %s", error)
            return row
        return bars

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """MLServer's interface; raises its errors."""
        tensors = [
            Tensor(given.name, given.datatype, given.shape, getattr(given.data, "root", given.data))
            for given in payload.inputs
        ]
        asked = Asked(tensors, payload.id, [wanted.name for wanted in payload.outputs or ()])
        answer = self.answer(asked, live=True)
        outputs = [
            ResponseOutput(
                name=name,
                shape=shape,
                datatype="FP32",
                data=TensorData(data),
                parameters=None if levels is None else Parameters(levels=levels),
            )
            for name, shape, data, levels in answer.outputs
        ]
        return InferenceResponse(
            model_name=self.serving.name,
            model_version=self.serving.version,
            id=payload.id,
            parameters=Parameters(**self.parameters(answer)),
            outputs=outputs,
        )

    def answer(self, asked: Asked, *, live: bool) -> Answer:
        """Check a request, predict, and keep a record of each prediction.

        Args:
            asked: the request.
            live: whether records are kept; not of probes.

        Raises:
            BadRequest: what was seen and what was expected.
            Failed: the model failed.
        """
        _demand(asked, self.loaded.outputs)
        given = inputs.read(asked.tensors, self.loaded)
        identity = f"{self._sender}-{next(self._ids):x}"
        try:
            inputs.check(given, self.loaded)
        except Unusable:
            if live:
                features = given.within(self.loaded.reference)
                self._record(identity, asked, given, features, [None] * len(given.times))
            raise
        try:
            found, quantiles = self.loaded.predict(given.raw)
        except BrokenModel as error:
            raise Failed(str(error)) from error
        predictions: list[float] = found.tolist()
        if live:
            self._record(identity, asked, given, given.last, predictions)
        outputs = [Output(PREDICTION, [len(predictions), 1], predictions)]
        if quantiles is not None:
            values = quantiles.ravel().tolist()
            outputs.append(Output(QUANTILES, list(quantiles.shape), values, self.loaded.levels))
            outputs = [each for each in outputs if not asked.outputs or each.name in asked.outputs]
        return Answer(identity, outputs)

    def parameters(self, answer: Answer) -> dict[str, str]:
        """What an answer carries beside its output."""
        return {
            "version": self.serving.version,
            "digest": self.serving.digest,
            "predictionId": answer.prediction_id,
        }

    async def metadata(self) -> MetadataModelResponse:
        """The raw form as tensors; the form of feature rows, the example and the digest as parameters."""
        version = self.loaded
        columns = [
            MetadataTensor(name=name, datatype=Datatype.FP64, shape=[-1, version.form.rows])
            for name in version.form.columns
        ]
        optional = [
            MetadataTensor(name=name, datatype=Datatype.BYTES, shape=[-1], parameters=Parameters(optional=True))
            for name in (inputs.TIME, inputs.ENTITY)
        ]
        rows = {
            "name": inputs.FEATURES,
            "datatype": "FP64",
            "shape": [-1, *version.row_shape],
            "features": list(version.features.names),
        }
        return MetadataModelResponse(
            name=self.serving.name,
            versions=[self.serving.version],
            platform="fiduciary_onnx",
            inputs=[*columns, *optional],
            outputs=_outputs(version),
            parameters=Parameters(
                version=self.serving.version,
                digest=self.serving.digest,
                featureRows=rows,
                exampleRequest=self.example,
            ),
        )

    def _record(
        self,
        identity: str,
        asked: Asked,
        given: inputs.Inputs,
        features: NDArray[np.float64],
        predictions: Sequence[float | None],
    ) -> None:
        if not self.records.enabled:
            return
        traced = asked.identity or asked.trace
        if len(predictions) == 1:
            only = Record(identity, traced, given.entities[0], given.times[0], predictions[0], features[0])
            self.records.add((only,))
            return
        rows = enumerate(zip(given.entities, given.times, predictions, features, strict=True))
        self.records.add(
            [
                Record(f"{identity}-{place}", traced, entity, when, prediction, own)
                for place, (entity, when, prediction, own) in rows
            ]
        )


def _demand(asked: Asked, outputs: Sequence[str]) -> None:
    if asked.identity is not None and len(asked.identity) > LONGEST_ID:
        raise BadRequest(f"id has {len(asked.identity)} characters; at most {LONGEST_ID} are kept")
    for name in asked.outputs:
        if name not in outputs:
            gives = " and ".join(repr(each) for each in outputs)
            raise BadRequest(f"output {quoted(name)} was asked for; this model gives {gives}")


def _outputs(version: Version) -> list[MetadataTensor]:
    point = MetadataTensor(
        name=PREDICTION, datatype=Datatype.FP32, shape=[-1, 1], parameters=Parameters(**_described(version))
    )
    said = version.quantiles
    if said is None:
        return [point]
    described = {"levels": version.levels, "meaning": said["meaning"], "unit": said["unit"]}
    shape = [-1, len(said["levels"])]
    return [
        point,
        MetadataTensor(name=QUANTILES, datatype=Datatype.FP32, shape=shape, parameters=Parameters(**described)),
    ]


def _described(version: Version) -> dict[str, Any]:
    return {name: version.output[name] for name in ("label", "horizon", "meaning", "unit") if name in version.output}
