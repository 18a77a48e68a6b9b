"""muster's images without a base image: Debian's Python, the wheels of uv.lock, and the wheel of the project.

This takes apt, dpkg and uv, neither an engine nor root, so a site without a registry can use it as well. The images have no
compiler, no package manager and no shell. They share three layers: Python, the packages of the extra `kube`, the project.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from muster_dev.kind import archive, debian, store
from muster_dev.kind.archive import Image
from muster_dev.local import toolchain
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Progress


@dataclass(frozen=True)
class Target:
    """One image: the extra of the project that is installed in it (None: the base install), and the command that it runs."""

    extra: str | None
    command: str


TARGETS = {
    "operator": Target("operator", "muster-operator"),
    "extender": Target("extender", "muster-extender"),
    "agent": Target("fake-gpus", "muster-agent"),
    "runtime": Target(None, "python3"),
}
"""The same as in the Dockerfile."""
_SHARED = "kube"
_PYTHON = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
# Dependencies of these packages that Python can run without.
_WITHOUT = (
    "dpkg", "libacl1", "libdb5.3", "libmd0", "libncursesw6", "libpcre2-8-0", "libreadline8", "libselinux1", "libtinfo6",
    "media-types", "readline-common", "tar",
)  # fmt: skip
_UNUSED_MODULES = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo")
SOURCES = (
    "pyproject.toml",
    "uv.lock",
    "README.md",
    "LICENSE",
    "src",
    "operator",
    "extender",
    "agent",
    "examples/allreduce.py",
)
_USER = 65532
_TREE = Path("opt/muster")


def archive_of(names: Mapping[str, str], project: Path, progress: Progress) -> Path:
    """Return an archive of the images, named by target, for `docker load`, `kind load image-archive`, `ctr images import`."""
    if not debian.available():
        raise LocalError("Images can be assembled on Debian only; elsewhere start a container engine that reaches a registry.")

    def make(into: Path) -> None:
        with progress.step("assembling muster's images"), TemporaryDirectory(prefix="muster-images-") as scratch:
            archive.write(_images(names, project, Path(scratch)), into / "images.tar")

    sources = store.digest([Path(__file__), *(project / name for name in SOURCES)])
    ingredients = [debian.release(), sources, *names.values()]
    return store.made("muster-images", ingredients, make, progress) / "images.tar"


def _images(names: Mapping[str, str], project: Path, scratch: Path) -> list[Image]:
    python = scratch / "python"
    debian.unpack(_PYTHON, python, installed=False, without=_WITHOUT)
    layers = _Layers(project, scratch, _finish(python))
    own = layers.of_project()
    made = {extra: layers.of_extra(extra) for extra in (_SHARED, *filter(None, (t.extra for t in TARGETS.values())))}
    for layer in (python, own, *made.values()):
        _compile(python, layer)
    return [
        Image(names[name], [python, *([made[_SHARED], made[target.extra]] if target.extra else []), own], _config(target))
        for name, target in TARGETS.items()
    ]


class _Layers:
    """Installs requirements and the project into directories, for the images' Python of that `minor` version."""

    def __init__(self, project: Path, scratch: Path, minor: str) -> None:
        self._project, self._scratch, self._minor = project, scratch, minor

    def of_extra(self, extra: str) -> Path:
        """Install the requirements of an extra, except those of the shared extra."""
        requirements = self._locked(extra)
        if extra != _SHARED:
            requirements -= self._locked(_SHARED)
        file = self._scratch / f"{extra}.txt"
        file.write_text("\n".join(sorted(requirements)))
        return self._install(extra, "--require-hashes", "--requirement", str(file))

    def of_project(self) -> Path:
        """Install the project's wheel, its commands on PATH, and the program of the example."""
        debian.run([_uv(), "build", "--quiet", "--wheel", "--out-dir", str(self._scratch / "wheel"), str(self._project)])
        (wheel,) = (self._scratch / "wheel").glob("*.whl")
        layer = self._install("project", str(wheel))
        _write_commands(layer)
        (layer / "examples").mkdir()
        shutil.copy(self._project / "examples/allreduce.py", layer / "examples")
        return layer

    def _locked(self, extra: str) -> set[str]:
        """Return the requirements of an extra, each with its version and hashes."""
        command = [_uv(), "export", "--frozen", "--no-dev", "--no-emit-project", "--no-annotate", "--no-header"]
        text = debian.run([*command, "--quiet", "--project", str(self._project), "--extra", extra])
        return {block.strip() for block in re.split(r"\n(?=\S)", text)}

    def _install(self, name: str, *what: str) -> Path:
        layer = self._scratch / name
        platform = ["--python-version", self._minor, "--python-platform", "linux", "--only-binary", ":all:"]
        debian.run([_uv(), "pip", "install", "--quiet", "--no-deps", "--target", str(layer / _TREE), *platform, *what])
        shutil.rmtree(layer / _TREE / "bin", ignore_errors=True)  # scripts for the Python that uv runs on
        return layer


def _finish(python: Path) -> str:
    """Do the work of the maintainer scripts, remove modules that no part imports, and return Python's version."""
    (library,) = (python / "usr/lib").glob("python3.*")
    for name in _UNUSED_MODULES:
        shutil.rmtree(library / name, ignore_errors=True)
    for path in (python / "usr/share", python / "usr/include", *python.glob("usr/lib/*/gconv")):
        shutil.rmtree(path, ignore_errors=True)
    (python / "etc/passwd").write_text(f"root:x:0:0::/:/\nmuster:x:{_USER}:{_USER}::/tmp:/\n")
    (python / "tmp").mkdir()
    (python / "tmp").chmod(0o1777)
    return library.name.removeprefix("python")


def _write_commands(layer: Path) -> None:
    (declared,) = (layer / _TREE).glob("muster-*.dist-info/entry_points.txt")
    points = ConfigParser()
    points.read(declared)
    commands = layer / "usr/local/bin"
    commands.mkdir(parents=True)
    for name, place in points["console_scripts"].items():
        module, function = place.split(":")
        script = commands / name
        script.write_text(f"#!/usr/bin/python3\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        script.chmod(0o755)


def _compile(python: Path, layer: Path) -> None:
    """Compile a layer's modules with the images' own Python, since containers never write to their image.

    The bytecode is checked by no time stamp: all files of an image have the same.
    """
    loader = next(path for path in python.glob("lib*/ld-linux*"))
    libraries = (
        ":".join(str(path) for path in python.glob("*/*-linux-gnu*")) + ":" + str(next(python.glob("usr/lib/*-linux-gnu*")))
    )
    (program,) = python.glob("usr/bin/python3.*")
    command = [str(loader), "--library-path", libraries, str(program), "-I", "-m", "compileall"]
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(layer), "-p", "/"]
    debian.run([*command, *options, str(layer)], env=os.environ | {"PYTHONHOME": str(python / "usr")})


def _config(target: Target) -> dict[str, object]:
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"/{_TREE}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
    }
    env = [f"{name}={value}" for name, value in variables.items()]
    return {"Env": env, "User": f"{_USER}:{_USER}", "WorkingDir": "/", "Entrypoint": [target.command]}


def _uv() -> str:
    command = toolchain.uv()
    if not command:
        raise LocalError("Assembling images from uv.lock needs uv: run `make setup`, pip install uv, or set UV to its path.")
    return command
