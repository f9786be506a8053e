"""The key that probes are signed with, so that a model server counts them apart from its clients' requests.

Ed25519 (RFC 8032). The header is ``v1.<unix seconds>.<nonce>.<signature>``; what is signed names the model and, where
it is known, the digest that should answer, so that a header that somebody overheard opens nothing else. It proves who
asks, not that the answer may be trusted.
"""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HEADER = "fiduciary-probe"

#: What the field ``digest`` says for a probe that any version of the model may answer.
ANY = "*"


class ProbeKeyError(ValueError):
    """The bytes are no Ed25519 private key."""


class ProbeKey:
    """A private key; :attr:`public` goes to the model servers."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        #: base64 of the raw public key, 32 bytes
        self.public = base64.b64encode(private.public_key().public_bytes_raw()).decode()

    @classmethod
    def generate(cls) -> ProbeKey:
        # Imported where one is needed: an operator of suspended models has no use for half of OpenSSL.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_private(cls, raw: bytes) -> ProbeKey:
        """Raises :class:`ProbeKeyError` for anything but 32 bytes."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(raw) != 32:
            raise ProbeKeyError(f"found {len(raw)} bytes, expected the 32 of an Ed25519 private key")
        return cls(Ed25519PrivateKey.from_private_bytes(raw))

    def private(self) -> bytes:
        """The 32 bytes that :meth:`from_private` takes; for the Secret and nothing else."""
        return self._private.private_bytes_raw()

    def header(self, namespace: str, model: str, digest: str, now: float) -> str:
        """Value of :data:`HEADER` for one request; ``now`` in Unix seconds, ``digest`` empty for any version."""
        claim = f"v1.{int(now)}.{secrets.token_hex(16)}"
        signed = f"{claim}.{namespace}.{model}.{digest or ANY}".encode()
        signature = base64.urlsafe_b64encode(self._private.sign(signed)).decode().rstrip("=")
        return f"{claim}.{signature}"
