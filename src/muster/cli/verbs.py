"""What a verb of `muster` is, and the verbs of this distribution.

Every verb is an entry point of the group `muster.verbs` that names a Verb. A distribution that is not installed offers none,
and what a verb imports is loaded only when the verb is asked for: the base install has no dependencies.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final, Protocol, cast

GROUP: Final = "muster.verbs"


class Command(Protocol):
    """The module that carries a verb out."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's options."""

    def run(self, args: argparse.Namespace) -> int:
        """Carry the verb out and return the exit code."""


@dataclass(frozen=True)
class Verb:
    """One verb: its line in `muster --help`, the name of its module (a Command), and the requirement with what that imports."""

    summary: str
    module: str
    requirement: str

    def load(self) -> Command:
        """Import the verb's module; raise ModuleNotFoundError if a requirement is missing."""
        return cast(Command, importlib.import_module(self.module))


COMPLETION: Final = Verb("print a script that completes `muster` in a shell", "muster.cli.completion", "muster[completion]")
SIMULATE: Final = Verb(
    "what a policy would do with a trace of jobs, or with a live cluster's snapshot", "muster.cli.simulate", "muster[all]"
)
SNAPSHOT: Final = Verb(
    "write what a plan depends on from a live cluster into a file, for simulate --snapshot",
    "muster.cli.snapshot",
    "muster[all]",
)


def installed() -> Mapping[str, Verb]:
    """Return the verbs of all installed distributions, by name."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: point.load() for point in points}
