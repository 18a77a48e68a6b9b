"""What a scene shows while it runs: a heading with what it is to prove, commands as one would type them, tables, results.

The same words on a terminal and in a log; on a terminal in colour and with a line that moves while a step runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.table import Table

from muster_dev.local.progress import Detail, Shown

LOG_WIDTH = 120
"""Columns where standard output is no terminal."""


class Show:
    """The console of the demo; `progress` is what a local cluster reports its own steps to."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _console()
        self.progress = Shown(self.console)

    def scene(self, number: str, title: str, proves: str) -> None:
        """Open a scene."""
        self.console.print()
        self.console.print(Rule(f"[bold]{escape(f'({number}) {title}')}", align="left", characters="─"))
        self.console.print(f"[dim]To be seen:[/] {escape(proves)}")
        self.console.print()

    def say(self, text: str) -> None:
        """Show a paragraph."""
        self.console.print(escape(text))

    def result(self, text: str) -> None:
        """Show what a scene has come to."""
        self.console.print(f"[bold]→ {escape(text)}[/]")

    def command(self, text: str) -> None:
        """Show a command that is being run."""
        self.console.print(f"[bold cyan]$ {escape(text)}[/]", soft_wrap=True)

    def step(self, text: str) -> AbstractContextManager[Detail]:
        """Show a step while the body runs, and the seconds that it took."""
        return self.progress.step(text)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Show a table; a cell may carry rich markup."""
        table = Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=LOG_WIDTH)
