"""Results of long runs are kept, and never an old one."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.figures import result_cache as keeping
from benchmarks.figures.result_cache import digest, kept


def test_a_result_is_worked_out_once_for_the_same_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keeping, "FOLDER", tmp_path / "kept")
    asked: list[tuple[str, int]] = []

    @kept
    def run(policy: str, seed: int) -> list[int]:
        asked.append((policy, seed))
        return [seed]

    assert [run("muster", 1), run("muster", 2), run("muster", 1)] == [[1], [2], [1]]
    assert asked == [("muster", 1), ("muster", 2)]


def test_a_digest_changes_with_the_module_and_with_what_results_follow_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(keeping, "ROOT", tmp_path)
    monkeypatch.setattr(keeping, "SOURCES", ("core",))
    module, core = tmp_path / "module.py", tmp_path / "core" / "rule.py"
    core.parent.mkdir()
    seen = set()
    for text, rule in (("a", "1"), ("b", "1"), ("a", "2")):
        module.write_text(text)
        core.write_text(rule)
        digest.cache_clear()
        seen.add(digest(str(module)))
    digest.cache_clear()
    assert len(seen) == 3
