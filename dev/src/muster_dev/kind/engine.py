"""The container engine of the kind cluster: the machine's own, or a private one (`private_engine`)."""

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
    """An engine; `within` is the command that enters its namespaces, without the option for the working directory."""

    environment: Mapping[str, str] = field(default_factory=dict)
    within: tuple[str, ...] = ()

    @property
    def private(self) -> bool:
        """Whether this is the private engine, which reaches no registry."""
        return bool(self.within)

    def command(self, *words: str | Path, directory: Path | None = None) -> list[str]:
        """Return the command line that runs a program in the engine's network, in this process's directory or another."""
        entered = [*self.within, f"--wdns={directory or Path.cwd()}", "--"] if self.private else []
        return [*entered, *map(str, words)]

    def run(
        self,
        *words: str | Path,
        stdin: Path | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> str:
        """Run a program in the engine's network and return its output; raise LocalError with its errors if it fails."""
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
        """Return whether the engine answers."""
        try:
            self.run("docker", "version", "--format", "{{.Server.Version}}")
        except LocalError:
            return False
        return True


def running() -> Engine | None:
    """Return the private engine if it runs, else the machine's; None if neither answers."""
    engine = private() or Engine()
    return engine if engine.answers() else None


def private() -> Engine | None:
    """Return the private engine if its first process is alive, even before it answers."""
    recorded = record()
    if not proc.alive(recorded.get("inside", 0)):
        return None
    # The engine's docker goes first; users run other programs of PATH in its network.
    path = f"{recorded['root']}/usr/bin:{os.environ.get('PATH', os.defpath)}"
    environment = {"DOCKER_HOST": host(), "PATH": path, "KIND_EXPERIMENTAL_PROVIDER": "docker"}
    return Engine(environment, ("nsenter", f"--target={recorded['inside']}", "--net", "--mount", "--pid"))


def home() -> Path:
    """Return the directory of the files of a running kind cluster; images are in the cache."""
    return directories.state() / "kind"


def host() -> str:
    """Return the address at which the private engine listens."""
    return f"unix://{home() / 'docker.sock'}"


def record() -> dict[str, Any]:
    """Return the record of the private engine: `root` of its programs, pids `outside` and `inside` its namespaces."""
    try:
        return dict(json.loads((home() / "engine.json").read_text()))
    except (OSError, ValueError):
        return {}
