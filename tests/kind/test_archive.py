"""Images from directories: the archive is complete for `docker load`, and equal content gives equal bytes."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from muster_dev.kind import archive, store
from muster_dev.kind.archive import Image
from muster_dev.local.progress import Quiet


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file
    return file.read()


def test_archive_names_configuration_and_layers_by_their_digests(tmp_path: Path) -> None:
    below, above = tree(tmp_path / "below", a="1"), tree(tmp_path / "above", b="2")
    images = [Image("one:1", [below, above], {"User": "7:7"}), Image("two:1", [below])]
    archive.write(images, tmp_path / "images.tar")
    with tarfile.open(tmp_path / "images.tar") as tar:
        manifest: list[dict[str, Any]] = json.loads(read(tar, "manifest.json"))
        assert [entry["RepoTags"] for entry in manifest] == [["one:1"], ["two:1"]]
        assert manifest[0]["Layers"][0] == manifest[1]["Layers"][0]  # stored once
        assert len([name for name in tar.getnames() if name.endswith("layer.tar")]) == 2
        for entry in manifest:
            config = json.loads(read(tar, entry["Config"]))
            digests = [hashlib.sha256(read(tar, layer)).hexdigest() for layer in entry["Layers"]]
            assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in digests]
            assert config["architecture"] == archive.architecture()
        assert json.loads(read(tar, manifest[0]["Config"]))["config"] == {"User": "7:7"}


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        root = tree(tmp_path / name, **{"z": "1", "a/b": "2"})
        os.utime(root / "z", (len(name), len(name)))
        archive.write([Image("one:1", [root])], tmp_path / f"{name}.tar")
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_files_of_the_maker_belong_to_root_in_the_image(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", mine="")
    archive.write([Image("one:1", [root])], tmp_path / "one.tar")
    with tarfile.open(tmp_path / "one.tar") as tar:
        (layer,) = (name for name in tar.getnames() if name.endswith("layer.tar"))
        with tarfile.open(fileobj=tar.extractfile(layer)) as inner:
            assert {(entry.uid, entry.gid) for entry in inner.getmembers()} == {(0, 0)}


def test_cached_directory_is_made_once_and_never_incomplete(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def make(into: Path) -> None:
        calls.append(into)
        (into / "file").write_text("whole")
        if len(calls) == 1:
            raise OSError("the disk is full")

    for _ in range(3):
        try:
            made = store.made("thing", ["a"], make, Quiet())
        except OSError:
            assert not list((tmp_path / "muster").glob("thing-*/"))
    assert len(calls) == 2
    assert (made / "file").read_text() == "whole"
    assert store.made("thing", ["b"], make, Quiet()) != made
    assert not made.exists()
