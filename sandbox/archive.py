"""Read a docker-archive, and turn it into an OCI archive of only those layers that the receiver lacks.

A change of a few files in an image of 2 GB then costs the import of one small layer. Every blob is named by its
sha256 in what is sent, and containerd compares: a layer that was damaged in the cache is refused there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Archive:
    """An image in a docker-archive (what `docker save` and buildah write), with its layers uncompressed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with tarfile.open(path) as tar:
            listed: dict[str, Any] = json.loads(_content(tar, "manifest.json"))[0]
            self.config = _content(tar, listed["Config"])
            self.members: list[str] = listed["Layers"]
            self.sizes = [_member(tar, name).size for name in self.members]
        self.layers: list[str] = json.loads(self.config)["rootfs"]["diff_ids"]

    @property
    def config_digest(self) -> str:
        return digest_of(self.config)

    @property
    def manifest(self) -> bytes:
        """The OCI manifest: uncompressed layers are named by the digests that the configuration lists."""
        layers = [
            {"mediaType": LAYER, "digest": digest, "size": size}
            for digest, size in zip(self.layers, self.sizes, strict=True)
        ]
        config = {"mediaType": CONFIG, "digest": self.config_digest, "size": len(self.config)}
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    def write(self, target: Path, name: str, present: Collection[str]) -> int:
        """Write the OCI archive for the image called `name`, without the blobs in `present`. Returns its size."""
        described = {
            "mediaType": MANIFEST,
            "digest": digest_of(self.manifest),
            "size": len(self.manifest),
            "annotations": {"io.containerd.image.name": name},
        }
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [described]}
        with tarfile.open(self.path) as source, tarfile.open(target, "w") as tar:
            _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(tar, "index.json", json.dumps(index).encode())
            for blob in (self.manifest, self.config):
                _add(tar, _place(digest_of(blob)), blob)
            written: set[str] = set()
            for digest, member in zip(self.layers, self.members, strict=True):
                if digest not in present and digest not in written:
                    written.add(digest)
                    info = _member(source, member)
                    entry = tarfile.TarInfo(_place(digest))
                    entry.size = info.size
                    tar.addfile(entry, source.extractfile(info))
        return target.stat().st_size


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chain_id(digests: list[str]) -> str:
    """The name of the snapshot that results from these layers (OCI image specification, ChainID)."""
    chain = digests[0]
    for digest in digests[1:]:
        chain = digest_of(f"{chain} {digest}".encode())
    return chain


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _member(tar: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """A file of the archive; archives link layers that occur twice."""
    info = tar.getmember(name)
    return tar.getmember(os.path.normpath(Path(name).parent / info.linkname)) if info.issym() else info


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(_member(tar, name))
    if file is None:
        raise tarfile.ReadError(f"{name} is not a file")
    return file.read()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
