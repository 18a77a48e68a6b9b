"""muster's images: one for each deployable, and one with the runtime for training programs.

They are built from the Dockerfile if the engine has its base image or can pull it, else assembled (`assembled`). Names, users
and commands are the same either way.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from muster_dev.kind import assembled
from muster_dev.kind.engine import Engine
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Progress

PROJECT = Path(__file__).parents[4]
"""The clone of the project; only there can images be made."""


def names() -> list[str]:
    """Return the images' names, in the order of the Dockerfile's targets."""
    return [_name(target) for target in assembled.TARGETS]


def make(engine: Engine | None, progress: Progress) -> Path | None:
    """Build the images into the engine, or assemble them and return the archive; show which of the two and why."""
    if not (PROJECT / "Dockerfile").exists():
        raise LocalError(
            f"muster's images are made from its sources, which are not in {PROJECT}: run this in a clone of the project."
        )
    base = _base()
    if engine and _has(engine, base, progress):
        progress.say(f"muster's images: built from the Dockerfile, on {base}")
        for target in assembled.TARGETS:
            with progress.step(f"docker build --target {target}"):
                engine.run("docker", "build", "--target", target, "--tag", _name(target), PROJECT)
        return None
    why = f"{base} cannot be pulled" if engine else "no container engine answers"
    progress.say(f"muster's images: assembled from Debian packages and wheels, since {why}")
    return assembled.archive_of({target: _name(target) for target in assembled.TARGETS}, PROJECT, progress)


def _name(target: str) -> str:
    return f"muster-{target}:{version('muster')}"


def _base() -> str:
    argument = re.search(r"^ARG PYTHON_IMAGE=(\S+)", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    if not argument:
        raise LocalError(f"{PROJECT / 'Dockerfile'} has no line ARG PYTHON_IMAGE=...: restore it.")
    return argument[1]


def _has(engine: Engine, image: str, progress: Progress) -> bool:
    """Return whether the engine has the image or can pull it."""
    try:
        engine.run("docker", "image", "inspect", image)
    except LocalError:
        if engine.private:
            return False
        try:
            with progress.step(f"pulling {image}"):
                engine.run("docker", "pull", "--quiet", image)
        except LocalError:
            return False
    return True
