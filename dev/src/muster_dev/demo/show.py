"""The output of a scene: a heading that says what it shows, commands as a user would type them, tables, results.

The words are the same on a terminal and in a log; a terminal also has colour and a spinner while a step runs.
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
"""Columns if standard output is no terminal."""


class Show:
    """The console of the demo; a local cluster reports its own steps to `progress`."""

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
        """Show the result of a scene."""
        self.console.print(f"[bold]→ {escape(text)}[/]")

    def command(self, text: str) -> None:
        """Show a command that is being run."""
        self.console.print(f"[bold cyan]$ {escape(text)}[/]", soft_wrap=True)

    def step(self, text: str) -> AbstractContextManager[Detail]:
        """Show a step while the body runs, then its seconds."""
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
