"""A certificate authority for one sandbox, and the identities that Kubernetes reads from certificates.

Made with the openssl program: Python's standard library cannot sign. Python 3.13 verifies strictly, so the CA
names its key usages and leaves carry an authority key identifier, else every Python client in a pod refuses them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

DAYS = "3650"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: Path
    key: Path


def subject(user: str, groups: Iterable[str] = ()) -> str:
    """openssl's -subj for a Kubernetes user (CN) with groups (O).

    >>> subject("ana@desk", ["risk/officers"])
    '/O=risk\\\\/officers/CN=ana@desk'
    """

    def escaped(text: str) -> str:
        if not text or not text.isprintable():
            raise StepFailed(f"{text!r} cannot be a user or group name in a certificate: use printable characters")
        return "".join("\\" + letter if letter in "/\\+" else letter for letter in text)

    return "".join(f"/O={escaped(group)}" for group in groups) + f"/CN={escaped(user)}"


def file_name(user: str, groups: Sequence[str]) -> str:
    """A file name for a user's credentials, different for different users and groups."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", user).strip("-")[:40]
    return f"user-{readable}-{hashlib.sha256(json.dumps([user, list(groups)]).encode()).hexdigest()[:8]}"


class Authority:
    """The CA in `directory` (ca.crt, ca.key), made on first use."""

    def __init__(self, directory: Path, run: Run | None = None) -> None:
        self.directory = directory
        self.run = run or Run()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.certificate = directory / "ca.crt"
        self.key = directory / "ca.key"
        if not (self.certificate.exists() and self.key.exists()):
            self._make(
                [
                    "req",
                    "-x509",
                    *KEY,
                    "-days",
                    DAYS,
                    "-subj",
                    "/CN=fiduciary-sandbox",
                    "-addext",
                    "basicConstraints=critical,CA:TRUE",
                    "-addext",
                    "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
                    "-addext",
                    "subjectKeyIdentifier=hash",
                ],
                {"-keyout": self.key, "-out": self.certificate},
            )

    def issue(self, name: str, user: str, groups: Sequence[str] = (), names: Sequence[str] = ()) -> Identity:
        """A certificate for `user` in `groups`, kept as name.crt and name.key. With `names` (`DNS:x`, `IP:y`) it is
        a server certificate as well. Made again when the subject or the names changed.
        """
        identity = Identity(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        purpose = json.dumps([user, list(groups), list(names)])
        note = self.directory / f"{name}.json"
        if note.exists() and note.read_text() == purpose and identity.certificate.exists() and identity.key.exists():
            return identity
        request = self.directory / f"{name}.csr"
        extensions = self.directory / f"{name}.ext"
        usage = "clientAuth,serverAuth" if names else "clientAuth"
        lines = [
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            f"extendedKeyUsage={usage}",
            "subjectKeyIdentifier=hash",
            "authorityKeyIdentifier=keyid:always",
        ]
        if names:
            lines.append(f"subjectAltName={','.join(names)}")
        extensions.write_text("\n".join(lines) + "\n")
        self._make(["req", *KEY, "-subj", subject(user, groups)], {"-keyout": identity.key, "-out": request})
        self._make(
            [
                "x509",
                "-req",
                "-in",
                request,
                "-CA",
                self.certificate,
                "-CAkey",
                self.key,
                "-days",
                DAYS,
                "-extfile",
                extensions,
            ],
            {"-out": identity.certificate},
        )
        request.unlink()
        extensions.unlink()
        note.write_text(purpose)
        return identity

    def signing_key(self, name: str) -> Path:
        """A bare private key (service account tokens are signed with one)."""
        path = self.directory / f"{name}.key"
        if not path.exists():
            self._make(["ecparam", "-name", "prime256v1", "-genkey", "-noout"], {"-out": path})
        return path

    def _make(self, words: Sequence[str | Path], outputs: dict[str, Path]) -> None:
        """Run openssl; its files appear under their names only when complete."""
        partial = {option: path.with_name(path.name + ".partial") for option, path in outputs.items()}
        options: list[str | Path] = [word for pair in partial.items() for word in pair]
        self.run.call(["openssl", *words, *options])
        for option, path in outputs.items():
            partial[option].chmod(0o600)
            partial[option].rename(path)


def kubeconfig(url: str, authority: Path, identity: Identity, namespace: str = "default") -> str:
    """A self-contained kubeconfig (JSON, which is YAML) with the credentials inside."""

    def embedded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "sandbox", "cluster": {"server": url, "certificate-authority-data": embedded(authority)}}
        ],
        "users": [
            {
                "name": "sandbox",
                "user": {
                    "client-certificate-data": embedded(identity.certificate),
                    "client-key-data": embedded(identity.key),
                },
            }
        ],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox", "namespace": namespace}}],
        "current-context": "sandbox",
    }
    return json.dumps(document, indent=1)
