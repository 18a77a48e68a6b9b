"""The directories of `muster local`, by the XDG base directory specification; each call reads the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

from muster_dev.local.errors import LocalError

DEFAULT = "default"
"""The name of the local cluster where none is given."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class BadName(LocalError):
    """A text that cannot name a cluster."""


def cache() -> Path:
    """Return the directory of files that can be made again: $XDG_CACHE_HOME/muster, by default ~/.cache/muster."""
    return _base("XDG_CACHE_HOME", ".cache") / "muster"


def state() -> Path:
    """Return the directory of running clusters: $XDG_STATE_HOME/muster, by default ~/.local/state/muster."""
    return _base("XDG_STATE_HOME", ".local/state") / "muster"


def local(name: str = DEFAULT) -> Path:
    """Return the directory of the cluster `name` of `muster local up`; raise BadName."""
    if not _NAME.fullmatch(name):
        raise BadName(f"--name: found {name!r}; expected 1 to 32 lower-case letters, digits and hyphens, none at an end")
    return state() if name == DEFAULT else state() / "local" / name


def _base(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The specification says to ignore a relative path.
    return Path(value) if value.startswith("/") else Path.home() / default
