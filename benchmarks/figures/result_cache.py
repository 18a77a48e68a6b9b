"""A cache of long runs in build/figures/, keyed by a digest of their inputs.

The digest covers the core, the simulator, the scenarios, the data and the calling module, so a cached result is never stale. An
interrupted `make figures` continues with the missing results.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from typing import ParamSpec, TypeVar

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "figures"
SUFFIXES = (".py", ".csv", ".yaml", ".json")
SOURCES = ("src/muster/scheduling", "src/muster/simulator", "benchmarks/data", "benchmarks/figures/scenarios")
"""The inputs of every result, in addition to the calling module."""
P = ParamSpec("P")
R = TypeVar("R")


def cached_on_disk(run: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function with a cache on disk; its arguments have a stable repr, and its result is a JSON value."""

    @wraps(run)
    def cached(*args: P.args, **kwargs: P.kwargs) -> R:
        key = f"{digest(run.__code__.co_filename)} {run.__qualname__} {args!r} {kwargs!r}"
        file = FOLDER / f"{sha256(key.encode()).hexdigest()[:16]}.json"
        if not file.exists():
            entry = json.dumps({"key": key, "result": run(*args, **kwargs)})
            FOLDER.mkdir(parents=True, exist_ok=True)
            file.write_text(entry)
        result: R = json.loads(file.read_text())["result"]
        return result

    return cached


@cache
def digest(module: str) -> str:
    """Return a digest of a module and of all sources of results."""
    inputs = sha256(Path(module).read_bytes())
    for file in sorted(file for folder in SOURCES for file in (ROOT / folder).rglob("*") if file.suffix in SUFFIXES):
        inputs.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return inputs.hexdigest()[:16]
