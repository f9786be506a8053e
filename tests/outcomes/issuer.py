"""A token issuer as the API server is one: it signs projected ServiceAccount tokens and publishes its keys."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = "fiduciary-outcomes"


@dataclass
class Issuer:
    """Holds signing keys by id."""

    keys: dict[str, Any] = field(default_factory=dict[str, Any])

    def add(self, kid: str, *, elliptic: bool = False) -> None:
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa.generate_private_key(65537, 2048)

    def jwks(self) -> bytes:
        found: list[dict[str, Any]] = []
        for kid, key in self.keys.items():
            elliptic = isinstance(key, ec.EllipticCurvePrivateKey)
            algorithm: Any = jwt.algorithms.ECAlgorithm if elliptic else jwt.algorithms.RSAAlgorithm
            public = json.loads(algorithm.to_jwk(key.public_key()))
            found.append({**public, "kid": kid, "use": "sig", "alg": "ES256" if elliptic else "RS256"})
        return json.dumps({"keys": found}).encode()

    def token(self, subject: str, kid: str = "one", **claims: Any) -> str:
        now = int(time.time())
        content = {"iss": ISSUER, "aud": [AUDIENCE], "sub": subject, "iat": now, "nbf": now, "exp": now + 600, **claims}
        key = self.keys[kid]
        algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        present = {name: value for name, value in content.items() if value is not None}
        return jwt.encode(present, key, algorithm, headers={"kid": kid})

    def public_pem(self, kid: str) -> bytes:
        return (
            self.keys[kid]
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
