"""The directories of `muster local`, by the XDG base directory specification; each call reads the environment."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Return the directory of files that can be made again: $XDG_CACHE_HOME/muster, by default ~/.cache/muster."""
    return _base("XDG_CACHE_HOME", ".cache") / "muster"


def state() -> Path:
    """Return the directory of the cluster of `muster local up`: $XDG_STATE_HOME/muster, by default ~/.local/state/muster."""
    return _base("XDG_STATE_HOME", ".local/state") / "muster"


def _base(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The specification says to ignore a relative path.
    return Path(value) if value.startswith("/") else Path.home() / default
