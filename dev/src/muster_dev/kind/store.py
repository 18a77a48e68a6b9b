"""A cache of directories that take long to make, each named by a digest of its ingredients.

Invariants: a directory appears complete or not at all, and two processes never make the same one at once.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from muster_dev.local import directories
from muster_dev.local.binaries import locked
from muster_dev.local.progress import Progress


def made(kind: str, ingredients: Iterable[str], make: Callable[[Path], None], progress: Progress) -> Path:
    """Return the directory that `make` fills from these ingredients, calling it if the cache has none.

    Directories of the same kind with other ingredients are removed.
    """
    cache = directories.cache()
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{kind}-{name(ingredients)}"
    with locked(cache / f"{kind}.lock", progress):
        if not target.exists():
            partial = cache / f".{kind}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            for other in cache.glob(f"{kind}-*"):
                shutil.rmtree(other)
            partial.rename(target)
    return target


def name(ingredients: Iterable[str]) -> str:
    """Return a short name for these ingredients."""
    return hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:16]


def digest(paths: Iterable[Path]) -> str:
    """Return a digest of the names and contents of files, and of the files below directories."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                total.update(str(file.relative_to(path.parent)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()
