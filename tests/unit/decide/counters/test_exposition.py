"""What our serving runtime really exposes, read by the template that counts it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from fiduciary.decide.counters.batches import tracks
from fiduciary.decide.counters.runtime import Runtime
from fiduciary.decide.counters.samples import Series
from fiduciary.decide.counters.state import FIELDS
from fiduciary.decide.counters.templates import Workload
from fiduciary.decide.counters.tracks import line
from fiduciary_server.metrics import Metrics

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def test_every_request_and_probe_is_where_the_reader_looks() -> None:
    serving: Any = SimpleNamespace(
        name="quant.m",
        version="7",
        short_digest="aaaaaaaa",
        latency_edges=(0.005, 0.25, 1.0),
        reference=None,
        features=(),
    )
    metrics = Metrics(serving)
    for outcome in ("success", "success", "success", "client_error", "server_error", "server_error"):
        with metrics.request("rest", None) as request:
            request.outcome = outcome
    for addressed, outcome in (("any", "success"), ("any", "server_error"), ("version", "success")):
        with metrics.request("grpc", addressed) as request:
            request.outcome = outcome
    metrics.request("grpc", None).__enter__()  # under way
    target = {"namespace": "quant", "pod": "m-aaaaaaaa-7d9c5-abcde"}
    series = [
        Series({"__name__": name, **target, **dict(_LABEL.findall(labels))}, ((1, float(value)),))
        for name, labels, value in _SAMPLE.findall(metrics.exposition().decode())
    ]
    track = tracks(Runtime(), series, (250, 1_000))[Workload("quant", "m-aaaaaaaa")]["pods"]["quant/" + target["pod"]]
    (frame,) = line(track, len(FIELDS) + 2, 0, 2).frames
    assert dict(zip((*FIELDS, "250ms", "1s"), frame.values, strict=True)) == {
        **{"started": 7, "good": 3, "client": 1, "failed": 2, "timed": 7, "timed_ended": 6},
        **{"probes": 2, "probes_failed": 1, "250ms": 6, "1s": 6},
    }
    assert frame.start is not None
