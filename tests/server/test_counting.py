"""Counters that block deltas can be taken of: integers, complete from the start, probes apart."""

from __future__ import annotations

import base64
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fiduciary_server.probes import Probes
from tests.server.served import NAME, Served, changes, message, serving, window

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np

    Bars = Mapping[str, np.ndarray]

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
DIGEST = "sha256:" + "ab" * 32


def header(
    target: str, model: str = NAME, at: float | None = None, key: Ed25519PrivateKey = KEY, nonce: str | None = None
) -> str:
    begin = f"v1.{int(time.time() if at is None else at)}.{nonce or secrets.token_hex(8)}"
    signature = base64.urlsafe_b64encode(key.sign(f"{begin}.{model}.{target}".encode())).decode().rstrip("=")
    return f"{begin}.{signature}"


@pytest.fixture(scope="module")
def probed(versions: Path) -> Iterator[Served]:
    with serving(versions / "har", probeKey=base64.b64encode(PUBLIC).decode()) as served:
        yield served


def test_every_series_is_there_before_the_first_request(versions: Path) -> None:
    with serving(versions / "har") as served:
        counters = served.counters()
        parts = ("count", "sum")
        outcomes, protocols = ("success", "client_error", "server_error"), ("rest", "grpc")
        expected = {f"fiduciary_requests_started_total{{protocol={p}}}" for p in protocols}
        expected |= {f"fiduciary_requests_total{{outcome={o},protocol={p}}}" for o in outcomes for p in protocols}
        for whom in ("version", "any"):
            expected |= {f"fiduciary_probes_started_total{{addressed={whom},protocol={p}}}" for p in protocols}
            expected |= {
                f"fiduciary_probes_total{{addressed={whom},outcome={o},protocol={p}}}"
                for o in outcomes
                for p in protocols
            }
        expected |= {f"fiduciary_request_seconds_{part}{{protocol={p}}}" for part in parts for p in protocols}
        expected |= {
            f"fiduciary_request_seconds_bucket{{le={edge},protocol={p}}}"
            for edge in ("0.005", "0.05", "0.25", "1.0", "+Inf")
            for p in protocols
        }
        expected |= {"fiduciary_records_total{}"}
        expected |= {f"fiduciary_records_dropped_total{{reason={r}}}" for r in ("buffer_full", "refused", "shutdown")}
        [info] = {name for name in counters if name.startswith("fiduciary_reference_info")}
        assert set(counters) == expected | {info}
        assert counters.pop(info) == 1.0
        assert set(counters.values()) == {0.0}, "the warm-up is no request"


def test_concurrent_requests_are_counted_to_the_last_one(probed: Served, bars: Bars) -> None:
    good, bad = window(bars, 4000), {"inputs": []}
    before = probed.counters()

    def client(number: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{probed.rest}", trust_env=False, timeout=30) as http:
            for turn in range(50):
                http.post(f"/v2/models/{NAME}/infer", json=bad if (number + turn) % 5 == 0 else good)
                probed.call(message(good))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    assert changes(before, probed.counters()) == {
        "fiduciary_requests_started_total{protocol=rest}": 400,
        "fiduciary_requests_started_total{protocol=grpc}": 400,
        "fiduciary_requests_total{outcome=success,protocol=rest}": 320,
        "fiduciary_requests_total{outcome=client_error,protocol=rest}": 80,
        "fiduciary_requests_total{outcome=success,protocol=grpc}": 400,
        "fiduciary_request_seconds_count{protocol=rest}": 400,
        "fiduciary_request_seconds_count{protocol=grpc}": 400,
    }


@pytest.mark.parametrize("addressed", ["any", "version"])
def test_a_signed_probe_is_counted_apart(probed: Served, bars: Bars, addressed: str) -> None:
    target = "*" if addressed == "any" else probed.digest
    body = window(bars, 4000)
    before = probed.counters()
    assert probed.infer(body, headers={"fiduciary-probe": header(target)}).status_code == 200
    probed.call(message(body), (("fiduciary-model", NAME), ("fiduciary-probe", header(target))))
    assert probed.infer({"inputs": []}, headers={"fiduciary-probe": header(target)}).status_code == 400
    assert changes(before, probed.counters()) == {
        f"fiduciary_probes_started_total{{addressed={addressed},protocol=rest}}": 2,
        f"fiduciary_probes_started_total{{addressed={addressed},protocol=grpc}}": 1,
        f"fiduciary_probes_total{{addressed={addressed},outcome=success,protocol=rest}}": 1,
        f"fiduciary_probes_total{{addressed={addressed},outcome=client_error,protocol=rest}}": 1,
        f"fiduciary_probes_total{{addressed={addressed},outcome=success,protocol=grpc}}": 1,
    }


def test_a_bad_signature_is_an_ordinary_request(probed: Served, bars: Bars) -> None:
    before = probed.counters()
    forged = header("*", key=Ed25519PrivateKey.generate())
    assert probed.infer(window(bars, 4000), headers={"fiduciary-probe": forged}).status_code == 200
    assert changes(before, probed.counters()) == {
        "fiduciary_requests_started_total{protocol=rest}": 1,
        "fiduciary_requests_total{outcome=success,protocol=rest}": 1,
        "fiduciary_request_seconds_count{protocol=rest}": 1,
    }


def test_which_headers_are_probes() -> None:
    now = 1_800_000_000.0
    probes = Probes(PUBLIC, NAME, DIGEST, clock=lambda: now)
    assert probes.signed(header("*", at=now)) == "any"
    assert probes.signed(header(DIGEST, at=now - 59)) == "version"
    assert probes.signed(header(DIGEST, at=now + 59))
    for doubtful in (
        None,
        "",
        "v1",
        "v1.2.3.4",
        "v1.x.y.z",
        "v1.1800000000.ab.!!!",
        "v1.١٨.ab.cd",
        header("*", at=now - 61),
        header("*", at=now + 61),
        header("*", at=now, model="quant.other"),
        header("sha256:" + "cd" * 32, at=now),
        header("*", at=now, key=Ed25519PrivateKey.generate()),
        header("*", at=now).replace("v1", "v2", 1),
        header("*", at=now) + "x" * 1000,
    ):
        assert probes.signed(doubtful) is None, doubtful
    assert not Probes(None, NAME, DIGEST, clock=lambda: now).signed(header("*", at=now))


def test_a_probe_counts_once() -> None:
    """Who overhears one cannot hide requests behind it."""
    now = 1_800_000_000.0
    probes = Probes(PUBLIC, NAME, DIGEST, clock=lambda: now)
    once = header("*", at=now)
    assert probes.signed(once)
    assert not probes.signed(once)
    # A changed nonce breaks the signature, so it cannot be used again that way either.
    version, seconds, nonce, signature = once.split(".")
    assert not probes.signed(f"{version}.{seconds}.{nonce}0.{signature}")


def test_what_is_remembered_of_probes_is_bounded() -> None:
    clock = [1_800_000_000.0]
    probes = Probes(PUBLIC, NAME, DIGEST, clock=lambda: clock[0])
    for _ in range(3):
        for _ in range(2500):
            assert probes.signed(header("*", at=clock[0]))
        clock[0] += 200
    assert len(probes._seen) <= 5000
