"""The container engine that a kind cluster runs on: the one that answers on this machine, or ours (`island`)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster_dev.local import directories, proc
from muster_dev.local.errors import LocalError


@dataclass(frozen=True)
class Engine:
    """An engine; `within` is what brings a command to where its networks are, but for the directory that it is to run in."""

    environment: Mapping[str, str] = field(default_factory=dict)
    within: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether it is ours; such an engine has no way to any registry."""
        return bool(self.within)

    def command(self, *words: str | Path, directory: Path | None = None) -> list[str]:
        """Return the command line that runs a program beside the engine, in this process's directory or another."""
        entered = [*self.within, f"--wdns={directory or Path.cwd()}", "--"] if self.own else []
        return [*entered, *map(str, words)]

    def run(
        self,
        *words: str | Path,
        stdin: Path | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> str:
        """Run a program beside the engine and return its output; raise LocalError with its words where it fails."""
        env = os.environ | dict(self.environment) | dict(environment or {})
        command = self.command(*words, directory=directory)
        try:
            with (stdin or Path(os.devnull)).open("rb") as source:
                done = subprocess.run(
                    command, stdin=source, env=env, cwd=directory, capture_output=True, text=True, check=False
                )
        except OSError as error:
            raise LocalError(f"{words[0]} cannot be run: {error.strerror}") from None
        if done.returncode:
            raise LocalError(f"{' '.join(map(str, words))[:200]} ended with {done.returncode}: {done.stderr.strip()[-3000:]}")
        return done.stdout

    def answers(self) -> bool:
        """Return whether the engine is there."""
        try:
            self.run("docker", "version", "--format", "{{.Server.Version}}")
        except LocalError:
            return False
        return True


def running() -> Engine | None:
    """Return the engine that there is: ours where it runs, else the machine's; None where there is neither."""
    found = own() or Engine()
    return found if found.answers() else None


def own() -> Engine | None:
    """Return our engine where its first process lives, be it ready or not."""
    noted = record()
    if not proc.alive(noted.get("inside", 0)):
        return None
    # Its own docker goes first; the rest of PATH is for what users run beside it.
    path = f"{noted['root']}/usr/bin:{os.environ.get('PATH', os.defpath)}"
    environment = {"DOCKER_HOST": host(), "PATH": path, "KIND_EXPERIMENTAL_PROVIDER": "docker"}
    return Engine(environment, ("nsenter", f"--target={noted['inside']}", "--net", "--mount", "--pid"))


def home() -> Path:
    """Return the directory of what a running kind cluster needs; images are in the cache."""
    return directories.state() / "kind"


def host() -> str:
    """Return where our engine listens."""
    return f"unix://{home() / 'docker.sock'}"


def record() -> dict[str, Any]:
    """Return what was noted of our engine: `root` of its programs, pids `outside` and `inside` its namespaces."""
    try:
        return dict(json.loads((home() / "engine.json").read_text()))
    except (OSError, ValueError):
        return {}
