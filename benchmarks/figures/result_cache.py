"""Results of long runs, kept in build/figures/ for as long as all that they follow from stays as it is.

They follow from the core, the simulator, the figure modules with their scenarios, and the data: a result is kept under a digest
of all of these, so it is never an old one. What was interrupted so goes on where it was.
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
"""What results follow from, beside the module that asks for them."""
P = ParamSpec("P")
R = TypeVar("R")


def kept(run: Callable[P, R]) -> Callable[P, R]:
    """Return the function with a memory on disk; its arguments and its result are plain values, as JSON has them."""

    @wraps(run)
    def remembered(*args: P.args, **kwargs: P.kwargs) -> R:
        asked = f"{digest(run.__code__.co_filename)} {run.__qualname__} {args!r} {kwargs!r}"
        file = FOLDER / f"{sha256(asked.encode()).hexdigest()[:16]}.json"
        if not file.exists():
            found = json.dumps({"asked": asked, "found": run(*args, **kwargs)})
            FOLDER.mkdir(parents=True, exist_ok=True)
            file.write_text(found)
        result: R = json.loads(file.read_text())["found"]
        return result

    return remembered


@cache
def digest(module: str) -> str:
    """Return what tells the state of a module and of all that results follow from."""
    found = sha256(Path(module).read_bytes())
    for file in sorted(file for folder in SOURCES for file in (ROOT / folder).rglob("*") if file.suffix in SUFFIXES):
        found.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return found.hexdigest()[:16]
