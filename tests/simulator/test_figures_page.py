"""`make figures`: the page, the plots and failing modules."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchmarks.figures import __main__ as figures
from benchmarks.figures.figure import Figure

MET = Figure("fig 1", "2.0", "2.01", "2.0 +- 3 %", True)
MISSED = Figure("fig 2", "a|b", "7", "8", False, "because\nof this")


def module(monkeypatch: pytest.MonkeyPatch, figures_made: list[Figure], picture: str) -> None:
    """Register a figure module called `made`."""
    made = ModuleType("benchmarks.figures.made")
    made.figures = lambda: figures_made  # type: ignore[attr-defined]
    made.plot = lambda folder: (folder / "made.png").write_text(picture)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, made.__name__, made)


def test_page_contains_figures_plots_and_notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module(monkeypatch, [MET, MISSED], "first")
    section = figures.run("made", "A paper", tmp_path)
    assert section.figures == [MET, MISSED]
    assert [path.name for path in tmp_path.iterdir()] == ["made.png"]
    page = figures.page([section])
    assert "## A paper" in page
    assert "| fig 1 | 2.0 | 2.01 | 2.0 +- 3 % | yes |" in page
    assert "| fig 2 | a\\|b | 7 | 8 | **no** |" in page
    assert "- fig 2: because of this" in page
    assert "![A paper](made.png)" in page


def test_failing_module_becomes_a_missed_figure(tmp_path: Path) -> None:
    section = figures.run("no_such_module", "Missing", tmp_path)
    (figure,) = section.figures
    assert (figure.figure, figure.met) == ("no_such_module", False)
    assert "ModuleNotFoundError" in figure.note
    assert "no_such_module" in figures.page([section])


def test_all_files_are_written_and_a_missed_target_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "MODULES", {"made": "A paper"})
    page = tmp_path / figures.PAGE
    page.parent.mkdir(parents=True)
    (page.parent / "stale.png").write_text("of an earlier run")
    module(monkeypatch, [MET], "first")
    assert figures.main() == 0
    assert sorted(path.name for path in page.parent.iterdir()) == ["README.md", "made.png"]
    first = page.read_bytes()
    assert figures.main() == 0
    assert page.read_bytes() == first
    module(monkeypatch, [MET, MISSED], "second")
    assert figures.main() == 1
    assert "made: 1 of 2 met" in capsys.readouterr().out
    assert '"note": "because\\nof this"' in (tmp_path / figures.JSON).read_text()
