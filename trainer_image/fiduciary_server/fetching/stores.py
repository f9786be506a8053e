"""Where versions are kept: one function that gives the bytes of a file of the version, by the scheme of its URI."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

from fiduciary_server.ending import Ended
from fiduciary_server.fetching.registry import Registry

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fiduciary_server.contract import Source


class Store(Protocol):
    """A version's folder somewhere."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """The content of one file.

        Raises:
            Ended: ArtifactNotFound, RegistryUnauthorized, or ArtifactStoreUnreachable (worth another try).
        """
        ...


class Mounted:
    """A folder that is mounted into the pod (``pvc://claim/path``, ``file:///path``)."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder = folder
        self._uri = uri

    def open(self, name: str) -> IO[bytes]:
        try:
            return (self._folder / name).open("rb")
        except FileNotFoundError:
            raise Ended(
                "ArtifactNotFound", f"{self._uri} holds no {name}; expected the folder of a version: check the path"
            ) from None
        except PermissionError:
            raise Ended("RegistryUnauthorized", f"{self._uri}/{name} may not be read by this pod's user") from None
        except OSError as error:
            raise Ended("ArtifactStoreUnreachable", f"{self._uri}/{name}: {error.strerror}") from None


class Proxied:
    """MLflow's artifact proxy (``mlflow-artifacts:/path``, ``runs:/id/path``)."""

    def __init__(self, registry: Registry, address: str, uri: str) -> None:
        self._registry = registry
        self._address = address
        self._uri = uri

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return self._registry.open(self._address.format(name=quote(name)), f"{self._uri}/{name}")


def store_of(source: Source, claims: Path, secrets: Path) -> Store:
    """The store that a URI names.

    Args:
        source: of the contract.
        claims: holds one folder a mounted claim.
        secrets: one file a key of the Secret that the pod was given.

    Raises:
        Ended: BadContract for a URI that no store here can read; what asking MLflow for a ``models:/`` URI raises.
    """
    uri = source.uri.rstrip("/")
    parts = urlsplit(uri)
    path = parts.path.lstrip("/")
    if ".." in Path(path).parts:
        raise Ended("BadContract", f"{uri} holds '..'; expected a path below its claim, bucket or run")
    if parts.scheme == "pvc":
        return Mounted(claims / parts.netloc / path, uri)
    if parts.scheme == "file":
        return Mounted(Path("/") / path, uri)
    if parts.scheme == "s3":
        from fiduciary_server.fetching.s3 import (
            Bucket,
        )  # botocore: half a second of import that MLflow need not wait for

        return Bucket(parts.netloc, path, uri, secrets)
    if parts.scheme in ("mlflow-artifacts", "runs", "models"):
        if source.tracking_uri is None:
            raise Ended("BadContract", f"{uri} is kept by MLflow, and the document names no trackingUri")
        registry = Registry(source.tracking_uri, secrets)
        if parts.scheme == "mlflow-artifacts":
            return Proxied(registry, f"/api/2.0/mlflow-artifacts/artifacts/{_literal(quote(path))}/{{name}}", uri)
        if parts.scheme == "runs":
            run, _, inner = path.partition("/")
            place = "/".join(part for part in (quote(inner), "{name}") if part)
            return Proxied(registry, f"/get-artifact?run_uuid={_literal(quote(run))}&path={place}", uri)
        found = registry.download_uri(*path.rsplit("/", 1)) if "/" in path else ""
        if urlsplit(found).scheme in ("", "models"):
            raise Ended("ArtifactNotFound", f"{uri} leads to {found!r}; expected models:/NAME/VERSION")
        return store_of(type(source)(found, source.run_id, source.tracking_uri), claims, secrets)
    raise Ended(
        "BadContract",
        f"{uri} is no place that can be read; expected mlflow-artifacts:/, runs:/, models:/, s3:// or pvc://",
    )


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
