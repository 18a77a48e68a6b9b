"""A figure of a paper beside ours: what `make figures` writes into build/figures.json, a line each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One published value, what ours is, what it has to reach, and whether it does."""

    figure: str
    published: str
    ours: str
    target: str
    met: bool
    note: str = ""
    """Why it is not met, or what has to be known to read it."""
