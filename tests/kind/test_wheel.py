"""The wheel that the images install has the product and nothing of the development bed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from muster_dev.kind.images import PROJECT

PACKAGES = {"muster", "muster_operator", "muster_extender", "muster_agent"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as `pip install --target` leaves it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=PROJECT, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "--extract", str(wheel), str(folder / "installed")], check=True)
    return folder / "installed"


@pytest.fixture
def distribution(installed: Path) -> Distribution:
    (metadata,) = installed.glob("*.dist-info")
    return PathDistribution(metadata)


def run(installed: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that can import the standard library and the wheel, and nothing else."""
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); {program}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)


def test_wheel_has_the_packages_of_the_product_alone(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == PACKAGES
    folders = {path.name for path in (installed / "muster").iterdir() if path.is_dir()}
    assert "scheduling" in folders
    assert folders.isdisjoint({"local", "kind", "demo"})


def test_wheel_names_the_development_bed_in_no_module(installed: Path) -> None:
    modules = list(installed.rglob("*.py"))
    assert modules
    assert [path for path in modules if "muster_dev" in path.read_text()] == []


def test_wheel_requires_neither_the_development_bed_nor_what_it_needs(distribution: Distribution) -> None:
    required = {re.split(r"[^\w-]", requirement)[0] for requirement in distribution.requires or ()}
    assert "kopf" in required
    assert required.isdisjoint({"muster-dev", "cryptography", "trustme"})


def test_help_of_the_wheel_offers_no_verb_of_the_development_bed(installed: Path) -> None:
    shown = run(installed, "from muster.cli import main; main(['--help'])")
    assert shown.returncode == 0, shown.stderr
    verbs = re.findall(r"^    (\w+) ", shown.stdout, re.MULTILINE)
    assert verbs == ["simulate", "snapshot"]


def test_verb_without_its_requirements_says_what_to_install(installed: Path) -> None:
    refused = run(installed, "from muster.cli import main; main(['simulate'])")
    assert refused.returncode == 1
    assert "pip install 'muster[all]'" in refused.stderr


def test_verb_of_the_development_bed_is_refused_without_it(installed: Path) -> None:
    refused = run(installed, "from muster.cli import main; main(['local', 'up'])")
    assert refused.returncode == 2
    assert "invalid choice: 'local'" in refused.stderr
