"""The cache of long runs: results are reused while their inputs are unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.figures import result_cache
from benchmarks.figures.result_cache import cached_on_disk, digest


def test_result_is_computed_once_for_the_same_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(result_cache, "FOLDER", tmp_path / "cache")
    calls: list[tuple[str, int]] = []

    @cached_on_disk
    def run(policy: str, seed: int) -> list[int]:
        calls.append((policy, seed))
        return [seed]

    assert [run("muster", 1), run("muster", 2), run("muster", 1)] == [[1], [2], [1]]
    assert calls == [("muster", 1), ("muster", 2)]


def test_digest_changes_with_the_module_and_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(result_cache, "ROOT", tmp_path)
    monkeypatch.setattr(result_cache, "SOURCES", ("core",))
    module, core = tmp_path / "module.py", tmp_path / "core" / "rule.py"
    core.parent.mkdir()
    digests = set()
    for text, rule in (("a", "1"), ("b", "1"), ("a", "2")):
        module.write_text(text)
        core.write_text(rule)
        digest.cache_clear()
        digests.add(digest(str(module)))
    digest.cache_clear()
    assert len(digests) == 3
