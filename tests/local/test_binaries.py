"""The origin of a program of the control plane: $KUBEBUILDER_ASSETS, else the cache, else a build."""

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


def test_program_of_kubebuilder_assets_goes_before_that_of_the_cache(assets: Path, cache: Path) -> None:
    cached = {name: executable(cache / module_of(name).key() / name) for name in CONTROL_PLANE}
    ours = {name: executable(assets / name) for name in ("etcd", "kubectl")}
    assert find(CONTROL_PLANE) == cached | ours


def test_program_is_found_in_the_cache_without_kubebuilder_assets(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    helm = executable(cache / module_of("helm").key() / "helm")
    assert find(["helm"]) == {"helm": helm}


def test_file_that_is_not_executable_is_ignored(assets: Path, cache: Path) -> None:
    executable(assets / "etcd").chmod(0o644)
    (assets / "kwok").mkdir()
    cached = {name: executable(cache / module_of(name).key() / name) for name in ("etcd", "kwok")}
    assert find(["etcd", "kwok"]) == cached


def test_cache_key_changes_with_go_mod_and_go_sum(tmp_path: Path) -> None:
    keys = set()
    for mod, sums in (("a", "b"), ("a", "c"), ("d", "b")):
        (tmp_path / "go.mod").write_text(mod)
        (tmp_path / "go.sum").write_text(sums)
        keys.add(Module(tmp_path, {}).key())
    assert len(keys) == 3


def test_unknown_program_is_refused_with_the_names_of_the_others() -> None:
    with pytest.raises(LocalError, match=r"dockerd; there are etcd.*helm"):
        find(["dockerd"])


def test_every_program_is_a_tool_of_its_go_module() -> None:
    for module in binaries.modules():
        assert all(package in module.file("go.mod") for package in module.packages.values())


def test_api_server_is_linked_with_its_version() -> None:
    flags = module_of("kube-apiserver").ldflags()
    assert "version.gitVersion=v1.36" in flags
    assert flags.endswith("-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36")


@pytest.fixture
def small_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """A module whose programs are commands of Go itself: a real build, without the network."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    (tmp_path / "go.mod").write_text("module small\n\ngo 1.21\n")
    (tmp_path / "go.sum").write_text("")
    small = Module(tmp_path, {"test2json": "cmd/test2json", "broken": "cmd/there-is-none"})
    monkeypatch.setattr(binaries, "modules", lambda: [small])
    return small


@needs_go
def test_missing_program_is_built_once_into_the_cache(cache: Path, small_module: Module) -> None:
    built = find(["test2json"])["test2json"]
    assert built == cache / small_module.key() / "test2json"
    assert subprocess.run([built, "-h"], capture_output=True, check=False).stderr
    before = built.stat()
    assert find(["test2json"])["test2json"].stat() == before


@needs_go
def test_failed_build_is_reported_and_leaves_no_file(cache: Path, small_module: Module) -> None:
    with pytest.raises(LocalError, match=r"broken could not be built.*(?s:.*)there-is-none"):
        find(["broken"])
    assert [path.name for path in (cache / small_module.key()).iterdir()] == ["lock"]


def test_go_version_is_parsed_into_numbers() -> None:
    assert toolchain.parse("go1.26.8\n") == (1, 26, 8)
    assert toolchain.parse("1.27rc1") == (1, 27, 0)
    assert toolchain.parse("devel") is None


def go_script(path: Path, version: str) -> Path:
    return executable(path, f"#!/bin/sh\necho {version}\n")


@pytest.mark.parametrize("on_path", ["go1.26.0", "go1.27.1"])
def test_go_on_path_is_used_if_new_enough(tmp_path: Path, on_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = go_script(tmp_path / "bin" / "go", on_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert toolchain.go((1, 26, 0), tmp_path, Quiet()) == command


@pytest.mark.parametrize("on_path", ["go1.19.8", "nonsense"])
def test_installed_go_is_used_if_the_one_on_path_is_too_old(
    tmp_path: Path, on_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_script(tmp_path / "bin" / "go", on_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    installed = go_script(tmp_path / "go-1.26" / "go" / "bin" / "go", "go1.26.3")
    assert toolchain.go((1, 26, 0), tmp_path, Quiet()) == installed


def test_missing_go_uv_and_pip_are_reported_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LocalError, match=r"Go 1\.26\.0 or newer; no go.*Install Go .*uv or python3-pip.*KUBEBUILDER_ASSETS"):
        toolchain.go((1, 26, 0), tmp_path, Quiet())


def test_uv_beside_python_is_found_without_path_and_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `make setup` on a machine without uv, `.venv/bin/muster` finds the one that setup installed."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert toolchain.uv() is None
    uv = executable(tmp_path / "uv")
    assert toolchain.uv() == str(uv)
