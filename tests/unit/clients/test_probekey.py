"""The key of probes: what it signs, and what is no key."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fiduciary.clients.probekey import ProbeKey, ProbeKeyError

DIGEST = "sha256:" + "7" * 64


def test_a_header_names_the_model_the_version_and_the_second() -> None:
    key = ProbeKey.generate()
    header = key.header("quant", "spx", DIGEST, 1_790_000_000.9)
    version, seconds, nonce, signature = header.split(".")
    assert (version, seconds, len(nonce)) == ("v1", "1790000000", 32)
    signed = f"v1.1790000000.{nonce}.quant.spx.{DIGEST}".encode()
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public))
    public.verify(base64.urlsafe_b64decode(signature + "=="), signed)


def test_a_key_survives_its_secret() -> None:
    key = ProbeKey.generate()
    assert ProbeKey.from_private(key.private()).public == key.public


@pytest.mark.parametrize("raw", [b"", b"x" * 31, b"x" * 33])
def test_other_bytes_are_no_key(raw: bytes) -> None:
    with pytest.raises(ProbeKeyError, match=f"found {len(raw)} bytes, expected the 32"):
        ProbeKey.from_private(raw)
