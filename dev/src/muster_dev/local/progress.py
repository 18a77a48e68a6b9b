"""The progress of a long action: one line per step, with its duration.

On a terminal a running step is a spinner with the seconds so far; in a log it is one plain line at its start and one at its
end. A step that raises is shown as failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

Detail = Callable[[str], None]
"""Takes one line about the current work of a running step."""


class Progress(Protocol):
    """Reports the steps of a long action."""

    def say(self, text: str) -> None:
        """Show one line."""

    def step(self, text: str) -> AbstractContextManager[Detail]:
        """Show a step while the body runs."""


class Quiet:
    """Shows nothing: for tests, and for callers with their own reports."""

    def say(self, text: str) -> None:
        """Show nothing."""

    @contextmanager
    def step(self, text: str) -> Iterator[Detail]:  # noqa: ARG002 (the protocol's signature)
        """Show nothing."""
        yield lambda _: None


class Shown:
    """Shows steps on the console: a spinner on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Show one line."""
        self.console.print(escape(text), soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Detail]:
        """Show `text` while the body runs, then its seconds."""
        begun = time.monotonic()
        try:
            with self._spinner(text) if self.console.is_terminal else self._line(text) as detail:
                yield detail
        except BaseException:
            self.console.print(f"[red]✗[/] {escape(text)}", soft_wrap=True)
            raise
        self.console.print(f"[green]✓[/] {escape(text)} [dim]{time.monotonic() - begun:.1f} s[/]", soft_wrap=True)

    @contextmanager
    def _spinner(self, text: str) -> Iterator[Detail]:
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("{task.fields[detail]}")
        with Bars(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(escape(text), total=None, detail="")
            yield lambda line: bars.update(task, detail=f"[dim]{escape(line)}[/]")

    @contextmanager
    def _line(self, text: str) -> Iterator[Detail]:
        self.console.print(f"{escape(text)} ...", soft_wrap=True)
        yield lambda _: None
