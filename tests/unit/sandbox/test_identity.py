"""The certificate authority: what Kubernetes reads from certificates, and what strict verifiers ask of them."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from sandbox import pki
from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from pathlib import Path


def text(certificate: Path) -> str:
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-text"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_authority_names_its_key_usages(tmp_path: Path) -> None:
    said = text(pki.Authority(tmp_path).certificate)
    assert "CA:TRUE" in said
    assert "Digital Signature, Certificate Sign, CRL Sign" in said


def test_a_user_has_groups_and_can_be_anyone(tmp_path: Path) -> None:
    authority = pki.Authority(tmp_path)
    identity = authority.issue("ana", "ana@desk/x+y", ["risk", "system:authenticated, really"])
    said = subprocess.run(
        ["openssl", "x509", "-in", str(identity.certificate), "-noout", "-subject", "-nameopt", "multiline"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = [line.partition("= ")[2] for line in said.splitlines()[1:]]
    assert values == ["risk", "system:authenticated, really", "ana@desk/x+y"]
    assert identity.key.stat().st_mode & 0o077 == 0


def test_strict_verification_accepts_a_server(tmp_path: Path) -> None:
    authority = pki.Authority(tmp_path)
    server = authority.issue("server", "server", names=["DNS:localhost", "IP:127.0.0.1"])
    said = text(server.certificate)
    assert "Authority Key Identifier" in said
    assert "TLS Web Server Authentication" in said
    assert "DNS:localhost, IP Address:127.0.0.1" in said
    strict = ["openssl", "verify", "-x509_strict", "-CAfile", str(authority.certificate), str(server.certificate)]
    subprocess.run(strict, check=True, capture_output=True)
    ssl.create_default_context(cafile=str(authority.certificate)).load_cert_chain(server.certificate, server.key)


def test_an_identity_is_made_again_only_when_it_changed(tmp_path: Path) -> None:
    first = pki.Authority(tmp_path).issue("a", "a", names=["IP:127.0.0.1"]).certificate.read_bytes()
    assert pki.Authority(tmp_path).issue("a", "a", names=["IP:127.0.0.1"]).certificate.read_bytes() == first
    assert pki.Authority(tmp_path).issue("a", "a", names=["IP:10.0.0.1"]).certificate.read_bytes() != first


@pytest.mark.parametrize("user", ["", "two\nlines"])
def test_what_cannot_be_a_name_is_refused(user: str) -> None:
    with pytest.raises(StepFailed, match="cannot be a user or group name"):
        pki.subject(user)


def test_users_that_look_alike_get_different_files() -> None:
    names = {pki.file_name("a@b", []), pki.file_name("a/b", []), pki.file_name("a@b", ["g"])}
    assert len(names) == 3


def test_a_kubeconfig_holds_everything(tmp_path: Path) -> None:
    authority = pki.Authority(tmp_path)
    identity = authority.issue("a", "a")
    document = json.loads(pki.kubeconfig("https://x:1", authority.certificate, identity))
    assert document["clusters"][0]["cluster"]["server"] == "https://x:1"
    held = document["users"][0]["user"]["client-certificate-data"]
    assert base64.b64decode(held) == identity.certificate.read_bytes()
