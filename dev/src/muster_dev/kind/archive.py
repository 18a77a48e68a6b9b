"""Container images made from directories, without an engine, for `docker load`, podman and `ctr images import`.

The format is Docker's archive: a manifest, and for each image a configuration and its layers. Invariant: the same content
gives the same bytes (owners, times and order are fixed), so images share equal layers.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TIME = "1980-01-01T00:00:00Z"  # the earliest time of zip files, and therefore of wheels


@dataclass(frozen=True)
class Image:
    """An image: its name with tag, its layers from the bottom up as directories, and how its containers run.

    `config` has the keys of the OCI image configuration: Entrypoint, Cmd, Env, User, WorkingDir, StopSignal, Labels.
    """

    name: str
    layers: Sequence[Path]
    config: Mapping[str, Any] = field(default_factory=dict)


def write(images: Sequence[Image], archive: Path) -> None:
    """Write images into one archive."""
    digests: dict[Path, str] = {}
    manifest = []
    with tarfile.open(archive, "w") as out:
        for layer in dict.fromkeys(layer for image in images for layer in image.layers):
            digests[layer] = _write_layer(out, layer, archive)
        for image in images:
            config = json.dumps(_configuration(image, [digests[layer] for layer in image.layers])).encode()
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(out, name, config)
            layers = [f"{digests[layer]}/layer.tar" for layer in image.layers]
            manifest.append({"Config": name, "RepoTags": [image.name], "Layers": layers})
        _add(out, "manifest.json", json.dumps(manifest).encode())


def architecture() -> str:
    """Return this machine's architecture as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def _write_layer(out: tarfile.TarFile, directory: Path, archive: Path) -> str:
    """Add a directory as a layer and return its digest."""
    layer = archive.with_suffix(".layer")
    try:
        with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(directory.rglob("*")):
                tar.add(path, str(path.relative_to(directory)), recursive=False, filter=_fixed)
        with layer.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        out.add(layer, f"{digest}/layer.tar", filter=_fixed)
    finally:
        layer.unlink(missing_ok=True)
    return digest


def _fixed(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.mtime, entry.uname, entry.gname = 315532800, "", ""
    # The maker's files are root's in the image, so that every maker gets the same bytes; other owners are meant.
    entry.uid = 0 if entry.uid == os.geteuid() else entry.uid
    entry.gid = 0 if entry.gid == os.getegid() else entry.gid
    return None if entry.ischr() or entry.isblk() or entry.isfifo() else entry  # an engine makes /dev itself


def _configuration(image: Image, digests: Sequence[str]) -> dict[str, Any]:
    layers = {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]}
    history = [{"created": _TIME, "created_by": "muster"} for _ in digests]
    about = {"architecture": architecture(), "os": "linux", "created": _TIME}
    return about | {"config": dict(image.config), "rootfs": layers, "history": history}


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(content), 315532800
    out.addfile(entry, io.BytesIO(content))
