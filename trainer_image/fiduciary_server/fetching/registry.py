"""MLflow over REST: as much of it as downloading a version takes."""

from __future__ import annotations

import base64
import http.client
import json
import os
import urllib.error
import urllib.request
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from fiduciary_server.ending import Ended
from fiduciary_server.fetching.secrets import secret

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 10.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Credentials must not follow a redirect to another host."""

    def redirect_request(self, *_: object) -> None:
        return None


class Registry:
    """An MLflow server.

    Args:
        address: the tracking URI.
        secrets: one file a key; ``MLFLOW_TRACKING_TOKEN`` or ``MLFLOW_TRACKING_USERNAME`` and ``..._PASSWORD`` are
            used, from there or from the environment.
    """

    def __init__(self, address: str, secrets: Path) -> None:
        self._address = address.rstrip("/")
        self._headers = _authorization(secrets)
        self._opener = urllib.request.build_opener(_NoRedirect)

    def open(self, path: str, what: str) -> IO[bytes]:
        """GET a path; ``what`` names the file in messages. Raises as :meth:`Store.open`."""
        request = urllib.request.Request(self._address + path, headers=self._headers)
        try:
            return self._opener.open(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            raise _refusal(self._address, what, error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Ended(
                "ArtifactStoreUnreachable", f"MLflow at {self._address} did not answer for {what}: {reason}"
            ) from None

    def download_uri(self, name: str, version: str) -> str:
        """Where the files of a registered version are. Raises as :meth:`Store.open`."""
        path = f"/api/2.0/mlflow/model-versions/get-download-uri?name={quote(name)}&version={quote(version)}"
        with self.open(path, f"version {version} of {name}") as answer:
            try:
                return str(json.load(answer)["artifact_uri"])
            except (ValueError, KeyError, TypeError):
                raise Ended(
                    "ArtifactStoreUnreachable", f"MLflow at {self._address} answers something else than an artifact_uri"
                ) from None


def _authorization(secrets: Path) -> dict[str, str]:
    def value(name: str) -> str | None:
        return secret(secrets, name) or os.environ.get(name)

    if token := value("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = value("MLFLOW_TRACKING_USERNAME"), value("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {}


def _refusal(address: str, what: str, error: urllib.error.HTTPError) -> Ended:
    try:
        text = error.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        text = ""
    if error.code in (401, 403):
        hint = (
            "start MLflow with --allowed-hosts that include this name"
            if "Invalid Host header" in text
            else "check the connection's credentials"
        )
        return Ended("RegistryUnauthorized", f"MLflow at {address} answers {error.code} for {what}; {hint}")
    missing = ("RESOURCE_DOES_NOT_EXIST", "No such artifact", "No such file or directory", "Not Found", "not found")
    if error.code == 404 or (error.code in (400, 500) and any(sign in text for sign in missing)):
        return Ended(
            "ArtifactNotFound", f"MLflow at {address} has no {what}; was the run or its artifacts deleted or moved?"
        )
    return Ended("ArtifactStoreUnreachable", f"MLflow at {address} answers {error.code} for {what}")
