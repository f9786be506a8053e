"""docker-archive in, OCI archive of the missing layers out."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from sandbox.archive import Archive, chain_id, digest_of

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = (b"first layer", b"second", b"first layer")  # images do repeat layers; archives link them


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    config = json.dumps({"rootfs": {"diff_ids": [digest_of(layer) for layer in LAYERS]}}).encode()
    listed = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["a.tar", "b.tar", "link/layer.tar"]}]
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as tar:
        contents = {
            "a.tar": LAYERS[0],
            "b.tar": LAYERS[1],
            "c.json": config,
            "manifest.json": json.dumps(listed).encode(),
        }
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a.tar"
        tar.addfile(link)
    return Archive(path)


def blobs(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_every_blob_is_named_by_its_hash_and_reached_from_the_index(archive: Archive, tmp_path: Path) -> None:
    archive.write(tmp_path / "oci.tar", "docker.io/library/x:1", [])
    found = blobs(tmp_path / "oci.tar")
    stored = {name.removeprefix("blobs/sha256/"): data for name, data in found.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in stored.items())
    (described,) = json.loads(found["index.json"])["manifests"]
    assert described["annotations"] == {"io.containerd.image.name": "docker.io/library/x:1"}
    manifest = json.loads(stored[described["digest"].removeprefix("sha256:")])
    assert [layer["digest"] for layer in manifest["layers"]] == [digest_of(layer) for layer in LAYERS]
    assert [layer["size"] for layer in manifest["layers"]] == [len(layer) for layer in LAYERS]
    assert len(stored) == 4  # manifest, configuration, and two layers of which one is used twice


def test_layers_that_the_receiver_has_are_left_out(archive: Archive, tmp_path: Path) -> None:
    archive.write(tmp_path / "oci.tar", "x", [digest_of(LAYERS[0])])
    found = blobs(tmp_path / "oci.tar").values()
    assert LAYERS[1] in found
    assert LAYERS[0] not in found


def test_the_chain_of_layers_is_named_as_the_specification_says() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    assert chain_id([one]) == one
    assert chain_id([one, two]) == "sha256:" + hashlib.sha256(f"{one} {two}".encode()).hexdigest()


def test_an_archive_that_was_cut_off_is_not_read(archive: Archive) -> None:
    archive.path.write_bytes(archive.path.read_bytes()[:700])
    with pytest.raises((tarfile.TarError, KeyError)):
        Archive(archive.path)
