"""Where a program of the control plane comes from: the first place that has it, and a build where none has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from muster_dev.local import binaries, toolchain
from muster_dev.local.binaries import CONTROL_PLANE, Module, find
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Quiet

needs_go = pytest.mark.skipif(not shutil.which("go"), reason="builds with the go on PATH, and there is none")


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "muster"


def module_of(name: str) -> Module:
    return next(module for module in binaries.modules() if name in module.packages)


def test_kubebuilder_assets_come_first_and_the_cache_has_the_rest(assets: Path, cache: Path) -> None:
    cached = {name: executable(cache / module_of(name).key() / name) for name in CONTROL_PLANE}
    ours = {name: executable(assets / name) for name in ("etcd", "kubectl")}
    assert find(CONTROL_PLANE) == cached | ours


def test_without_kubebuilder_assets_the_cache_serves(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    helm = executable(cache / module_of("helm").key() / "helm")
    assert find(["helm"]) == {"helm": helm}


def test_what_cannot_be_executed_is_passed_over(assets: Path, cache: Path) -> None:
    executable(assets / "etcd").chmod(0o644)
    (assets / "kwok").mkdir()
    cached = {name: executable(cache / module_of(name).key() / name) for name in ("etcd", "kwok")}
    assert find(["etcd", "kwok"]) == cached


def test_the_cache_is_keyed_by_both_files(tmp_path: Path) -> None:
    keys = set()
    for mod, sums in (("a", "b"), ("a", "c"), ("d", "b")):
        (tmp_path / "go.mod").write_text(mod)
        (tmp_path / "go.sum").write_text(sums)
        keys.add(Module(tmp_path, {}).key())
    assert len(keys) == 3


def test_an_unknown_program_is_told_with_the_known_ones() -> None:
    with pytest.raises(LocalError, match=r"dockerd; there are etcd.*helm"):
        find(["dockerd"])


def test_every_program_is_a_tool_of_its_module() -> None:
    for module in binaries.modules():
        assert all(package in module.file("go.mod") for package in module.packages.values())


def test_the_api_server_is_told_its_version() -> None:
    flags = module_of("kube-apiserver").ldflags()
    assert "version.gitVersion=v1.36" in flags
    assert flags.endswith("-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36")


@pytest.fixture
def small_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """A module of ours whose programs are two of Go's own commands: a real build, without the network."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    (tmp_path / "go.mod").write_text("module small\n\ngo 1.21\n")
    (tmp_path / "go.sum").write_text("")
    small = Module(tmp_path, {"test2json": "cmd/test2json", "broken": "cmd/there-is-none"})
    monkeypatch.setattr(binaries, "modules", lambda: [small])
    return small


@needs_go
def test_what_is_nowhere_is_built_once_into_the_cache(cache: Path, small_module: Module) -> None:
    built = find(["test2json"])["test2json"]
    assert built == cache / small_module.key() / "test2json"
    assert subprocess.run([built, "-h"], capture_output=True, check=False).stderr
    before = built.stat()
    assert find(["test2json"])["test2json"].stat() == before


@needs_go
def test_a_build_that_fails_is_told_and_leaves_nothing(cache: Path, small_module: Module) -> None:
    with pytest.raises(LocalError, match=r"broken could not be built.*(?s:.*)there-is-none"):
        find(["broken"])
    assert [path.name for path in (cache / small_module.key()).iterdir()] == ["lock"]


def test_a_version_is_read_as_numbers() -> None:
    assert toolchain.parse("go1.26.8\n") == (1, 26, 8)
    assert toolchain.parse("1.27rc1") == (1, 27, 0)
    assert toolchain.parse("devel") is None


def go_script(path: Path, version: str) -> Path:
    return executable(path, f"#!/bin/sh\necho {version}\n")


@pytest.mark.parametrize("on_path", ["go1.26.0", "go1.27.1"])
def test_a_go_on_path_that_is_new_enough_is_taken(tmp_path: Path, on_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = go_script(tmp_path / "bin" / "go", on_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert toolchain.go((1, 26, 0), tmp_path, Quiet()) == command


@pytest.mark.parametrize("on_path", ["go1.19.8", "nonsense"])
def test_an_older_go_gives_way_to_the_one_that_was_installed(
    tmp_path: Path, on_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_script(tmp_path / "bin" / "go", on_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    installed = go_script(tmp_path / "go-1.26" / "go" / "bin" / "go", "go1.26.3")
    assert toolchain.go((1, 26, 0), tmp_path, Quiet()) == installed


def test_without_any_way_to_go_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LocalError, match=r"Go 1\.26\.0 or newer; no go.*Install Go .*uv or python3-pip.*KUBEBUILDER_ASSETS"):
        toolchain.go((1, 26, 0), tmp_path, Quiet())
