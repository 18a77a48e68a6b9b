"""A published figure compared with ours, an entry of build/figures.json."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One published value, our value, its target, and whether the target is met."""

    figure: str
    published: str
    ours: str
    target: str
    met: bool
    note: str = ""
    """The reason for a miss, or a remark for readers."""
